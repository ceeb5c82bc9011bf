package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// dialPort connects to a port of this machine.
func dialPort(t testing.TB, host string, port int) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func ends(c *net.TCPConn) (local, remote netip.AddrPort) {
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func wantPeer(t *testing.T, f Family, c *net.TCPConn, want Ownership) {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	local, remote := ends(c)
	if got, err := f.OwnsPeer(ctx, local, remote); err != nil || got != want {
		t.Errorf("OwnsPeer = %v, %v, want %v", got, err, want)
	}
}

func TestOwnsPeer(t *testing.T) {
	for _, tt := range []struct {
		name, host string
		behaviour  string
		args       []string
	}{
		{"itself", "127.0.0.1", "accept", []string{"127.0.0.1:0"}},
		{"itself on every address", "127.0.0.1", "accept", []string{":0"}},
		{"itself on tcp6", "::1", "accept", []string{"[::1]:0"}},
		{"grandchild in another session", "127.0.0.1", "double-fork", []string{"accept", "127.0.0.1:0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "tcp6") {
				if _, err := os.Stat("/proc/net/tcp6"); err != nil {
					t.Skip("needs IPv6")
				}
			}
			w := startWorker(t, tt.behaviour, tt.args...)
			c := dialPort(t, tt.host, w.expectPID(t, "port"))
			wantPeer(t, w.family, c, PortOurs)
			wantPeer(t, startWorker(t, "sleep").family, c, PortForeign)
		})
	}
}

// A foreign process that listens on the worker's port gets some of the connections to it. OwnsPeer must
// distinguish them from the worker's.
func TestOwnsPeerWithAThiefOnThePort(t *testing.T) {
	w := startWorker(t, "accept", "127.0.0.1:0")
	port := w.expectPID(t, "port")
	thief, err := sharedListener(fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	taken := make(map[string]bool)
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := thief.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			taken[c.RemoteAddr().String()] = true
		}
	}()
	found := make(map[string]Ownership)
	for seen := make(map[Ownership]int); seen[PortOurs] < 2 || seen[PortForeign] < 2; {
		local, remote := ends(dialPort(t, "127.0.0.1", port))
		owner, err := w.family.OwnsPeer(t.Context(), local, remote)
		if err != nil {
			t.Fatal(err)
		}
		seen[owner]++
		found[local.String()] = owner
	}
	_ = thief.Close()
	<-accepting
	for address, owner := range found {
		if taken[address] != (owner == PortForeign) {
			t.Errorf("OwnsPeer = %v, and the thief took it: %v", owner, taken[address])
		}
	}
}

// Before it is accepted, a connection has no owner unless the listener's cgroup is the family's own.
func TestOwnsPeerBeforeItIsAccepted(t *testing.T) {
	w := startWorker(t, "listen", "127.0.0.1:0")
	c := dialPort(t, "127.0.0.1", w.expectPID(t, "port"))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	local, remote := ends(c)
	if owner, err := w.family.OwnsPeer(ctx, local, remote); owner != PortUnknown ||
		!errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OwnsPeer = %v, %v, want it to wait in vain", owner, err)
	}
	_ = c.Close()
	wantPeer(t, w.family, c, PortFree)

	w = prepareWorker(t)
	w.family.Cgroup = testCgroup(t)
	w.start(t, Spec{Args: childArgs("listen", "127.0.0.1:0"), Cgroup: w.family.Cgroup})
	wantPeer(t, w.family, dialPort(t, "127.0.0.1", w.expectPID(t, "port")), PortOurs)
}

func TestOwnsPeerIsUnknownWithoutSockDiag(t *testing.T) {
	w := startWorker(t, "accept", "127.0.0.1:0")
	local, remote := ends(dialPort(t, "127.0.0.1", w.expectPID(t, "port")))
	for name, missing := range map[string]*atomic.Bool{
		"sock_diag": &kernel.Withheld.SockDiag, "tcp_diag": &kernel.Withheld.TCPDiag,
	} {
		t.Run(name, func(t *testing.T) {
			withhold(t, missing)
			if owner, err := w.family.OwnsPeer(t.Context(), local, remote); owner != PortUnknown ||
				!errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("OwnsPeer = %v, %v, want it not known", owner, err)
			}
		})
	}
}
