package sockets

import (
	"net"
	"sync"
	"testing"
)

// A reading that began before a process listens may miss its listener.
func TestSharedListenersAreNeverTooOld(t *testing.T) {
	asking.Add(1)
	defer asking.Add(-1)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Error(err)
					return
				}
				port := l.Addr().(*net.TCPAddr).Port
				if found, err := Listeners(t.Context(), port); err != nil || len(found) != 1 ||
					found[0].Port != port {
					t.Errorf("%+v, %v, want the listener on port %d", found, err, port)
				}
				l.Close()
			}
		})
	}
	wg.Wait()
}
