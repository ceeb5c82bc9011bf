//go:build !linux

package sockets

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
)

// Reservation keeps a port from other processes.
type Reservation struct{}

// Reserve reserves a port that has no listener.
func Reserve(int) (*Reservation, error) { return nil, unsupported("reserve a port") }

// Claim reserves a port that no socket is bound to.
func Claim(int) (*Reservation, error) { return nil, unsupported("reserve a port") }

// Close releases the port.
func (*Reservation) Close() error { return nil }

// Listening is not possible here.
func Listening() (listens func(port int) (somewhere, loopback bool), err error) {
	return nil, unsupported("list the listeners")
}

// UserOf returns the UID of a local TCP socket.
func UserOf(own, other netip.AddrPort) (uint32, error) {
	return 0, unsupported("find a socket's user")
}

func unsupported(what string) error {
	return fmt.Errorf("%s on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}
