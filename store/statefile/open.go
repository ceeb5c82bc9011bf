package statefile

import (
	"errors"
	"io"
	"os"

	"github.com/core-tools/hsu-master/internal/safefile"
)

// Open opens a file of the state for reading and returns its size. Anything but a regular file is damaged.
func Open(path string) (*os.File, int64, error) { return sized(path, safefile.Open) }

// OpenInput is like Open for a file that the user has named: see [safefile.OpenInput].
func OpenInput(path string) (*os.File, int64, error) { return sized(path, safefile.OpenInput) }

func sized(path string, open func(string) (*os.File, error)) (*os.File, int64, error) {
	f, err := open(path)
	if errors.Is(err, safefile.ErrNotRegular) {
		err = &DamagedError{Path: path, Err: err}
	}
	if err != nil {
		return nil, 0, err
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

// ReadFile returns the first limit bytes of a file of the state.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, _, err := Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return b, errors.Join(err, f.Close())
}

// IsAt reports whether f is still the file at path.
func IsAt(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Lstat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// CopyTo copies src to dst with plain reads and writes. [io.Copy] alone would use system calls for copying files
// that not every file system supports.
func CopyTo(dst *os.File, src io.Reader) error {
	_, err := io.Copy(onlyWriter{dst}, src)
	return err
}

// onlyWriter hides the other methods of a file from io.Copy.
type onlyWriter struct{ io.Writer }
