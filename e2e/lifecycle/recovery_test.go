//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Rows of DESIGN's table of recovery that need more than a dead worker.

func TestWorkerThatIsStillStartingIsWaitedForByTheNextMaster(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("late")
	starting := func(w harness.Worker) bool { return w.Status == "starting" && w.PID > 0 }
	m := h.Start()
	want := h.AwaitWorkers(1, "start", starting).Instances()
	m.Kill()
	m = h.Start()
	h.AwaitWorkers(1, "start", starting).WantInstances(t, want)
	if err := os.WriteFile(filepath.Join(h.Record, "go-on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := h.AwaitRunning(1)
	if diff := cmp.Diff(want, d.Instances()); diff != "" || !d.Workers[0].Adopted {
		t.Errorf("the worker is not what it was (-before +after):\n%s\n%+v", diff, d.Workers[0])
	}
	h.Ask("at last")
	m.Stop()
	h.WantNothingLeft()
}

// A process that a signal has stopped is under inspection. Silence is not death.
func TestSuspendedWorkerIsReportedAndNotKilled(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	want := before.Instances()
	m.Kill()
	suspended := before.Worker(t, "worker-0").PID
	h.SignalWorker(suspended, syscall.SIGSTOP)

	m = h.Start()
	h.AwaitWorkers(2, "run, but for one that is said to be stopped", func(w harness.Worker) bool {
		if w.ID == "worker-0" {
			return w.Status == "unhealthy" &&
				strings.Contains(w.Reason, fmt.Sprintf("kill -CONT %d", w.PID)) && !w.Ready
		}
		return w.Running()
	})
	for range 4 { // none of them goes to the one that does not answer
		h.Ask("while one is stopped")
	}
	h.SignalWorker(suspended, syscall.SIGCONT)
	h.AwaitRunning(2).WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

func TestProcessThatNoRecordNamesFillsItsSlotOrIsStopped(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	before := h.AwaitRunning(3)
	m.Kill()
	h.EditRecord("worker-0", nil) // its slot is wanted
	h.EditRecord("worker-2", nil) // its slot is not
	h.Flags = harness.Workers(2)
	m = h.Start()
	after := h.AwaitRunning(2)
	for _, w := range after.Workers {
		was := before.Worker(t, w.ID)
		if w.PID != was.PID || w.Port != was.Port || w.Token != was.Token || !w.Adopted {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	harness.WaitFor(t, "the third is gone", func() error {
		if got := h.Leaders(); len(got) != 2 {
			return fmt.Errorf("there are %v", got)
		}
		return nil
	})
	h.WantNoTwin(after)
	h.Ask("of the adopted")
	m.Stop()
	h.WantNothingLeft()
}

// An operator may start the master from a worker's own shell: then it carries the worker's token, and must not
// treat itself as a descendant.
func TestMasterThatCarriesAWorkersTokenDoesNotStopItself(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	w := before.Worker(t, "worker-0")
	m.Kill()
	var st unix.Stat_t
	if err := unix.Stat(h.State, &st); err != nil {
		t.Fatal(err)
	}
	m = h.Launch(harness.Programs.Master, []string{
		"HSU_WORKER_TOKEN=" + w.Token, "HSU_WORKER_ID=worker-0", "HSU_MASTER_ID=" + before.MasterID,
		fmt.Sprintf("HSU_STATE_DIR=%d:%d", st.Dev, st.Ino), fmt.Sprintf("HSU_WORKER_PORT=%d", w.Port),
	})
	m.AwaitServing()
	h.AwaitRunning(2).WantInstances(t, before.Instances())
	h.KillWorker(w.PID)
	h.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	m.Stop()
	h.WantNothingLeft()
}

// The database is gone, but the workers know the master's ID.
func TestWorkersAreFoundByTheirTokensWhenThereIsNoDatabase(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	if err := os.Remove(filepath.Join(h.State, "state.db")); err != nil {
		t.Fatal(err)
	}
	m = h.Start()
	after := h.AwaitRunning(2)
	for _, w := range after.Workers {
		if was := before.Worker(t, w.ID); w.PID != was.PID || w.Token != was.Token {
			t.Errorf("%+v, want it adopted as it was: %+v", w, was)
		}
	}
	h.WantNoTwin(after)
	m.Stop()
	h.WantNothingLeft()
}
