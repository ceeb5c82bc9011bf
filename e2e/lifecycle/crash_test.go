//go:build e2e && linux

package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// The central promise: a master that is killed at any moment and restarted finds every worker unchanged, and has
// lost no acknowledged request. The test uses the release binaries.
func TestKillingTheMasterUnderLoadLosesNoWorkerAndNoRequest(t *testing.T) {
	for _, sync := range []struct {
		mode   string
		rounds int
	}{{"always", 20}, {"interval", 6}} {
		t.Run("sync "+sync.mode, func(t *testing.T) { killUnderLoad(t, sync.mode, sync.rounds) })
	}
}

func killUnderLoad(t *testing.T, mode string, rounds int) {
	const count, callers = 8, 64
	h := harness.NewHost(t, append(harness.Workers(count, "--log-level=debug"), "--sync", mode)...)
	h.Program = harness.Programs.Release
	m := h.Start()
	first := h.AwaitRunning(count)
	want := first.Instances()
	memory := map[string]int64{} // each worker's own count
	load := h.StartLoad(callers)

	for round := range rounds {
		load.AwaitMore(300)
		m.Kill()
		for _, w := range first.Workers {
			size := logSize(t, h, w.ID)
			if got := harness.WorkerStatus(t, w.Port).GetProcessedCount(); got < memory[w.ID] {
				t.Errorf("round %d: %s counts %d, and counted %d before: its memory is another",
					round, w.ID, got, memory[w.ID])
			} else {
				memory[w.ID] = got
			}
			harness.WaitFor(t, w.ID+" goes on writing its log without a master", func() error {
				if logSize(t, h, w.ID) <= size {
					return fmt.Errorf("still %d bytes", size)
				}
				return nil
			})
		}
		acked := load.Acked.Load()
		m = h.Start()
		d := h.AwaitRunning(count)
		if diff := cmp.Diff(want, d.Instances()); diff != "" {
			t.Fatalf("round %d: the workers are not what they were (-before +after):\n%s", round, diff)
		}
		for _, w := range d.Workers {
			if !w.Adopted || w.Incarnation != 1 || w.LastExit != nil {
				t.Errorf("round %d: %s = %+v, want it adopted and never ended", round, w.ID, w)
			}
		}
		if d.ProcessedCount < acked {
			t.Fatalf("round %d: processed_count = %d, and %d were acknowledged", round, d.ProcessedCount, acked)
		}
		h.WantNoTwin(d)
	}

	load.AwaitMore(300)
	load.Stop()
	sent, acked := load.Sent.Load(), load.Acked.Load()
	if d := h.Dump(); d.ProcessedCount < acked || d.ProcessedCount > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", d.ProcessedCount, acked, sent)
	}
	counted := int64(0)
	for _, w := range first.Workers {
		counted += harness.WorkerStatus(t, w.Port).GetProcessedCount()
		if n := strings.Count(readLog(t, h, w.ID), "worker started"); n != 1 {
			t.Errorf("%s started %d times by its own log", w.ID, n)
		}
	}
	if counted < acked || counted > sent {
		t.Errorf("the workers counted %d by themselves, want it between %d acknowledged and %d sent",
			counted, acked, sent)
	}
	t.Logf("%d crashes: %d sent, %d acknowledged", rounds, sent, acked)
	m.Stop()
	h.WantNothingLeft()
}

func logSize(t *testing.T, h *harness.Host, id string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(h.State, "logs", id+".log"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func readLog(t *testing.T, h *harness.Host, id string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.State, "logs", id+".log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOneWorkerKilledWhileNoMasterRunsIsTheOnlyOneStartedAgain(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(4)...)
	m := h.Start()
	before := h.AwaitRunning(4)
	want := before.Instances()
	m.Kill()
	dead := before.Worker(t, "worker-2")
	h.KillWorker(dead.PID)

	m = h.Start()
	after := h.AwaitRunning(4)
	got := after.Instances()
	delete(want, "worker-2")
	delete(got, "worker-2")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the survivors are not what they were (-before +after):\n%s", diff)
	}
	w := after.Worker(t, "worker-2")
	if w.PID == dead.PID || w.Token == dead.Token || w.Incarnation != 2 || w.Restarts != 1 || w.Adopted {
		t.Errorf("the dead one = %+v, want a second incarnation and one restart", w)
	}
	// Its exit code went to the process that reaped it; an unknown code must not be invented.
	if w.LastExit == nil || w.LastExit.Known && (w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL") ||
		!w.LastExit.Known && (w.LastExit.Code != nil || w.LastExit.Signal != nil) {
		t.Errorf("its last exit = %+v, want SIGKILL or unknown", w.LastExit)
	}
	h.WantNoTwin(after)
	h.Ask("after it")
	m.Stop()
	h.WantNothingLeft()
}

func TestAllWorkersKilledWhileNoMasterRunsAreAllStartedAgain(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(4)...)
	m := h.Start()
	before := h.AwaitRunning(4)
	m.Kill()
	for _, w := range before.Workers {
		h.KillWorker(w.PID)
	}
	m = h.Start()
	after := h.AwaitRunning(4)
	for _, w := range after.Workers {
		if w.Incarnation != 2 || w.Restarts != 1 || w.PID == before.Worker(t, w.ID).PID {
			t.Errorf("%s = %+v, want a second incarnation", w.ID, w)
		}
	}
	h.WantNoTwin(after)
	m.Stop()
	h.WantNothingLeft()
}

func TestWorkerKilledUnderARunningMasterIsStartedAgainAndItsSignalIsTold(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	h.KillWorker(before.Worker(t, "worker-1").PID)
	after := h.AwaitWorkers(2, "run, one for the second time", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-0" || w.Incarnation == 2)
	})
	w := after.Worker(t, "worker-1")
	if w.LastExit == nil || !w.LastExit.Known || w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL" ||
		w.LastExit.Code != nil {
		t.Errorf("last exit = %+v, want SIGKILL, known", w.LastExit)
	}
	if got, want := after.Worker(t, "worker-0"), before.Worker(t, "worker-0"); got.PID != want.PID ||
		got.Restarts != 0 {
		t.Errorf("the other = %+v, want it untouched", got)
	}
	m.Stop()
	h.WantNothingLeft()
}

// After twenty masters and twenty worker restarts, no process holds more descriptors than at first.
func TestNothingLeaksOverManyAdoptionsAndRestarts(t *testing.T) {
	t.Parallel()
	// A few kills each for several workers: the backoff of one doubles each time.
	const count, rounds, kills = 4, 20, 5
	flags := append(harness.Workers(count), "--restart-budget", "1000/5m", "--restart-backoff", "1ms")
	h := harness.NewHost(t, flags...)
	m := h.Start()
	h.AwaitRunning(count)

	for round := range rounds {
		m.Kill()
		m = h.Start()
		if w := h.AwaitRunning(count).Worker(t, "worker-0"); !w.Adopted {
			t.Fatalf("adoption %d: %+v", round, w)
		}
	}
	// From here on, a single master sees workers die, adopted ones first. Those serve before their first check, which
	// opens the connection to them.
	d := h.AwaitWorkers(count, "have answered a check", func(w harness.Worker) bool {
		return w.Running() && len(w.Checks) > 0 && !w.Checks[0].AnsweredAt.IsZero()
	})
	most := descriptors(t, m.PID) + count // the master reserves the port of each worker that it starts
	for kill := range kills {
		for _, w := range d.Workers {
			h.SignalWorker(w.PID, syscall.SIGKILL)
		}
		d = h.AwaitWorkers(count, "run again",
			func(w harness.Worker) bool { return w.Running() && w.Incarnation == kill+2 })
	}
	harness.WaitFor(t, "the master has no more open than it needs", func() error {
		// The connection of the dump may not be closed yet.
		if got := descriptors(t, m.PID); got > most {
			return fmt.Errorf("%d descriptors after %d restarts, want %d at most", got, kills*count, most)
		}
		return nil
	})
	for _, w := range d.Workers {
		if foreign := inherited(t, h, w.PID); foreign != nil {
			t.Errorf("%s has inherited what is the master's: %v", w.ID, foreign)
		}
	}
	m.Stop()
	h.WantNothingLeft()
}

// inherited returns the files of the master that a worker has open: above all the lock, which would then outlive
// the master.
func inherited(t *testing.T, h *harness.Host, pid int) (foreign []string) {
	t.Helper()
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(links) == 0 {
		t.Fatal(errors.Join(err, errors.New("the worker's descriptors cannot be read")))
	}
	for _, link := range links {
		target, _ := os.Readlink(link)
		if strings.HasPrefix(target, h.Dir) && !strings.HasSuffix(target, ".log") &&
			!strings.HasSuffix(target, ".lease") {
			foreign = append(foreign, target)
		}
	}
	return foreign
}

// descriptors returns the number of open descriptors of a process.
func descriptors(t *testing.T, pid int) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}
