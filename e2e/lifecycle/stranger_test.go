//go:build e2e && linux

package lifecycle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
)

func TestStrangerWithTheRecordedPIDIsNeverSignalled(t *testing.T) {
	const theirs = "0123456789abcdef0123456789abcdef"
	for name, test := range map[string]struct {
		environ []string
		change  func(w *records.Worker, ticks uint64)
		held    bool // because the identity is unknown, until the stranger is gone
	}{
		"the pid was reused": {},
		"within the same clock tick": {
			change: func(w *records.Worker, ticks uint64) { w.Instance.StartTicks = ticks },
		},
		"while the worker was being stopped": {
			change: func(w *records.Worker, _ uint64) { w.Status = records.StatusStopping },
		},
		"while the worker was unhealthy": {
			change: func(w *records.Worker, _ uint64) { w.Status = records.StatusUnhealthy },
		},
		"with an old kernel's proof and a token of its own": {
			environ: []string{"HSU_WORKER_TOKEN=" + theirs},
			change: func(w *records.Worker, ticks uint64) {
				w.Instance.StartTicks, w.Instance.Proof = ticks, identity.ProofStartTimeToken
			},
		},
		"with an old kernel's proof and nothing to tell it by": {
			change: func(w *records.Worker, ticks uint64) {
				w.Instance.StartTicks, w.Instance.Proof = ticks, identity.ProofStartTimeToken
			},
			held: true,
		},
		"as a worker of another master": {
			environ: []string{
				"HSU_WORKER_TOKEN=" + theirs, "HSU_WORKER_ID=worker-0",
				"HSU_MASTER_ID=00000000-0000-4000-8000-000000000000", "HSU_STATE_DIR=1:2",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(2)...)
			m := h.Start()
			before := h.AwaitRunning(2)
			m.Kill()
			h.KillWorker(before.Worker(t, "worker-0").PID)
			d := h.StartDecoy(0, test.environ...)
			h.EditRecord("worker-0", func(w *records.Worker) {
				w.Instance.PID = d.PID
				if test.change != nil {
					test.change(w, harness.StartTicks(d.PID))
				}
			})

			m = h.Start()
			if test.held {
				after := h.AwaitWorkers(2, "run or are held", func(w harness.Worker) bool {
					return w.ID == "worker-1" && w.Running() || strings.Contains(w.Reason, "held")
				})
				if got := h.Leaders()["worker-0"]; len(got) > 0 {
					t.Errorf("a second copy was started beside what may be the first: %v, %+v", got, after)
				}
				d.WantUntouched(t)
				d.End()
			}
			after := h.AwaitRunning(2)
			if w := after.Worker(t, "worker-0"); w.PID == d.PID || w.Incarnation != 2 {
				t.Errorf("the worker = %+v, want a new process", w)
			}
			if got, want := after.Worker(t, "worker-1").PID, before.Worker(t, "worker-1").PID; got != want {
				t.Errorf("the other worker's pid = %d, want %d as before", got, want)
			}
			h.WantNoTwin(after)
			h.Ask("with a stranger about")
			m.Stop()
			if !test.held {
				d.WantUntouched(t)
			}
			h.WantNothingLeft()
		})
	}
}

func TestStrangerOnTheRecordedPortIsLeftAloneAndTheWorkerGetsAnother(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	dead := before.Worker(t, "worker-0")
	h.KillWorker(dead.PID)
	d := h.StartDecoy(dead.Port)

	m = h.Start()
	after := h.AwaitRunning(2)
	if w := after.Worker(t, "worker-0"); w.Port == dead.Port || w.Incarnation != 2 {
		t.Errorf("the worker = %+v, want it on another port than %d", w, dead.Port)
	}
	if !strings.Contains(m.Log(), "worker port changed") {
		t.Errorf("nothing was said of the change:\n%s", m.Log())
	}
	h.Ask("on another port")
	m.Stop()
	d.WantUntouched(t)
	h.WantNothingLeft()
}

// Another process of the worker's user can listen on the worker's port too, and then gets connections. It gets no
// call, and the worker gets none while the other process listens. The worker ends its connections, so that new ones
// are made.
func TestStrangerBesideAWorkerGetsNoCall(t *testing.T) {
	h := harness.NewHost(t)
	m := h.Start(h.Units("sharing", "plain")...)
	w := h.AwaitRunning(2).Worker(t, "worker-0")
	var thief thief
	for range 16 { // so that hardly any connection goes to the worker
		thief.listen(t, w.Port)
	}
	harness.WaitFor(t, "the stranger is reported", func() error {
		h.Ask("secret")
		if w := h.Dump().Worker(t, "worker-0"); !strings.Contains(w.Reason, "is held by another process") {
			return fmt.Errorf("%s is %s: %s", w.ID, w.Status, w.Reason)
		}
		return nil
	})
	if got := thief.close(); got != "" {
		t.Errorf("the stranger got %q", got)
	}
	if again := h.AwaitRunning(2).Worker(t, "worker-0"); again.PID != w.PID {
		t.Errorf("the worker was started again: %+v", again)
	}
	m.Stop()
}

// thief accepts connections that are meant for a worker, and records the bytes sent on them.
type thief struct {
	listeners []net.Listener
	running   sync.WaitGroup
	mu        sync.Mutex
	conns     []net.Conn
	closed    bool
	got       []byte
}

// listen makes the thief listen on a port beside other listeners.
func (f *thief) listen(t *testing.T, port int) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	l, err := config.Listen(t.Context(), "tcp", harness.Loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	f.listeners = append(f.listeners, l)
	f.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.running.Go(func() { f.read(c) })
		}
	})
}

func (f *thief) read(c net.Conn) {
	defer func() { _ = c.Close() }()
	f.mu.Lock()
	if f.conns = append(f.conns, c); f.closed {
		_ = c.Close()
	}
	f.mu.Unlock()
	got, _ := io.ReadAll(c)
	// The bytes that hsu-core's connection for Pings sends before the other side has sent anything. That connection
	// cannot be verified first.
	greeting := []byte(http2.ClientPreface +
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00" + "\x00\x04\x00\x10\x00\x00" + // SETTINGS: windows of 1 MiB
		"\x00\x00\x04\x08\x00\x00\x00\x00\x00" + "\x00\x0f\x00\x01") // WINDOW_UPDATE: of the connection, too
	if bytes.HasPrefix(greeting, got) {
		return // the thief was closed before the rest of it came
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, bytes.TrimPrefix(got, greeting)...)
}

// close stops the thief, and returns the bytes that it has received, except greetings.
func (f *thief) close() string {
	for _, l := range f.listeners {
		_ = l.Close()
	}
	f.mu.Lock()
	f.closed = true
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.running.Wait()
	return string(f.got)
}

// A copy of a state directory names workers that belong to the original.
func TestMasterOnACopiedStateFolderLeavesTheOriginalsWorkersAlone(t *testing.T) {
	t.Parallel()
	original := harness.NewHost(t, harness.Workers(2)...)
	m := original.Start()
	before := original.AwaitRunning(2)
	want := before.Instances()
	m.Kill()

	twin := harness.NewHost(t, harness.Workers(2)...)
	// A copy cannot contain the socket; the next master removes it too.
	if err := os.Remove(filepath.Join(original.State, "run", "admin.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(twin.State, os.DirFS(original.State)); err != nil {
		t.Fatal(err)
	}
	other := twin.Start()
	theirs := twin.AwaitRunning(2)
	for _, w := range theirs.Workers {
		if w.PID == before.Worker(t, w.ID).PID || w.Token == before.Worker(t, w.ID).Token {
			t.Errorf("the copy took the original's %s: %+v", w.ID, w)
		}
	}
	twin.WantNoTwin(theirs)
	other.Stop()

	m = original.Start()
	after := original.AwaitRunning(2)
	after.WantInstances(t, want)
	m.Stop()
	original.WantNothingLeft()
	twin.WantNothingLeft()
}
