//go:build race

package tail

// manyRotations is less with the race detector, which makes everything slower.
const manyRotations = 10
