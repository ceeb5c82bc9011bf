//go:build !unix

package relay

import "math"

// descriptorLimit returns the number of descriptors that the process may open.
func descriptorLimit() int { return math.MaxInt32 }

// descriptorsInUse returns the number of descriptors that the process has open, or 0 if it is not known.
func descriptorsInUse() int { return 0 }
