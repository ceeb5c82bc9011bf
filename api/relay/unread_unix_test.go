//go:build unix

package relay

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// unread reports whether the relay has not read all that a client has sent. A closed connection has nothing to read.
func unread(t testing.TB, nc net.Conn) (some bool) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { // fails if the connection is closed
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("look at what is unread: %v", err)
		}
		some = n > 0
	})
	return some
}
