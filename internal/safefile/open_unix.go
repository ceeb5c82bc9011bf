//go:build unix

package safefile

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const (
	noWait   = unix.O_NONBLOCK | unix.O_NOCTTY
	noFollow = unix.O_NOFOLLOW
)

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0) // fail on a FIFO in its place instead of blocking
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// restoreWait clears O_NONBLOCK, which a worker would inherit with its log.
func restoreWait(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.SetNonblock(int(fd), false) }); err != nil {
		return err
	}
	return failed
}
