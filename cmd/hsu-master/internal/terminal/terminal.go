// Package terminal examines the output of a command: whether it is a terminal, how wide that is, and whether
// anybody still reads it. On a terminal, it reads single keys.
package terminal

import (
	"errors"
	"io"
	"os"
)

// File returns the file that w writes to, or nil if it is not a file. A writer may have a method Unwrap that returns
// the one that it writes to.
func File(w io.Writer) *os.File {
	if u, ok := w.(interface{ Unwrap() io.Writer }); ok {
		w = u.Unwrap()
	}
	f, _ := w.(*os.File)
	return f
}

// Is reports whether w is a character device other than the null device.
func Is(w io.Writer) bool {
	f := File(w)
	if f == nil {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// The size of a terminal whose size is not known.
const usualWidth, usualHeight = 80, 24

// ErrNoReader is the cause of the end of a context of [WithReader].
var ErrNoReader = errors.New("nobody reads the output")
