package sockets

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reservation keeps a port of 127.0.0.1 from other processes: a socket that is bound to the port and does not
// listen. The kernel does not assign the port to a process that asks for any free port, and refuses connections to
// it. A process that sets SO_REUSEADDR or, with this process's UID, SO_REUSEPORT can listen on the port at the
// same time; for any other process it is in use.
type Reservation struct{ fd int }

// Reserve reserves a port that has no listener.
func Reserve(port int) (*Reservation, error) {
	return bound(port, share, func(int) error { return nil })
}

// Claim is like Reserve, but fails if any socket is bound to the port, including that of another
// reservation or one left over from a connection.
func Claim(port int) (*Reservation, error) {
	return bound(port, func(int) error { return nil }, share)
}

// bound returns a reservation of the port. The kernel compares the options that sockets have at the moment of a
// bind, so options set before and after it have different effects.
func bound(port int, before, after func(fd int) error) (*Reservation, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve port %d: %w", port, err)
	}
	err = before(fd)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = after(fd)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("reserve port %d: %w", port, err)
	}
	return &Reservation{fd: fd}, nil
}

// share lets other sockets bind to the port that fd has.
func share(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// Close releases the port.
func (r *Reservation) Close() error { return unix.Close(r.fd) }
