//go:build !linux

package rotate

import (
	"errors"
	"os"
)

func blockSize(*os.File) int64 { return 4096 }

func collapseRange(*os.File, int64, int64) error { return errors.ErrUnsupported }

func punchHole(*os.File, int64, int64) error { return errors.ErrUnsupported }

func datasync(f *os.File) error { return f.Sync() }

// lacking reports whether the system does not support an operation.
func lacking(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
