//go:build unix

package wire

import (
	"errors"
	"io"
	"syscall"
)

// inline is true if reads and writes that do not block are available.
const inline = true

// inlineWrite is a write that does not block. It is part of the socket, so that a write allocates nothing.
type inlineWrite struct {
	p   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
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

// readRaw is the read loop for a socket whose reads need not block. The input holds a buffer only while there is data
// in it.
func (s *Socket) readRaw(in *Input, arrived func() error) error {
	var failure error
	err := s.raw.Read(func(fd uintptr) bool {
		var again bool
		again, failure = readAvailable(int(fd), in, arrived)
		return !again
	})
	if failure != nil {
		return failure
	}
	return err
}

// readAvailable reads the available data. It returns true to wait for more.
func readAvailable(fd int, in *Input, arrived func() error) (again bool, err error) {
	for {
		n, err := syscall.Read(fd, in.space())
		switch {
		case errors.Is(err, syscall.EAGAIN):
			in.release()
			return true, nil
		case errors.Is(err, syscall.EINTR):
			continue
		case err == nil && n == 0:
			err = io.EOF
		}
		if err == nil {
			in.add(n)
			err = arrived()
		}
		if err != nil {
			return false, err
		}
	}
}
