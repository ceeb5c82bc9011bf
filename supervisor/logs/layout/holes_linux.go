package layout

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nextData returns the first offset at or after from that is not in a hole, or size if there is none.
func nextData(f *os.File, from, size int64) (int64, error) {
	at, err := f.Seek(from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, nil
	case errors.Is(err, unix.EINVAL): // the file system does not tell
		return from, nil
	}
	return at, err
}

// NextHole returns the first hole at or after from that has data behind it. It is empty if there is none.
func NextHole(f *os.File, from, size int64) (begin, end int64, err error) {
	begin, err = f.Seek(from, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL) || err == nil && begin >= size {
		return size, size, nil
	}
	if err != nil {
		return 0, 0, err
	}
	end, err = nextData(f, begin, size)
	if end >= size {
		return size, size, err
	}
	return begin, end, err
}
