//go:build race

package rotate

// raced is true if the race detector is on. It sees nothing in processes that are killed, and makes the lines of their
// writers ten times slower.
const raced = true
