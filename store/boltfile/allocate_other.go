//go:build !linux

package boltfile

import (
	"errors"
	"os"
)

// allocate is not supported on this system. On Linux it allocates the blocks of the first n bytes of f.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }
