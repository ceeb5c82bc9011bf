//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Rows of DESIGN's table of recovery that need more than a dead worker.

func TestWorkerThatIsStillStartingIsWaitedForByTheNextMaster(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.units("late")
	starting := func(_ dump, w worker) bool { return w.Status == "starting" && w.PID > 0 }
	m := h.start()
	want := h.awaitWorkers(1, "start", starting).instances(t)
	m.kill()
	m = h.start()
	if diff := cmp.Diff(want, h.awaitWorkers(1, "start", starting).instances(t)); diff != "" {
		t.Errorf("the worker is not what it was (-before +after):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(h.record, "go-on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.awaitRunning(1)
	if diff := cmp.Diff(want, d.instances(t)); diff != "" || !d.Workers[0].Adopted {
		t.Errorf("the worker is not what it was (-before +after):\n%s\n%+v", diff, d.Workers[0])
	}
	h.ask("at last")
	m.stop()
	h.wantNothingLeft()
}

// A process that a signal has stopped is under inspection. Silence is not death.
func TestSuspendedWorkerIsReportedAndNotKilled(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	want := before.instances(t)
	m.kill()
	suspended := before.worker(t, "worker-0").PID
	h.signalWorker(suspended, syscall.SIGSTOP)

	m = h.start()
	h.awaitWorkers(2, "run, but for one that is said to be stopped", func(d dump, w worker) bool {
		if w.ID == "worker-0" {
			return w.Status == "unhealthy" &&
				strings.Contains(w.Reason, fmt.Sprintf("kill -CONT %d", w.PID)) && !d.ready(w.ID)
		}
		return running(d, w)
	})
	for range 4 { // none of them goes to the one that does not answer
		h.ask("while one is stopped")
	}
	h.signalWorker(suspended, syscall.SIGCONT)
	if diff := cmp.Diff(want, h.awaitRunning(2).instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestProcessThatNoRecordNamesFillsItsSlotOrIsStopped(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	m := h.start()
	before := h.awaitRunning(3)
	m.kill()
	h.edit("worker-0", nil) // its slot is wanted
	h.edit("worker-2", nil) // its slot is not
	h.flags = workers(2)
	m = h.start()
	after := h.awaitRunning(2)
	for _, w := range after.Workers {
		was := before.worker(t, w.ID)
		if w.PID != was.PID || w.Port != was.Port || w.Token != was.Token || !w.Adopted {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	waitFor(t, "the third is gone", func() error {
		if got := h.leaders(); len(got) != 2 {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
	h.wantNoTwin(after)
	h.ask("of the adopted")
	m.stop()
	h.wantNothingLeft()
}

// An operator may start the master from a worker's own shell: then it carries the worker's token, and must not
// treat itself as a descendant.
func TestMasterThatCarriesAWorkersTokenDoesNotStopItself(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	w := before.worker(t, "worker-0")
	m.kill()
	var st unix.Stat_t
	if err := unix.Stat(h.state, &st); err != nil {
		t.Fatal(err)
	}
	m = h.launch(programs.master, []string{
		"HSU_WORKER_TOKEN=" + w.Token, "HSU_WORKER_ID=worker-0", "HSU_MASTER_ID=" + before.MasterID,
		fmt.Sprintf("HSU_STATE_DIR=%d:%d", st.Dev, st.Ino), fmt.Sprintf("HSU_WORKER_PORT=%d", w.Port),
	})
	m.awaitServing()
	if diff := cmp.Diff(before.instances(t), h.awaitRunning(2).instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	h.killWorker(w.PID)
	h.awaitWorkers(2, "run, one of them anew", func(d dump, w worker) bool {
		return running(d, w) && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	m.stop()
	h.wantNothingLeft()
}

// The database is gone, but the workers know the master's ID.
func TestWorkersAreFoundByTheirTokensWhenThereIsNoDatabase(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	m.kill()
	if err := os.Remove(filepath.Join(h.state, "state.db")); err != nil {
		t.Fatal(err)
	}
	m = h.start()
	after := h.awaitRunning(2)
	for _, w := range after.Workers {
		if was := before.worker(t, w.ID); w.PID != was.PID || w.Token != was.Token {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	h.wantNoTwin(after)
	m.stop()
	h.wantNothingLeft()
}
