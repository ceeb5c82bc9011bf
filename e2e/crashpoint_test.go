//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Masters that kill themselves at critical points: the points are compiled in by a build tag, and HSU_CRASH_POINT
// selects one.

// commits returns the moments around the first n commits.
func commits(n int) []string { return moments(n, crashpoint.Commit) }

// moments returns the moments around the first n passes of the points.
func moments(n int, points ...crashpoint.Point) []string {
	var moments []string
	for _, p := range points {
		for i := range n {
			moments = append(moments, fmt.Sprintf("%s:%d", p.Before(), i+1), fmt.Sprintf("%s:%d", p.After(), i+1))
		}
	}
	return moments
}

// starts returns the moments around the first n starts of a worker.
func starts(n int) []string { return moments(n, crashpoint.Fork, crashpoint.PIDRecord) }

// crash runs a master that kills itself at the point. A master that comes to rest before the point, which is only
// acceptable for late commits, gets the signal last.
func (h *host) crash(point string, atRest func(*master) error, last syscall.Signal) {
	h.t.Helper()
	m := h.launch(programs.crasher, []string{"HSU_CRASH_POINT=" + point})
	waitFor(h.t, "the master kills itself or comes to rest", func() error {
		if !m.running() {
			return nil
		}
		return atRest(m)
	})
	if m.running() {
		h.t.Logf("the master came to rest before %s", point)
		if !strings.Contains(point, "-commit") {
			h.t.Errorf("the point was not reached")
		}
		_ = m.cmd.Process.Signal(last)
	}
	m.wait()
	status := m.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Exited() && status.ExitStatus() != 0 || status.Signaled() && status.Signal() != syscall.SIGKILL {
		h.t.Fatalf("the master ended with %v\n%s", m.cmd.ProcessState, m.log())
	}
}

// settled returns a check that n workers run or have been adopted.
func settled(n int) func(*master) error {
	return func(m *master) error {
		log := m.log()
		if got := strings.Count(log, `"msg":"worker running"`) + strings.Count(log, `"msg":"worker adopted"`); got < n {
			return fmt.Errorf("%d of %d workers are ready", got, n)
		}
		return nil
	}
}

// wantAllAdopted starts a sound master and checks that it knows every process that the killed one had started, and
// that no worker runs twice.
func (h *host) wantAllAdopted(n int) {
	h.t.Helper()
	survivors := h.leaders()
	m := h.start()
	d := h.awaitRunning(n)
	for id, pids := range survivors {
		w := d.worker(h.t, id)
		if !slices.Equal(pids, []int{w.PID}) || !w.Adopted {
			h.t.Errorf("%s = %+v, want process %v adopted", id, w, pids)
		}
	}
	h.wantNoTwin(d)
	h.ask("after the crash")
	m.stop()
	h.wantNothingLeft()
}

func TestWorkersOfAMasterKilledInTheMiddleOfAStartAreFoundAndAdopted(t *testing.T) {
	for _, point := range append(starts(2), commits(6)...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, workers(2)...)
			h.crash(point, settled(2), syscall.SIGKILL)
			h.wantIntentRecorded()
			h.wantAllAdopted(2)
		})
	}
}

// wantIntentRecorded checks that the state names every process: the intent to start it was durable before the
// start.
func (h *host) wantIntentRecorded() {
	h.t.Helper()
	h.awaitExecuted()
	for _, f := range h.processes() {
		if f.session != f.pid {
			continue
		}
		w := h.dump().worker(h.t, f.environ["HSU_WORKER_ID"])
		if w.Token != f.environ["HSU_WORKER_TOKEN"] || fmt.Sprint(w.Port) != f.environ["HSU_WORKER_PORT"] {
			h.t.Errorf("%v is recorded as %+v", f, w)
		}
	}
}

// awaitExecuted returns when each child of the killed master runs its own program. Until then it shows the master's
// arguments and environment, even if the master is gone.
func (h *host) awaitExecuted() {
	h.t.Helper()
	waitFor(h.t, "the master's children run their program", func() error {
		for _, f := range h.processes() {
			if f.session == f.pid && f.environ["HSU_WORKER_ID"] == "" {
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
			h := newHost(t, workers(2)...)
			// Killed between fork and record, with one worker and possibly the process of a second.
			h.crash("after-fork:2", settled(2), syscall.SIGKILL)
			if alive := h.leaders(); len(alive) == 0 {
				t.Fatal("the first master left no worker")
			} else if pids := alive["worker-1"]; len(pids) > 0 {
				h.killWorker(pids[0])
			}
			h.crash(point, settled(2), syscall.SIGKILL)
			h.wantAllAdopted(2)
		})
	}
}

func TestWorkersOfAMasterKilledInTheMiddleOfAStopAreNeitherLostNorDoubled(t *testing.T) {
	for _, point := range commits(4) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, workers(2)...)
			m := h.start()
			h.awaitRunning(2)
			m.kill()
			h.crash(point, settled(2), syscall.SIGTERM)
			// Workers that got SIGTERM exit without a master, so the next master does not find them while they exit
			// and adopt them.
			m = h.start()
			d := h.awaitRunning(2)
			h.wantNoTwin(d)
			m.stop()
			h.wantNothingLeft()
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
				h := newHost(t, "--sync", mode)
				load := h.startLoad(16)
				h.crash(point, func(*master) error { return errors.New("requests keep coming") }, syscall.SIGKILL)
				acked := load.acked.Load()
				m := h.start()
				if got := h.dump().ProcessedCount; got < acked {
					t.Errorf("processed_count = %d, and %d were acknowledged", got, acked)
				}
				load.stop()
				got, acked, sent := h.dump().ProcessedCount, load.acked.Load(), load.sent.Load()
				if got < acked || got > sent {
					t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
				}
				m.stop()
			})
		}
	}
}
