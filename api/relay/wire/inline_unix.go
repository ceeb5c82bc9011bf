//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// Use sets the network connection.
func (s *Socket) Use(nc net.Conn) {
	s.Conn = nc
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
}

// tryWrite writes as much of p as the socket accepts now. Only one goroutine at a time may call it.
func (s *Socket) tryWrite(p []byte) (n int, err error) {
	a := &s.write
	if a.fn == nil {
		a.fn = a.try
	}
	a.p, a.n, a.err = p, 0, nil
	err = s.raw.Write(a.fn)
	a.p = nil
	if err == nil {
		err = a.err
	}
	return a.n, err
}

func (a *inlineWrite) try(fd uintptr) bool {
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

// tryRead reads the data that is available. It returns 0 bytes and no error if there is none.
func tryRead(fd uintptr, p []byte) (n int, err error) {
	for {
		n, err := syscall.Read(int(fd), p)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
