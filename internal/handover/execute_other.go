//go:build !linux

package handover

import (
	"errors"
	"os"
)

// Supported reports whether the program of a process can be replaced on this operating system.
const Supported = false

func closeOnExec(int) {}

// Execute fails: only Linux supports it.
func Execute(Program, map[string]*os.File, any) error { return errors.ErrUnsupported }

// Self fails: only Linux supports it.
func Self() (*os.File, error) { return nil, errors.ErrUnsupported }

// PathOf fails: only Linux supports it.
func PathOf(*os.File) (string, error) { return "", errors.ErrUnsupported }

// SetName does nothing.
func SetName(string) {}

// Duplicate fails: only Linux supports it.
func Duplicate(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

// Executable is the open file of a program.
type Executable struct{}

// OpenExecutable fails: only Linux supports it.
func OpenExecutable(string) (*Executable, error) { return nil, errors.ErrUnsupported }

// ID returns zeros.
func (*Executable) ID() (device, inode uint64) { return 0, 0 }

// File returns nil.
func (*Executable) File() *os.File { return nil }

// Path fails: only Linux supports it.
func (*Executable) Path() (string, error) { return "", errors.ErrUnsupported }

// Close does nothing.
func (*Executable) Close() error { return nil }
