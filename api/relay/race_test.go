//go:build race

package relay

// raced tells that the race detector is on: its pools lose things on purpose, and its memory is not ours.
const raced = true
