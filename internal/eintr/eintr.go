//go:build unix

// Package eintr repeats system calls that a signal has interrupted.
package eintr

import "golang.org/x/sys/unix"

// Retry calls f until it is not interrupted by a signal.
func Retry[T any](f func() (T, error)) (T, error) {
	for {
		v, err := f()
		if err != unix.EINTR { //nolint:errorlint // a bare errno, and a hot path
			return v, err
		}
	}
}
