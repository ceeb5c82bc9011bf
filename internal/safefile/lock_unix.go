//go:build unix

package safefile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

const (
	lockTries = 20
	lockPause = 50 * time.Millisecond
)

// ErrLocked is returned by [LockFolder] if another process has locked the folder for as long as that waits.
var ErrLocked = errors.New("the folder is locked by another process")

// LockFolder locks a folder against other processes that lock it too, for a moment, and returns the function that
// unlocks it. Everyone who can read the folder can lock it.
func LockFolder(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|noWait, 0)
	if err != nil {
		return nil, err
	}
	for range lockTries {
		//nolint:gosec // a descriptor fits
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		time.Sleep(lockPause)
	}
	return nil, errors.Join(fmt.Errorf("lock %s: %w", path, ErrLocked), f.Close())
}
