package wire

import (
	"net"
	"syscall"
	"time"
)

// Socket is the network connection below HTTP/2. One goroutine at a time may read from it, and one may write.
type Socket struct {
	Conn  net.Conn
	raw   syscall.RawConn // for reads and writes that do not block; nil if there are none
	write inlineWrite     // of the goroutine that writes
}

// inlineWrite is a write that does not block. It is part of the socket, so that a write allocates nothing.
type inlineWrite struct {
	p   []byte
	n   int
	err error
	fn  func(fd uintptr) bool
}

// Interrupt aborts all reads and writes. The reader closes the connection: a Close here would wait for the
// goroutines that use it, and they may be waiting for the connection's lock.
func (s *Socket) Interrupt() {
	if s.Conn != nil {
		_ = s.Conn.SetDeadline(time.Unix(1, 0))
	}
}
