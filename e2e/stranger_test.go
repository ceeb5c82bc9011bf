//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store"
)

// decoy is a process that is none of the master's business. It notes every signal.
type decoy struct {
	t      *testing.T
	cmd    *exec.Cmd
	record string
	number int // its PID
	ended  chan struct{}
}

// decoy starts one, which listens on the port where one is given.
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

// wantUntouched checks that the decoy lives, goes on, and has got no signal.
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

// edit changes the record of a worker while no master runs, or removes it where
// change is nil.
func (h *host) edit(id string, change func(*store.Worker)) {
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
		mutation := store.DeleteWorker(id)
		if change != nil {
			change(&w)
			mutation = store.PutWorker(w)
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
		change  func(w *store.Worker, ticks uint64)
		held    bool // as it cannot be told, until the stranger is gone
	}{
		"the pid was reused": {},
		"within the same clock tick": {
			change: func(w *store.Worker, ticks uint64) { w.Instance.StartTicks = ticks },
		},
		"while the worker was being stopped": {
			change: func(w *store.Worker, _ uint64) { w.Status = store.StatusStopping },
		},
		"while the worker was unhealthy": {
			change: func(w *store.Worker, _ uint64) { w.Status = store.StatusUnhealthy },
		},
		"with an old kernel's proof and a token of its own": {
			environ: []string{"HSU_WORKER_TOKEN=" + theirs},
			change: func(w *store.Worker, ticks uint64) {
				w.Instance.StartTicks, w.Instance.Proof = ticks, store.ProofStartTimeToken
			},
		},
		"with an old kernel's proof and nothing to tell it by": {
			change: func(w *store.Worker, ticks uint64) {
				w.Instance.StartTicks, w.Instance.Proof = ticks, store.ProofStartTimeToken
			},
			held: true,
		},
		"as a worker of another master": {
			environ: []string{"HSU_WORKER_TOKEN=" + theirs, "HSU_WORKER_ID=worker-0", "HSU_MASTER_ID=00000000-0000-4000-8000-000000000000", "HSU_STATE_DIR=1:2"},
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
			h.edit("worker-0", func(w *store.Worker) {
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

// A copy of a state folder names workers that are the original's.
func TestMasterOnACopiedStateFolderLeavesTheOriginalsWorkersAlone(t *testing.T) {
	t.Parallel()
	original := newHost(t, workers(2)...)
	m := original.start()
	before := original.awaitRunning(2)
	want := before.instances(t)
	m.kill()

	twin := newHost(t, workers(2)...)
	// The one thing that a copy cannot have; the next master removes it too.
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
