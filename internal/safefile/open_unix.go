//go:build unix

package safefile

import (
	"os"

	"golang.org/x/sys/unix"
)

const (
	noWait   = unix.O_NONBLOCK | unix.O_NOCTTY
	noFollow = unix.O_NOFOLLOW
)

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
