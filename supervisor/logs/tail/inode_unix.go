//go:build unix

package tail

import (
	"os"
	"syscall"
)

// inodeOf returns the inode of a file; 0 if it is not known.
func inodeOf(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
