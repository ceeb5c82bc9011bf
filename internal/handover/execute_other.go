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
