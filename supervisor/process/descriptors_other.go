//go:build !unix

package process

import "math"

// DescriptorLimit returns the number of descriptors that the process may open.
func DescriptorLimit() int { return math.MaxInt32 }
