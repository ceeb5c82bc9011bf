package master

import (
	"net"
	"testing"
)

// Clients of the module registry dial localhost.
func TestLocalPort(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711} }
	for address, want := range map[net.Addr]struct {
		port int
		open bool
	}{
		tcp("127.0.0.1"): {4711, true},
		tcp("::1"):       {4711, true},
		tcp("0.0.0.0"):   {4711, true},
		tcp("::"):        {4711, true},
		tcp("192.0.2.1"): {4711, false},
		&net.UnixAddr{}:  {0, false},
	} {
		if port, obstacle := localPort(address); port != want.port || (obstacle == "") != want.open {
			t.Errorf("%v: %d, %q", address, port, obstacle)
		}
	}
}
