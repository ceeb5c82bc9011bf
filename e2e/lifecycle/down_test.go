//go:build e2e && linux

package lifecycle

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

func wantCode(t *testing.T, r harness.Result, code int, said string) {
	t.Helper()
	if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, said) {
		t.Errorf("exit code %d, want %d and %q:\n%s%s", r.Code, code, said, r.Stdout, r.Stderr)
	}
}

// wantOperator checks that the history names this user and the command.
func wantOperator(t *testing.T, h *harness.Host, event, command string) {
	t.Helper()
	snap, err := store.ReadSnapshot(h.State)
	if err != nil {
		t.Fatal(err)
	}
	if !snap.Meta.CleanShutdown {
		t.Error("the end is not recorded as an orderly one")
	}
	var found []records.Event
	for _, e := range snap.Events {
		if e.Type == event {
			found = append(found, e)
		}
	}
	if len(found) != 1 || found[0].Operator == nil || int(found[0].Operator.UID) != os.Getuid() ||
		!strings.HasPrefix(found[0].Operator.Command, command) {
		t.Errorf("events of type %s: %+v, want one of user %d and %q", event, found, os.Getuid(), command)
	}
}

func TestDetachLeavesTheWorkersAndDownStopsThem(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2).Instances()
	wantCode(t, h.CLI("detach"), 0, "2 workers left running")
	if m.Running() {
		m.WantExit(0) // the process that has ended is only to be reaped
	}
	wantOperator(t, h, "detach", "detach")
	wantCode(t, h.CLI("detach"), 3, "no master is running")

	m = h.Start()
	h.AwaitRunning(2).WantInstances(t, before)
	r := h.CLI("down", "--json")
	var got struct {
		PID             int `json:"master_pid"`
		Detached, Ended bool
		Workers         []string
	}
	if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || r.Code != 0 {
		t.Fatalf("%v: %+v", err, r)
	}
	if got.PID != m.PID || got.Detached || !got.Ended || len(got.Workers) != 2 {
		t.Errorf("down prints %+v of master %d", got, m.PID)
	}
	h.WantNothingLeft()
	m.WantExit(0)
	wantOperator(t, h, "down", "down --json")
	wantCode(t, h.CLI("down"), 3, "worker list")
}

// A worker that ignores SIGTERM is killed after its grace. Meanwhile a command can give up, and another one can wait.
func TestDownOfAWorkerThatDoesNotStop(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = append(h.Units("stubborn"), "--stop-grace", "3s")
	m := h.Start()
	h.AwaitRunning(1)
	wantCode(t, h.CLI("down", "--timeout", "1s"), 1, "it waits for worker-0")
	wantCode(t, h.CLI("detach"), 1, "stops its workers")
	wantCode(t, h.CLI("down"), 0, "1 worker stopped")
	m.WantExit(0)
	h.WantNothingLeft()
	wantOperator(t, h, "down", "down --timeout 1s")
}

func TestDownDoesNotNeedToWait(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	wantCode(t, h.CLI("down", "--no-wait"), 0, "1 worker being stopped")
	m.WantExit(0)
	h.WantNothingLeft()
}

// The worker is suspended, so that the recovery waits for it.
func TestDownOfAMasterThatIsRecovering(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = harness.ShortGrace(h.Units("plain"))
	m := h.Start()
	worker := h.AwaitRunning(1).Workers[0].PID
	m.Kill()
	h.SignalWorker(worker, syscall.SIGSTOP)
	m = h.Launch(h.Program, nil)
	harness.WaitFor(t, "the master answers", func() error {
		if d, err := h.TryDump(); err != nil || d.Source != "live" {
			return fmt.Errorf("the state is %q, %w", d.Source, err)
		}
		return nil
	})
	wantCode(t, h.CLI("down"), 0, "stopped")
	m.WantExit(0)
	h.WantNothingLeft()
}

// The next master completes a change that a crash has interrupted.
func TestCrashOfAMasterThatEnds(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	for _, moment := range harness.Moments(1, crashpoint.StopRecord, crashpoint.Signal, crashpoint.ExitRecord) {
		m := h.Launch(h.Program, []string{"HSU_CRASH_POINT=" + moment})
		m.AwaitServing()
		h.AwaitRunning(2)
		wantCode(t, h.CLI("down"), 1, "the master crashed before it was done")
		m.WantExit(-1)
		m = h.Start()
		h.AwaitRunning(2)
		m.Stop()
	}
	m := h.Launch(h.Program, []string{"HSU_CRASH_POINT=" + string(crashpoint.Detach.Before()) + ":1"})
	m.AwaitServing()
	before := h.AwaitRunning(2).Instances()
	wantCode(t, h.CLI("detach"), 1, "the master crashed before it was done")
	m.WantExit(-1)
	m = h.Start()
	h.AwaitRunning(2).WantInstances(t, before)
	m.Stop()
	h.WantNothingLeft()
}

// A copy of a state directory names the admin socket of the original's master, which must not end.
func TestDownIsNotForTheMasterOfACopiedDirectory(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	h.AwaitRunning(1)
	state := h.State
	h.State = filepath.Join(h.Dir, "copy")
	if out, err := exec.Command("cp", "-a", state, h.State).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wantCode(t, h.CLI("down"), 3, "belongs to another master")
	h.State = state
	if !m.Running() {
		t.Error("the master has ended")
	}
	m.Stop()
	h.WantNothingLeft()
}
