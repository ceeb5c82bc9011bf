//go:build unix

package supervisor

import (
	"io/fs"
	"os"
	"syscall"
)

func executable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }

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
