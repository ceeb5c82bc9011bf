//go:build !unix

package fair

import "math"

// DescriptorLimit returns the number of descriptors that this process may open. It bounds how many connections it can
// give places to.
func DescriptorLimit() int { return math.MaxInt32 }
