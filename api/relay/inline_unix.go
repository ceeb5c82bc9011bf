//go:build unix

package relay

import (
	"errors"
	"io"
	"syscall"
)

// inline says that reads and writes which do not block are to be had.
const inline = true

// attempt is a write that does not block. It lives in the connection, so that a write allocates nothing.
type attempt struct {
	p   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

func (a *attempt) try(fd uintptr) bool {
	for a.n < len(a.p) {
		n, err := syscall.Write(int(fd), a.p[a.n:])
		if n > 0 {
			a.n += n
		}
		switch {
		case err == nil || errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return true
		default:
			a.err = err
			return true
		}
	}
	return true
}

// tryWrite writes what the socket takes now. Only one goroutine at a time may call it.
func (c *conn) tryWrite(p []byte) (n int, err error) {
	a := &c.attempt
	if a.fn == nil {
		a.fn = a.try
	}
	a.p, a.n, a.err = p, 0, nil
	err = c.raw.Write(a.fn)
	a.p = nil
	if err == nil {
		err = a.err
	}
	return a.n, err
}

// readRaw reads and handles until the connection is over. The read buffer is held only while there is something in it.
func (c *conn) readRaw() error {
	err := c.raw.Read(c.readable)
	if c.readErr != nil {
		return c.readErr
	}
	return err
}

// readable handles what there is to read. It returns false to wait for more.
func (c *conn) readable(fd uintptr) bool {
	for {
		in := c.input()
		n, err := syscall.Read(int(fd), in.b[len(in.b):cap(in.b)])
		switch {
		case errors.Is(err, syscall.EAGAIN):
			c.releaseInput()
			return false
		case errors.Is(err, syscall.EINTR):
			continue
		case err == nil && n == 0:
			err = io.EOF
		}
		if err == nil {
			err = c.arrived(n)
		}
		if err != nil {
			c.readErr = err
			return true
		}
	}
}
