//go:build unix

package supervisor

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

func executable(info fs.FileInfo) bool { return info.Mode().Perm()&0o111 != 0 }

// checkOwner refuses, for a master that runs as root, what somebody else could
// replace: that would make them root.
func checkOwner(path string, info fs.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if os.Geteuid() != 0 || !ok {
		return nil
	}
	const groupWrite, othersWrite = 0o020, 0o002
	switch mode := info.Mode().Perm(); {
	case owner.Uid != 0:
		return fmt.Errorf("worker path: %s belongs to user %d, who could make a root master run anything: chown root it, or run the master as that user", path, owner.Uid)
	case mode&othersWrite != 0, mode&groupWrite != 0 && owner.Gid != 0:
		return fmt.Errorf("worker path: %s can be written by others than root: chmod go-w it, or run the master as another user", path)
	}
	return checkFolders(path)
}

// checkFolders refuses a file that could be renamed away: one in, or below, a
// folder that all may write to, unless only owners may rename there (/tmp).
func checkFolders(path string) error {
	dir, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("worker path: %w", err)
	}
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		info, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("worker path: %w", err)
		}
		if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("worker path: %s can be replaced by others than root: chmod o-w %s, or run the master as another user", path, dir)
		}
	}
	return nil
}

// ownerOf returns the user whom a folder belongs to.
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
