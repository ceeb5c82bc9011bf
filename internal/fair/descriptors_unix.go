//go:build unix

package fair

import (
	"math"
	"syscall"
)

// DescriptorLimit returns the number of descriptors that this process may open. It bounds how many connections it can
// give places to.
func DescriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}
