package statefile

import (
	"errors"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// LeadsTo reports whether path leads to the file that mine describes.
//
// It does not ask for the file's times. Once they have been asked for, the kernel (since Linux 6.13) gives the next
// write a new time, which changes the inode, and a file system without a journal writes the inode in each sync. Without
// the question, a file that is written, synced and looked for again and again costs one write to the disk each time
// instead of two.
func LeadsTo(path string, mine fs.FileInfo) (bool, error) {
	st, ok := mine.Sys().(*syscall.Stat_t)
	if !ok {
		return leadsTo(path, mine)
	}
	var there unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO, &there)
	for errors.Is(err, unix.EINTR) {
		err = unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO, &there)
	}
	switch {
	case isRefused(err) || err == nil && there.Mask&unix.STATX_INO == 0:
		return leadsTo(path, mine)
	case err != nil:
		return false, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return there.Ino == st.Ino && unix.Mkdev(there.Dev_major, there.Dev_minor) == st.Dev, nil
}

// isRefused reports whether the error says that there is no statx: in Linux before 4.11, or for a seccomp filter that
// does not know the call and answers EPERM, which a look for a file never does.
func isRefused(err error) bool { return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) }
