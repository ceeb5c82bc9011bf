package process

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// eachConnector runs a test with the pidfd of the kernel, and with the PID alone.
func eachConnector(t *testing.T, test func(t *testing.T, accept func() *Connector, path string)) {
	for name, old := range map[string]bool{"SO_PEERPIDFD": false, "SO_PEERCRED": true} {
		t.Run(name, func(t *testing.T) {
			if old {
				withhold(t, &kernel.Withheld.PeerPidfd)
			}
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			test(t, func() *Connector {
				t.Helper()
				conn, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				c, err := ConnectorOf(conn.(*net.UnixConn))
				if err != nil {
					t.Fatal(err)
				}
				return c
			}, path)
		})
	}
}

func TestConnector(t *testing.T) {
	eachConnector(t, func(t *testing.T, accept func() *Connector, path string) {
		w := startWorker(t, "connect", path)
		c := accept()
		if c.PID != w.PID() || int(c.UID) != os.Geteuid() {
			t.Errorf("process %d of user %d, want %d", c.PID, c.UID, w.PID())
		}
		p, err := c.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if p.Identity() != w.Identity() {
			t.Errorf("%+v, want %+v", p.Identity(), w.Identity())
		}
		if err := w.Signal(unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitDone(t, p)
		waitDone(t, w.Process) // the two handles learn of the end one after the other
		w.Exit()               // it is reaped now
		if again, err := c.Open(); !errors.Is(err, ErrGone) {
			t.Errorf("opened after its end: %v, %v", again, err)
		}
	})
}

// If the kernel has no pidfd of the process, a process that is younger than the connection is not taken for it.
func TestConnectorIsOlderThanTheConnection(t *testing.T) {
	withhold(t, &kernel.Withheld.PeerPidfd)
	w := startWorker(t, "sleep")
	w.expectPID(t, "ready")
	c := &Connector{PID: w.PID(), since: w.Identity().StartTicks - 1}
	if p, err := c.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("a younger process: %v, %v", p, err)
	}
	c.since++
	p, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}
