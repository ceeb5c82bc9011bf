//go:build e2e && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// record is a line of the master's log.
type record struct {
	Message   string    `json:"msg"`
	Worker    string    `json:"worker"`
	Reason    string    `json:"reason"`
	RestartIn duration  `json:"restart_in"`
	Time      time.Time `json:"time"`
}

// duration is a duration in the format of the JSON log, "1.5s".
type duration struct{ time.Duration }

func (d *duration) UnmarshalText(text []byte) (err error) {
	d.Duration, err = time.ParseDuration(string(text))
	return err
}

// said returns the lines of a master's log with the message.
func (m *master) said(message string) (records []record) {
	m.h.t.Helper()
	for line := range strings.Lines(m.log()) {
		if !strings.HasSuffix(line, "\n") {
			break // the kernel shows a line in two parts if it crosses a page
		}
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			m.h.t.Errorf("not a line of log: %q: %v", line, err)
		} else if r.Message == message {
			records = append(records, r)
		}
	}
	return records
}

// elapsed returns the time from one line of the log to another one.
func elapsed(first, second record) time.Duration {
	d := second.Time.Sub(first.Time)
	return d - d.Round(365*24*time.Hour) // scripts/clock shifts the times in the log by whole years
}

func (h *host) awaitFailed(n int) dump {
	h.t.Helper()
	return h.awaitWorkers(n, "have failed", func(_ dump, w worker) bool { return w.Status == "failed" })
}

// crashLoop makes the host's only worker exit at once, with a budget of 5 restarts.
func (h *host) crashLoop(backoff string) *host {
	h.flags = append(h.units("exits"), "--restart-backoff", backoff, "--restart-budget", "5/5m")
	return h
}

func TestWorkerThatExitsAtOnceIsStartedEverMoreSlowlyAndThenFailsForGood(t *testing.T) {
	t.Parallel()
	h := newHost(t).crashLoop("10ms")
	m := h.start()
	w := h.awaitFailed(1).worker(t, "worker-0")
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
	exits, backoffs, starts := m.said("worker exited"), m.said("worker backoff"), m.said("worker started")
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
		r := h.cli(command...)
		for _, want := range []string{
			"worker-0", "failed", "restart budget 5/5m used up", "exited with code 7", "no such table: unicorns",
		} {
			if r.code != code || !strings.Contains(r.stdout, want) {
				t.Errorf("%q: exit code %d, want %d and %q in:\n%s%s", command, r.code, code, want, r.stdout, r.stderr)
			}
		}
	}
	// A call does not wait for a worker that never becomes ready.
	if r := h.cli("call", "process-data", "--data", "x"); r.code != 1 ||
		!strings.Contains(r.stderr, "exited with code 7") {
		t.Errorf("a call: exit code %d and %q, want 1 and the reason", r.code, r.stderr)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestRestartOfTheMasterDoesNotRefillTheBudget(t *testing.T) {
	t.Parallel()
	h := newHost(t).crashLoop("1ms")
	m := h.start()
	h.awaitFailed(1)
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL, syscall.SIGUSR1, syscall.SIGKILL} {
		m.signal(end)
		m.wait()
		m = h.start()
		w := h.awaitFailed(1).worker(t, "worker-0")
		if w.Incarnation != 6 || w.Restarts != 5 || !strings.Contains(w.Reason, "exited with code 7") {
			t.Errorf("after %s the worker is %+v, want it failed with no further start", end, w)
		}
		if got := m.said("worker started"); len(got) != 0 {
			t.Errorf("after %s it was started %d times", end, len(got))
		}
	}
	m.stop()
	if n := strings.Count(readLog(t, h, "worker-0"), "no such table"); n != 6 {
		t.Errorf("the worker ran %d times by its own log, want 6", n)
	}
	h.wantNothingLeft()
}

// A master that crashes repeatedly must not give a looping worker more restarts than a master that lives.
func TestMastersThatKeepDyingShareOneBudget(t *testing.T) {
	t.Parallel()
	h := newHost(t).crashLoop("20ms")
	var w worker
	kills := 0
	for ; w.Status != "failed"; kills++ {
		m := h.start()
		waitFor(t, "one more restart, or the end of them", func() error {
			w = h.dump().worker(t, "worker-0")
			if w.Status == "failed" || len(m.said("worker started")) > 0 {
				return nil
			}
			return fmt.Errorf("%+v", w)
		})
		m.kill()
		if w.Restarts > 5 {
			t.Fatalf("%d masters later it still has budget: %+v", kills, w)
		}
	}
	// A start that was cut off by the master's own death costs no restart.
	if w.Restarts != 5 || w.Incarnation > 6+kills {
		t.Errorf("after %d masters: %+v, want 5 restarts", kills, w)
	}
	m := h.start()
	if w := h.awaitFailed(1).worker(t, "worker-0"); w.Restarts != 5 {
		t.Errorf("the last master made it %+v", w)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestWaitForTheNextRestartIsGoneOnWithByTheNextMaster(t *testing.T) {
	t.Parallel()
	h := newHost(t).crashLoop("10s") // long enough for the next master to be asked meanwhile, on any machine
	m := h.start()
	d := h.awaitWorkers(1, "wait", func(_ dump, w worker) bool { return w.Status == "backoff" })
	exited, announced := m.said("worker exited")[0], m.said("worker backoff")[0]
	m.kill()

	m = h.start()
	if w := h.dump().worker(t, "worker-0"); w.Status != "backoff" || w.Incarnation != 1 {
		t.Errorf("found %+v, want it as it was: %+v", w, d.Workers[0])
	}
	waitFor(t, "the second start", func() error {
		if len(m.said("worker started")) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if got := elapsed(exited, m.said("worker started")[0]); got < announced.RestartIn.Duration {
		t.Errorf("started %s after the exit, and the first master said that it would in %s", got, announced.RestartIn)
	}
	m.stop()
	h.wantNothingLeft()
}

// The failure belongs to the old command line. The new program has not been tried.
func TestFailedWorkerIsTriedAgainWithAnotherCommandLine(t *testing.T) {
	t.Parallel()
	h := newHost(t).crashLoop("1ms")
	m := h.start()
	h.awaitFailed(1)
	m.stop()
	h.flags = h.units("plain")
	m = h.start()
	h.awaitRunning(1)
	h.ask("now it works")
	m.stop()
	h.wantNothingLeft()
}
