package rotate

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

const fallbackBlock = 4096

// blockSize returns the size of the blocks of a file's file system.
func blockSize(f *os.File) int64 {
	var st unix.Statfs_t
	err := control(f, func(fd int) error { return unix.Fstatfs(fd, &st) })
	if size := int64(st.Bsize); err == nil && size >= 512 && size&(size-1) == 0 {
		return size
	}
	return fallbackBlock
}

func collapseRange(f *os.File, at, n int64) error {
	return fallocate(f, unix.FALLOC_FL_COLLAPSE_RANGE, at, n)
}

func punchHole(f *os.File, at, n int64) error {
	return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}

func fallocate(f *os.File, mode uint32, at, n int64) error {
	err := control(f, func(fd int) error { return unix.Fallocate(fd, mode, at, n) })
	return os.NewSyscallError("fallocate", err)
}

func datasync(f *os.File) error {
	return os.NewSyscallError("fdatasync", control(f, unix.Fdatasync))
}

// control calls act with the descriptor until it is not interrupted.
func control(f *os.File, act func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for failed = act(int(fd)); failed == unix.EINTR; { //nolint:errorlint // a bare errno
			failed = act(int(fd))
		}
	})
	return errors.Join(err, failed)
}

// lacking reports whether the file system does not support an operation, or not with blocks of this size: it may
// allocate several at a time.
func lacking(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, unix.EINVAL)
}
