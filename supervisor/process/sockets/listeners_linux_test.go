package sockets

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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

// A listener counts as reached at 127.0.0.1 only if it certainly is.
func TestListeningOnLoopback(t *testing.T) {
	if _, err := Listening(); err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		network, address string
		bind             string // to this interface
		loopback         bool
	}{
		"loopback":         {network: "tcp4", address: "127.0.0.1:0", loopback: true},
		"all addresses":    {network: "tcp4", address: "0.0.0.0:0", loopback: true},
		"another address":  {network: "tcp4", address: "127.0.0.2:0"},
		"IPv6":             {network: "tcp6", address: "[::1]:0"},
		"both":             {network: "tcp", address: "[::]:0"},
		"of one interface": {network: "tcp4", address: "0.0.0.0:0", bind: "lo"},
	} {
		t.Run(name, func(t *testing.T) {
			config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
				if c.bind == "" {
					return nil
				}
				var bound error
				err := conn.Control(func(fd uintptr) { bound = unix.BindToDevice(int(fd), c.bind) })
				return errors.Join(err, bound)
			}}
			l, err := config.Listen(t.Context(), c.network, c.address)
			if err != nil {
				t.Skip(err) // without IPv6, or without the right to bind to an interface
			}
			defer func() { _ = l.Close() }()
			listens, err := Listening()
			if err != nil {
				t.Fatal(err)
			}
			if some, loopback := listens(l.Addr().(*net.TCPAddr).Port); !some || loopback != c.loopback {
				t.Errorf("listens: %t, on loopback: %t, want %t", some, loopback, c.loopback)
			}
		})
	}
}
