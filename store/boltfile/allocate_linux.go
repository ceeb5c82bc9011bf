package boltfile

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/statefile"
)

// allocate allocates the blocks of the first n bytes of f, even beyond its end. The size of the file does not
// change.
func allocate(f *os.File, n int64) error {
	return statefile.Control(f, func(fd int) error { return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, n) })
}
