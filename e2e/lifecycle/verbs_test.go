//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// act runs a command, which must succeed and print the text.
func act(h *harness.Host, text string, args ...string) {
	h.T.Helper()
	if r := h.CLI(args...); r.Code != 0 || r.Stdout != text {
		h.T.Errorf("%s: %+v, want %q", strings.Join(args, " "), r, text)
	}
}

// refused runs a command, which must exit with the code and say the words on stderr.
func refused(h *harness.Host, code int, words string, args ...string) {
	h.T.Helper()
	if r := h.CLI(args...); r.Code != code || !strings.Contains(r.Stderr, words) {
		h.T.Errorf("%s: %+v, want exit code %d and %q", strings.Join(args, " "), r, code, words)
	}
}

// awaitStopped waits until the worker is stopped, by an operator.
func awaitStopped(h *harness.Host, id string) {
	h.T.Helper()
	harness.WaitFor(h.T, id+" is stopped", func() error {
		w := h.Dump().Worker(h.T, id)
		if w.Status != "stopped" || w.Desired != "stopped" || w.PID != 0 || w.StoppedBy == nil {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
}

// wantOthers checks that the workers besides id are the processes that they were.
func wantOthers(h *harness.Host, id string, before map[string]harness.Instance) {
	h.T.Helper()
	now := h.Dump().Instances()
	delete(now, id)
	if !maps.Equal(now, before) {
		h.T.Errorf("the other workers are %v, want %v", now, before)
	}
}

// A worker that an operator has stopped stays stopped over a crash and an orderly stop of the master, until the
// operator starts it. The others are not touched, and the status counts only these.
func TestStopOutlivesTheMasterUntilStart(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	act(h, "worker-1: stopped\n", "worker", "stop", "worker-1")
	delete(want, "worker-1")
	if r := h.CLI("status"); r.Code != 0 || !strings.Contains(r.Stdout, "stopped by user") {
		t.Errorf("status: %+v", r)
	}
	m.Kill()
	m = h.Start()
	awaitStopped(h, "worker-1")
	wantOthers(h, "worker-1", want)
	m.Stop()
	m = h.Start()
	harness.WaitFor(t, "worker-0 runs again", func() error {
		if w := h.Dump().Worker(t, "worker-0"); !w.Running() {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	awaitStopped(h, "worker-1")
	act(h, "worker-1: stopped\n", "worker", "stop", "worker-1") // again: nothing is left to do
	act(h, "worker-1: running\n", "worker", "start", "worker-1")
	h.AwaitRunning(2)
	act(h, "worker-1: running\n", "worker", "start", "worker-1")
	m.Stop()
	h.WantNothingLeft()
}

func TestVerbsRefuseBadInput(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(1)...)
	refused(h, 3, "no master is running", "worker", "stop", "worker-0")
	m := h.Start()
	h.AwaitRunning(1)
	refused(h, 1, `no such worker or unit: "wroker-0" (did you mean "worker-0"?)`, "worker", "stop", "wroker-0")
	refused(h, 1, `no such worker or unit: "wrker" (did you mean "worker"?)`, "unit", "disable", "wrker")
	refused(h, 2, "a name is missing", "worker", "start")
	refused(h, 2, "--all stands in place of names", "worker", "stop", "--all", "worker-0")
	refused(h, 2, "no SIGNAL is given", "worker", "signal")
	refused(h, 2, `no such signal: "HUB" (did you mean "HUP"?)`, "worker", "signal", "HUB", "worker-0")
	refused(h, 2, "signal 65: must be 1 to 64", "worker", "signal", "65", "worker-0")
	refused(h, 2, "--timeout 0s", "worker", "start", "--timeout", "0s", "worker-0")
	refused(h, 2, "did you mean", "worker", "stopp", "worker-0")
	h.AwaitRunning(1)
	m.Stop()
}

// A signal goes to the process of the worker, and one that ends it is followed by a restart.
func TestSignalGoesToTheProcess(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	before := h.AwaitRunning(1).Worker(t, "worker-0")
	act(h, "worker-0: got SIGSTOP\n", "worker", "signal", "STOP", "worker")
	harness.WaitFor(t, "worker-0 is suspended", func() error {
		w := h.Dump().Worker(t, "worker-0")
		if w.PID != before.PID || !strings.Contains(w.Reason, "suspended") && !strings.Contains(w.Reason, "stopped") {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	act(h, "worker-0: got SIGCONT\n", "worker", "signal", fmt.Sprint(int(syscall.SIGCONT)), "worker-0")
	if w := h.AwaitRunning(1).Worker(t, "worker-0"); w.PID != before.PID {
		t.Errorf("%+v, want process %d", w, before.PID)
	}
	act(h, "worker-0: got SIGKILL\n", "worker", "signal", "SIGKILL", "--all")
	harness.WaitFor(t, "worker-0 is restarted", func() error {
		w := h.Dump().Worker(t, "worker-0")
		if !w.Running() || w.PID == before.PID || w.Restarts != before.Restarts+1 {
			return fmt.Errorf("%+v", w)
		}
		return nil
	})
	m.Stop()
	h.WantNothingLeft()
}

// A restart of the unit gives each wanted worker a new process, and leaves the stopped one alone.
func TestRestartReplacesTheRunningWorkers(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(3)...)
	m := h.Start()
	before := h.AwaitRunning(3)
	act(h, "worker-2: stopped\n", "worker", "stop", "worker-2")
	act(h, "no worker is outdated\n", "worker", "restart", "--outdated")
	act(h, `{"name":"","phase":"done","reason":"no worker is outdated"}`+"\n",
		"worker", "restart", "--outdated", "worker-0", "--json")
	act(h, "worker-0: restarted\nworker-1: restarted\n", "worker", "restart", "worker")
	for _, id := range []string{"worker-0", "worker-1"} {
		was, is := before.Worker(t, id), h.Dump().Worker(t, id)
		if !is.Running() || is.PID == was.PID || is.Incarnation != was.Incarnation+1 || is.Restarts != was.Restarts {
			t.Errorf("%+v, before %+v", is, was)
		}
	}
	awaitStopped(h, "worker-2")
	refused(h, 1, `worker-2 is stopped: start it with "worker start"`, "worker", "restart", "worker-2")
	m.Stop()
	h.WantNothingLeft()
}

// Without a file, a reload marks the workers whose program has changed, of which a dry run tells only. A restart of the
// outdated ones replaces them.
func TestReloadWithoutAFileMarksOutdatedWorkers(t *testing.T) {
	h := harness.NewHost(t)
	program := filepath.Join(h.Dir, "program")
	harness.Install(t, program, harness.Programs.Worker, "")
	h.Flags = harness.WorkersOf(program, 2)
	m := h.Start()
	want := h.AwaitRunning(2).Instances()
	outdated := func(want bool, reloads int) {
		t.Helper()
		for _, w := range h.Dump().Workers {
			if w.Outdated != want {
				t.Errorf("%s is outdated: %t, want %t", w.ID, w.Outdated, want)
			}
		}
		if r := h.CLI("events", "--type", "reload"); strings.Count(r.Stdout, "\n") != reloads {
			t.Errorf("events of reloads: %+v, want %d", r, reloads)
		}
	}
	const text = "worker: mark as outdated 2 workers: executable\n"
	act(h, "nothing has changed\n", "reload", "--dry-run")
	harness.Install(t, program, harness.Programs.Worker, "more")
	act(h, text, "reload", "--dry-run")
	outdated(false, 0)
	act(h, text, "reload")
	outdated(true, 1)
	h.AwaitRunning(2).WantInstances(t, want)
	act(h, "worker-0: restarted\nworker-1: restarted\n", "worker", "restart", "--outdated")
	outdated(false, 1)
	m.Stop()
	h.WantNothingLeft()
}

// A unit that an operator has disabled has no workers until it is enabled, whatever masters run.
func TestDisableOutlivesTheMasterUntilEnable(t *testing.T) {
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	h.AwaitRunning(2)
	act(h, "worker: disabled: worker-0, worker-1\n", "unit", "disable", "worker", "worker")
	h.AwaitRunning(0)
	m.Kill()
	h.Flags = harness.Workers(3)
	m = h.Start()
	h.AwaitRunning(0)
	if r := h.CLI("unit", "list"); r.Code != 0 || !strings.Contains(r.Stdout, "worker  integrated  no       0 of 3") {
		t.Errorf("unit list: %+v", r)
	}
	if r := h.CLI("status"); r.Code != 0 {
		t.Errorf("status: %+v", r)
	}
	refused(h, 1, "disabled by an operator", "worker", "scale", "worker=1")
	refused(h, 1, "unit worker, which offers it, is disabled", "call", "process-data", "--data", "x")
	act(h, "worker: enabled: worker-0, worker-1, worker-2\n", "unit", "enable", "worker")
	h.AwaitRunning(3)
	m.Stop()
	h.WantNothingLeft()
}

// A verb that is cut off by a crash is done or undone, and the other worker is not touched.
func TestVerbsCutOffByACrashAreCompletedOrUndone(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		for _, moment := range harness.Moments(1, crashpoint.StopRecord, crashpoint.Signal, crashpoint.ExitRecord) {
			h := harness.NewHost(t, harness.Workers(2)...)
			h.Start().Kill()
			m := h.Launch(h.Program, []string{"HSU_CRASH_POINT=" + moment})
			m.AwaitServing()
			before := h.AwaitRunning(2).Instances()
			h.CLI("worker", "stop", "worker-1")
			m.WantExit(-1)
			m = h.Start()
			if strings.HasPrefix(moment, crashpoint.StopRecord.Before()) {
				h.AwaitRunning(2).WantInstances(t, before)
			} else {
				awaitStopped(h, "worker-1")
				delete(before, "worker-1")
				wantOthers(h, "worker-1", before)
			}
			m.Stop()
			h.WantNothingLeft()
		}
	})
	t.Run("disable", func(t *testing.T) {
		for _, moment := range harness.Moments(1, crashpoint.UnitRecord) {
			h := harness.NewHost(t, harness.Workers(1)...)
			h.Start().Kill()
			m := h.Launch(h.Program, []string{"HSU_CRASH_POINT=" + moment})
			m.AwaitServing()
			h.AwaitRunning(1)
			h.CLI("unit", "disable", "worker")
			m.WantExit(-1)
			m = h.Start()
			want := 0
			if strings.HasPrefix(moment, crashpoint.UnitRecord.Before()) {
				want = 1
			}
			h.AwaitRunning(want)
			m.Stop()
			h.WantNothingLeft()
		}
	})
}
