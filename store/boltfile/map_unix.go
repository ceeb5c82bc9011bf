//go:build unix

package boltfile

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/statefile"
)

// mapSize is the address space that is mapped for the file from the start. While a reader (such as a backup) is
// active, the file can grow up to this size without waiting for the reader.
const mapSize = 64 << 20

// mapFile maps the first size bytes of f for reading, or returns nil if that is not possible.
func mapFile(f *os.File, size int64) []byte {
	if int64(int(size)) != size {
		return nil
	}
	var b []byte
	if err := statefile.Control(f, func(fd int) (err error) {
		b, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
		return err
	}); err != nil {
		return nil
	}
	return b
}

func unmapFile(b []byte) { _ = unix.Munmap(b) }
