package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// eachSource runs a test with the kernel's socket diagnosis, and with /proc/net.
func eachSource(t *testing.T, test func(t *testing.T)) {
	t.Run("sock_diag", test)
	t.Run("shared", func(t *testing.T) { // as with concurrent callers
		withhold(t, &kernel.Withheld.PortQuery)
		test(t)
	})
	t.Run("proc", func(t *testing.T) {
		withhold(t, &kernel.Withheld.SockDiag)
		test(t)
	})
}

// ownerOf calls OwnsPort again if a busy machine did not let it answer within ownerPatience.
func ownerOf(f Family, port int) (owner Ownership, err error) {
	for deadline := time.Now().Add(patience); ; {
		owner, err = f.OwnsPort(port)
		if !errors.Is(err, context.DeadlineExceeded) || time.Now().After(deadline) {
			return owner, err
		}
	}
}

func wantOwner(t *testing.T, f Family, port int, want Ownership) {
	t.Helper()
	got, err := ownerOf(f, port)
	if err != nil || got != want {
		t.Errorf("OwnsPort(%d) = %v, %v, want %v", port, got, err, want)
	}
}

// startListener starts a worker that listens, on a port on which no other process of the machine does on another
// address: such a process would be a foreign owner.
func startListener(t *testing.T, behaviour string, args ...string) (*worker, int) {
	t.Helper()
	for {
		w := startWorker(t, behaviour, args...)
		port := w.expectPID(t, "port")
		found, err := sockets.Listeners(t.Context(), port)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 {
			return w, port
		}
		t.Logf("%d listeners on port %d", len(found), port)
	}
}

// onlyLeader returns the family without its open handle.
func (w *worker) onlyLeader() Family {
	f := w.family
	f.Main = nil
	return f
}

func TestOwnsPort(t *testing.T) {
	tests := []struct {
		name      string
		behaviour string
		args      []string
	}{
		{"itself", "listen", []string{"127.0.0.1:0"}},
		{"itself on tcp6", "listen", []string{"[::1]:0"}},
		{"itself on every address", "listen", []string{":0"}},
		{"child of a prefork server", "prefork", []string{"127.0.0.1:0"}},
		{"grandchild in another session", "double-fork", []string{"listen", "127.0.0.1:0"}},
		{"cleared environment", "clear", []string{"listen", "127.0.0.1:0"}},
		{"cleared and closed", "close-lease", []string{"clear", "listen", "127.0.0.1:0"}},
	}
	eachSource(t, func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if strings.Contains(tt.name, "tcp6") {
					if _, err := os.Stat("/proc/net/tcp6"); err != nil {
						t.Skip("needs IPv6")
					}
				}
				w, port := startListener(t, tt.behaviour, tt.args...)
				wantOwner(t, w.family, port, PortOurs)
				if tt.name != "cleared and closed" { // only an open handle proves this one
					wantOwner(t, w.onlyLeader(), port, PortOurs)
				}
				stranger := startWorker(t, "sleep")
				wantOwner(t, stranger.family, port, PortForeign)
				lost := w.onlyLeader()
				lost.Token, lost.LeasePath = stranger.family.Token, ""
				wantOwner(t, lost, port, PortForeign) // the leader's PID, but another process
			})
		}
	})
}

func TestOwnsPortWithStrangers(t *testing.T) {
	eachSource(t, func(t *testing.T) {
		w, port := startListener(t, "listen", "127.0.0.1:0")
		// The same port on another address, in this process: not all listeners are the worker's. No other test connects
		// from that address, which would occupy the port.
		l, err := net.Listen("tcp", fmt.Sprintf("127.84.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wantOwner(t, w.family, port, PortForeign)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantOwner(t, w.family, port, PortOurs)
	})
}

func TestOwnsPortFree(t *testing.T) {
	eachSource(t, func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// Neither a connection from this port nor a socket that does not listen counts.
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		port := client.LocalAddr().(*net.TCPAddr).Port
		w := startWorker(t, "sleep")
		wantOwner(t, w.family, port, PortFree)
		wantOwner(t, w.family, l.Addr().(*net.TCPAddr).Port, PortForeign)
	})
}

func TestOwnsPortRefusesNonsense(t *testing.T) {
	for _, port := range []int{0, -1, 65536} {
		if owner, err := (Family{}).OwnsPort(port); !errors.Is(err, os.ErrInvalid) || owner != PortUnknown {
			t.Errorf("OwnsPort(%d) = %v, %v", port, owner, err)
		}
	}
}

func TestOwnsPortWithoutAccessIsUnknown(t *testing.T) {
	needRoot(t)
	w, port := startListener(t, "listen", "127.0.0.1:0")
	f := w.family
	f.Main = nil
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, asker := range []string{"nobody-port", "bare-port"} {
		a := startWorker(t, asker, string(text), fmt.Sprint(port))
		if got := a.expect(t, "owner"); got != "unknown" {
			t.Errorf("%s: owner is %s, want unknown", asker, got)
		}
	}
}

func TestOwnershipVerdict(t *testing.T) {
	tests := []struct {
		name   string
		made   []uint32 // UIDs of the listeners without an owner
		denied []uint32
		want   Ownership
	}{
		{"all members are readable", []uint32{1000}, nil, PortForeign},
		{"a hidden member's uid", []uint32{1000}, []uint32{1001, 1000}, PortUnknown},
		{"root, before it dropped its rights", []uint32{0}, []uint32{1000}, PortUnknown},
		{"another user's", []uint32{1002}, []uint32{1000}, PortForeign},
		{"one of them another user's", []uint32{1000, 1002}, []uint32{1000}, PortForeign},
	}
	for _, tt := range tests {
		s := ownerSearch{missing: make(map[string]sockets.Socket), denied: tt.denied}
		for i, uid := range tt.made {
			made := sockets.Socket{Inode: uint64(i), UID: uid}
			s.missing[made.Link()] = made
		}
		if got := s.verdict(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
