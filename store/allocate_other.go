//go:build !linux

package store

import (
	"errors"
	"os"
)

// allocate would give f the blocks of its first n bytes.
func allocate(*os.File, int64) error { return errors.ErrUnsupported }
