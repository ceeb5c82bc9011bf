package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate gives f the blocks of its first n bytes, also beyond its end, which stays
// where it is.
func allocate(f *os.File, n int64) error {
	return control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, n) })
}
