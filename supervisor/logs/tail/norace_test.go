//go:build !race

package tail

const manyRotations = 100
