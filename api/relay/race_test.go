//go:build race

package relay

// raced is true if the race detector is on: its pools drop items on purpose, and it uses memory of its own.
const raced = true
