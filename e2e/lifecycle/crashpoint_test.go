//go:build e2e && linux

package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Masters that kill themselves at critical points: the points are compiled in by a build tag, and HSU_CRASH_POINT
// selects one.

// commits returns the moments around the first n commits.
func commits(n int) []string { return harness.Moments(n, crashpoint.Commit) }

// starts returns the moments around the first n starts of a worker.
func starts(n int) []string { return harness.Moments(n, crashpoint.Fork, crashpoint.PIDRecord) }

// crashAt runs a master that kills itself at the point. A master that comes to rest before the point, which is only
// acceptable for late commits, gets the signal last.
func crashAt(h *harness.Host, point string, atRest func(*harness.Master) error, last syscall.Signal) {
	h.T.Helper()
	m := h.Launch(harness.Programs.Master, []string{"HSU_CRASH_POINT=" + point})
	harness.WaitFor(h.T, "the master kills itself or comes to rest", func() error {
		if !m.Running() {
			return nil
		}
		return atRest(m)
	})
	if m.Running() {
		h.T.Logf("the master came to rest before %s", point)
		if !strings.Contains(point, "-commit") {
			h.T.Errorf("the point was not reached")
		}
		_ = m.Cmd.Process.Signal(last)
	}
	m.Wait()
	status := m.Cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Exited() && status.ExitStatus() != 0 || status.Signaled() && status.Signal() != syscall.SIGKILL {
		h.T.Fatalf("the master ended with %v\n%s", m.Cmd.ProcessState, m.Log())
	}
}

// settled returns a check that n workers run or have been adopted.
func settled(n int) func(*harness.Master) error {
	return func(m *harness.Master) error {
		log := m.Log()
		if got := strings.Count(log, `"msg":"worker running"`) + strings.Count(log, `"msg":"worker adopted"`); got < n {
			return fmt.Errorf("%d of %d workers are ready", got, n)
		}
		return nil
	}
}

// wantAllAdopted starts a sound master and checks that it knows every process that the killed one had started, and
// that no worker runs twice.
func wantAllAdopted(h *harness.Host, n int) {
	h.T.Helper()
	survivors := h.Leaders()
	m := h.Start()
	d := h.AwaitRunning(n)
	for id, pids := range survivors {
		w := d.Worker(h.T, id)
		if !slices.Equal(pids, []int{w.PID}) || !w.Adopted {
			h.T.Errorf("%s = %+v, want process %v adopted", id, w, pids)
		}
	}
	h.WantNoTwin(d)
	h.Ask("after the crash")
	m.Stop()
	h.WantNothingLeft()
}

func TestWorkersOfAMasterKilledInTheMiddleOfAStartAreFoundAndAdopted(t *testing.T) {
	for _, point := range append(starts(2), commits(6)...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(2)...)
			crashAt(h, point, settled(2), syscall.SIGKILL)
			wantIntentRecorded(h)
			wantAllAdopted(h, 2)
		})
	}
}

// wantIntentRecorded checks that the state names every process: the intent to start it was durable before the
// start.
func wantIntentRecorded(h *harness.Host) {
	h.T.Helper()
	awaitExecuted(h)
	for _, f := range h.Processes() {
		if f.Session != f.PID {
			continue
		}
		w := h.Dump().Worker(h.T, f.Environ["HSU_WORKER_ID"])
		if w.Token != f.Environ["HSU_WORKER_TOKEN"] || fmt.Sprint(w.Port) != f.Environ["HSU_WORKER_PORT"] {
			h.T.Errorf("%v is recorded as %+v", f, w)
		}
	}
}

// awaitExecuted returns when each child of the killed master runs its own program. Until then it shows the master's
// arguments and environment, even if the master is gone.
func awaitExecuted(h *harness.Host) {
	h.T.Helper()
	harness.WaitFor(h.T, "the master's children run their program", func() error {
		for _, f := range h.Processes() {
			if f.Session == f.PID && f.Environ["HSU_WORKER_ID"] == "" {
				return fmt.Errorf("%v does not", f)
			}
		}
		return nil
	})
}

func TestWorkersOfAMasterKilledInTheMiddleOfARecoveryAreFoundAndAdopted(t *testing.T) {
	for _, point := range append(starts(1), commits(4)...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(2)...)
			// Killed between fork and record, with one worker and possibly the process of a second.
			crashAt(h, "after-fork:2", settled(2), syscall.SIGKILL)
			if alive := h.Leaders(); len(alive) == 0 {
				t.Fatal("the first master left no worker")
			} else if pids := alive["worker-1"]; len(pids) > 0 {
				h.KillWorker(pids[0])
			}
			crashAt(h, point, settled(2), syscall.SIGKILL)
			wantAllAdopted(h, 2)
		})
	}
}

func TestWorkersOfAMasterKilledInTheMiddleOfAStopAreNeitherLostNorDoubled(t *testing.T) {
	for _, point := range commits(4) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t, harness.Workers(2)...)
			m := h.Start()
			h.AwaitRunning(2)
			m.Kill()
			crashAt(h, point, settled(2), syscall.SIGTERM)
			// Workers that got SIGTERM exit without a master, so the next master does not find them while they exit
			// and adopt them.
			m = h.Start()
			d := h.AwaitRunning(2)
			h.WantNoTwin(d)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

func TestCountOfAMasterKilledInTheMiddleOfACommitHoldsAllThatWasAcknowledged(t *testing.T) {
	for mode, points := range map[string][]string{
		"always": {"before-count:2", "after-count:2", "after-count-sync:2", "before-count:40", "after-count-sync:40"},
		// This commit folds the count into the database, every second.
		"interval": {"before-commit:1", "after-commit:1"},
	} {
		for _, point := range points {
			t.Run(mode+" "+point, func(t *testing.T) {
				t.Parallel()
				h := harness.NewHost(t, "--sync", mode)
				load := h.StartLoad(16)
				atRest := func(*harness.Master) error { return errors.New("requests keep coming") }
				crashAt(h, point, atRest, syscall.SIGKILL)
				acked := load.Acked.Load()
				m := h.Start()
				if got := h.Dump().ProcessedCount; got < acked {
					t.Errorf("processed_count = %d, and %d were acknowledged", got, acked)
				}
				load.Stop()
				got, acked, sent := h.Dump().ProcessedCount, load.Acked.Load(), load.Sent.Load()
				if got < acked || got > sent {
					t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
				}
				m.Stop()
			})
		}
	}
}
