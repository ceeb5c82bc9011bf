package relay

import (
	"net"
	"syscall"
	"time"
)

// socket is the network connection of a conn. One goroutine at a time may read from it, and one may write.
type socket struct {
	nc      net.Conn
	raw     syscall.RawConn // for reads and writes that do not block; nil if there are none
	attempt attempt         // of the goroutine that writes
}

// use sets the network connection.
func (s *socket) use(nc net.Conn) {
	s.nc = nc
	if sc, ok := nc.(syscall.Conn); ok && inline {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
}

// interrupt aborts all reads and writes. The reader closes the connection: a Close here would wait for the
// goroutines that use it, and they may be waiting for the connection's lock.
func (s *socket) interrupt() {
	if s.nc != nil {
		_ = s.nc.SetDeadline(time.Unix(1, 0))
	}
}
