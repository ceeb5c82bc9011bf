//go:build e2e && linux

package harness

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// recentPorts are the last ports that were handed out: a master's port has no listener while the master is down,
// and must not be given to another test meanwhile.
type recentPorts struct {
	mu   sync.Mutex
	last []int
}

var handedOut recentPorts

// add adds a port and reports whether it is new.
func (r *recentPorts) add(port int) bool {
	const most = 2000
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.last, port) {
		return false
	}
	if r.last = append(r.last, port); len(r.last) > most {
		r.last = r.last[1:]
	}
	return true
}

// FreePort returns a port without a listener. It is outside of the kernel's ephemeral range, because while the
// master is down, a port in that range might be taken by a worker, or by a connection.
func FreePort(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	const lowest = 10_000
	first, err := strconv.Atoi(strings.Fields(string(text))[0])
	if err != nil || first <= lowest {
		first = 32_768
	}
	for range 100 {
		port := lowest + rand.IntN(first-lowest)
		if !handedOut.add(port) {
			continue
		}
		l, err := net.Listen("tcp", Loopback(port))
		if err != nil {
			continue
		}
		defer func() { _ = l.Close() }()
		return port
	}
	t.Fatal("found no free port")
	return 0
}

// Loopback returns the address of a port on 127.0.0.1.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Listening fails if no process listens on the port of 127.0.0.1. It reads the kernel's list and does not connect.
func Listening(port int) error {
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), fmt.Sprintf(" 0100007F:%04X 00000000:0000 0A ", port)) {
		return fmt.Errorf("nobody listens on port %d", port)
	}
	return nil
}

// Address is the address of the master.
func (h *Host) Address() string { return Loopback(h.Port) }
