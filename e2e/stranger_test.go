//go:build e2e && linux

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// decoy is a foreign process that the master must not touch. It notes every signal.
type decoy struct {
	t      *testing.T
	cmd    *exec.Cmd
	record string
	number int // its PID
	ended  chan struct{}
}

// decoy starts a decoy, which listens on the port unless that is 0.
func (h *host) decoy(port int, environ ...string) *decoy {
	h.t.Helper()
	record, err := os.MkdirTemp(h.dir, "decoy")
	if err != nil {
		h.t.Fatal(err)
	}
	d := &decoy{t: h.t, record: record, ended: make(chan struct{})}
	d.cmd = exec.Command(programs.unit, "-as", "decoy", "-record", record, "-port", strconv.Itoa(port))
	d.cmd.Env = append(cleanEnviron(), environ...)
	if err := d.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	d.number = d.cmd.Process.Pid
	h.others[d.number] = true
	go func() {
		defer close(d.ended)
		_ = d.cmd.Wait()
	}()
	h.t.Cleanup(d.end)
	waitFor(h.t, "the decoy stands", func() error {
		if left, _ := filepath.Glob(filepath.Join(record, "decoy.*")); len(left) == 0 {
			return errors.New("not yet")
		}
		if port != 0 {
			return listening(port)
		}
		return nil
	})
	return d
}

func (d *decoy) pid() int { return d.number }

// wantUntouched checks that the decoy lives, runs, and has got no signal.
func (d *decoy) wantUntouched() {
	d.t.Helper()
	if f, err := readStat(fmt.Sprintf("/proc/%d", d.pid())); err != nil || strings.IndexByte("ZXTt", f.state) >= 0 {
		d.t.Errorf("the stranger was killed or stopped: state %c, %v", f.state, err)
	}
	if got, err := os.ReadFile(filepath.Join(d.record, "signals")); err == nil {
		d.t.Errorf("the stranger got signals: %q", got)
	}
}

func (d *decoy) end() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// edit changes the record of a worker while no master runs, or removes it if change is nil.
func (h *host) edit(id string, change func(*records.Worker)) {
	h.t.Helper()
	db, err := store.Open(h.state, store.Options{})
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			h.t.Error(err)
		}
	}()
	snap, err := db.Snapshot()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, w := range snap.Workers {
		if w.ID != id {
			continue
		}
		mutation := records.DeleteWorker(id)
		if change != nil {
			change(&w)
			mutation = records.PutWorker(w)
		}
		if err := db.Apply(h.t.Context(), mutation); err != nil {
			h.t.Fatal(err)
		}
		return
	}
	h.t.Fatalf("no record of %s", id)
}

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
			h := newHost(t, workers(2)...)
			m := h.start()
			before := h.awaitRunning(2)
			m.kill()
			h.killWorker(before.worker(t, "worker-0").PID)
			d := h.decoy(0, test.environ...)
			h.edit("worker-0", func(w *records.Worker) {
				w.Instance.PID = d.pid()
				if test.change != nil {
					test.change(w, born(t, d.pid()))
				}
			})

			m = h.start()
			if test.held {
				after := h.awaitWorkers(2, "run or are held", func(d dump, w worker) bool {
					return w.ID == "worker-1" && running(d, w) || strings.Contains(w.Reason, "held")
				})
				if got := h.leaders()["worker-0"]; len(got) > 0 {
					t.Errorf("a second copy was started beside what may be the first: %v, %+v", got, after)
				}
				d.wantUntouched()
				d.end()
			}
			after := h.awaitRunning(2)
			if w := after.worker(t, "worker-0"); w.PID == d.pid() || w.Incarnation != 2 {
				t.Errorf("the worker = %+v, want a new process", w)
			}
			if got, want := after.worker(t, "worker-1").PID, before.worker(t, "worker-1").PID; got != want {
				t.Errorf("the other worker's pid = %d, want %d as before", got, want)
			}
			h.wantNoTwin(after)
			h.ask("with a stranger about")
			m.stop()
			if !test.held {
				d.wantUntouched()
			}
			h.wantNothingLeft()
		})
	}
}

func TestStrangerOnTheRecordedPortIsLeftAloneAndTheWorkerGetsAnother(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	dead := before.worker(t, "worker-0")
	h.killWorker(dead.PID)
	d := h.decoy(dead.Port)

	m = h.start()
	after := h.awaitRunning(2)
	if w := after.worker(t, "worker-0"); w.Port == dead.Port || w.Incarnation != 2 {
		t.Errorf("the worker = %+v, want it on another port than %d", w, dead.Port)
	}
	if !strings.Contains(m.log(), "port-changed") {
		t.Errorf("nothing was said of the change:\n%s", m.log())
	}
	h.ask("on another port")
	m.stop()
	d.wantUntouched()
	h.wantNothingLeft()
}

// Another process of the worker's user can listen on the worker's port too, and then gets connections. It gets no
// call, and the worker gets none while the other process listens. The worker ends its connections, so that new ones
// are made.
func TestStrangerBesideAWorkerGetsNoCall(t *testing.T) {
	h := newHost(t)
	m := h.start(h.units("sharing", "plain")...)
	w := h.awaitRunning(2).worker(t, "worker-0")
	var thief thief
	for range 16 { // so that hardly any connection goes to the worker
		thief.listen(t, w.Port)
	}
	waitFor(t, "the stranger is reported", func() error {
		h.ask("secret")
		if w := h.dump().worker(t, "worker-0"); !strings.Contains(w.Reason, "is held by another process") {
			return fmt.Errorf("%s is %s: %s", w.ID, w.Status, w.Reason)
		}
		return nil
	})
	if got := thief.close(); got != "" {
		t.Errorf("the stranger got %q", got)
	}
	if again := h.awaitRunning(2).worker(t, "worker-0"); again.PID != w.PID {
		t.Errorf("the worker was started again: %+v", again)
	}
	m.stop()
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
	l, err := config.Listen(t.Context(), "tcp", address(port))
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
	greeting := []byte(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
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
	original := newHost(t, workers(2)...)
	m := original.start()
	before := original.awaitRunning(2)
	want := before.instances(t)
	m.kill()

	twin := newHost(t, workers(2)...)
	// A copy cannot contain the socket; the next master removes it too.
	if err := os.Remove(filepath.Join(original.state, "run", "admin.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(twin.state, os.DirFS(original.state)); err != nil {
		t.Fatal(err)
	}
	other := twin.start()
	theirs := twin.awaitRunning(2)
	for _, w := range theirs.Workers {
		if w.PID == before.worker(t, w.ID).PID || w.Token == before.worker(t, w.ID).Token {
			t.Errorf("the copy took the original's %s: %+v", w.ID, w)
		}
	}
	twin.wantNoTwin(theirs)
	other.stop()

	m = original.start()
	after := original.awaitRunning(2)
	if diff := cmp.Diff(want, after.instances(t)); diff != "" {
		t.Errorf("the original's workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	original.wantNothingLeft()
	twin.wantNothingLeft()
}
