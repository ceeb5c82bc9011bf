//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// elapsed returns the time from one line of the log to another one.
func elapsed(first, second harness.LogLine) time.Duration {
	d := second.Time.Sub(first.Time)
	return d - d.Round(365*24*time.Hour) // scripts/clock shifts the times in the log by whole years
}

// crashLoop makes the host's only worker exit at once, with a budget of 5 restarts.
func crashLoop(h *harness.Host, backoff string) *harness.Host {
	h.Flags = append(h.Units("exits"), "--restart-backoff", backoff, "--restart-budget", "5/5m")
	return h
}

func TestWorkerThatExitsAtOnceIsStartedEverMoreSlowlyAndThenFailsForGood(t *testing.T) {
	t.Parallel()
	h := crashLoop(harness.NewHost(t), "10ms")
	m := h.Start()
	w := h.AwaitFailed(1).Worker(t, "worker-0")
	if w.Incarnation != 6 || w.Restarts != 5 {
		t.Errorf("%d starts and %d restarts, want 6 and 5", w.Incarnation, w.Restarts)
	}
	if !strings.Contains(w.Reason, "exited with code 7") || !strings.Contains(w.Reason, "5/5m") {
		t.Errorf("reason = %q, want the exit and the budget in it", w.Reason)
	}
	if e := w.LastExit; e == nil || !e.Known || e.Code == nil || *e.Code != 7 || e.Signal != nil {
		t.Errorf("last exit = %+v, want code 7", e)
	}
	if got, want := w.LastOutput, "configuration: no such table: unicorns"; !slices.Contains(got, want) {
		t.Errorf("last output = %q, want %q in it", got, want)
	}

	// The delays are logged and kept: 10 ms, doubled each time, less a quarter at most. A delay begins after the line
	// of the exit. Its own line has what is left of it, and is written some time later.
	exits, backoffs, starts := m.Logged("worker exited"), m.Logged("worker backoff"), m.Logged("worker started")
	if len(exits) != 6 || len(backoffs) != 5 || len(starts) != 6 {
		t.Fatalf("%d exits, %d delays and %d starts in the log, want 6, 5 and 6",
			len(exits), len(backoffs), len(starts))
	}
	for i, b := range backoffs {
		full := 10 * time.Millisecond << i
		passed := elapsed(exits[i], b)
		if b.RestartIn.Duration > full || b.RestartIn.Duration+passed < full*3/4 {
			t.Errorf("delay %d = %s, %s after the exit, want %s less a quarter at most", i, b.RestartIn, passed, full)
		}
		if got := elapsed(exits[i], starts[i+1]); got < b.RestartIn.Duration {
			t.Errorf("start %d came %s after the exit, with an announced delay of %s", i+1, got, b.RestartIn)
		}
	}

	for _, command := range [][]string{{"status"}, {"worker", "list"}, {"state", "dump"}} {
		code := 0
		if command[0] == "status" {
			code = 1 // a wanted worker does not run
		}
		r := h.CLI(command...)
		for _, want := range []string{
			"worker-0", "failed", "restart budget 5/5m used up", "exited with code 7", "no such table: unicorns",
		} {
			if r.Code != code || !strings.Contains(r.Stdout, want) {
				t.Errorf("%q: exit code %d, want %d and %q in:\n%s%s", command, r.Code, code, want, r.Stdout, r.Stderr)
			}
		}
	}
	// A call does not wait for a worker that never becomes ready.
	if r := h.CLI("call", "process-data", "--data", "x"); r.Code != 1 ||
		!strings.Contains(r.Stderr, "exited with code 7") {
		t.Errorf("a call: exit code %d and %q, want 1 and the reason", r.Code, r.Stderr)
	}
	m.Stop()
	h.WantNothingLeft()
}

func TestRestartOfTheMasterDoesNotRefillTheBudget(t *testing.T) {
	t.Parallel()
	h := crashLoop(harness.NewHost(t), "1ms")
	m := h.Start()
	h.AwaitFailed(1)
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGUSR1, syscall.SIGKILL} {
		m.Signal(end)
		m.Wait()
		m = h.Start()
		w := h.AwaitFailed(1).Worker(t, "worker-0")
		if w.Incarnation != 6 || w.Restarts != 5 || !strings.Contains(w.Reason, "exited with code 7") {
			t.Errorf("after %s the worker is %+v, want it failed with no further start", end, w)
		}
		if got := m.Logged("worker started"); len(got) != 0 {
			t.Errorf("after %s it was started %d times", end, len(got))
		}
	}
	m.Stop()
	if n := strings.Count(readLog(t, h, "worker-0"), "no such table"); n != 6 {
		t.Errorf("the worker ran %d times by its own log, want 6", n)
	}
	h.WantNothingLeft()
}

// A master that crashes repeatedly must not give a looping worker more restarts than a master that lives.
func TestMastersThatKeepDyingShareOneBudget(t *testing.T) {
	t.Parallel()
	h := crashLoop(harness.NewHost(t), "20ms")
	var w harness.Worker
	kills := 0
	for ; w.Status != "failed"; kills++ {
		m := h.Start()
		harness.WaitFor(t, "one more restart, or the end of them", func() error {
			w = h.Dump().Worker(t, "worker-0")
			if w.Status == "failed" || len(m.Logged("worker started")) > 0 {
				return nil
			}
			return fmt.Errorf("%+v", w)
		})
		m.Kill()
		if w.Restarts > 5 {
			t.Fatalf("%d masters later it still has budget: %+v", kills, w)
		}
	}
	// A start that was cut off by the master's own death costs no restart.
	if w.Restarts != 5 || w.Incarnation > 6+kills {
		t.Errorf("after %d masters: %+v, want 5 restarts", kills, w)
	}
	m := h.Start()
	if w := h.AwaitFailed(1).Worker(t, "worker-0"); w.Restarts != 5 {
		t.Errorf("the last master made it %+v", w)
	}
	m.Stop()
	h.WantNothingLeft()
}

func TestWaitForTheNextRestartIsGoneOnWithByTheNextMaster(t *testing.T) {
	t.Parallel()
	h := crashLoop(harness.NewHost(t), "10s") // long enough for the next master to be asked meanwhile, on any machine
	m := h.Start()
	d := h.AwaitWorkers(1, "wait", func(w harness.Worker) bool { return w.Status == "backoff" })
	exited, announced := m.Logged("worker exited")[0], m.Logged("worker backoff")[0]
	m.Kill()

	m = h.Start()
	if w := h.Dump().Worker(t, "worker-0"); w.Status != "backoff" || w.Incarnation != 1 {
		t.Errorf("found %+v, want it as it was: %+v", w, d.Workers[0])
	}
	harness.WaitFor(t, "the second start", func() error {
		if len(m.Logged("worker started")) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if got := elapsed(exited, m.Logged("worker started")[0]); got < announced.RestartIn.Duration {
		t.Errorf("started %s after the exit, and the first master said that it would in %s", got, announced.RestartIn)
	}
	m.Stop()
	h.WantNothingLeft()
}

// The failure belongs to the old command line. The new program has not been tried.
func TestFailedWorkerIsTriedAgainWithAnotherCommandLine(t *testing.T) {
	t.Parallel()
	h := crashLoop(harness.NewHost(t), "1ms")
	m := h.Start()
	h.AwaitFailed(1)
	m.Stop()
	h.Flags = h.Units("plain")
	m = h.Start()
	h.AwaitRunning(1)
	h.Ask("now it works")
	m.Stop()
	h.WantNothingLeft()
}
