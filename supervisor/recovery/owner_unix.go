//go:build unix

package recovery

import (
	"os"
	"syscall"
)

// ownerOf returns the UID of the owner of path.
func ownerOf(path string) (uid int, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(owner.Uid), nil
	}
	return os.Geteuid(), nil
}
