//go:build e2e && linux

package world

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// More than one master at a time.

// Five masters start at the same moment on one state, repeatedly: one of them gets it, and the workers stay the
// same all the time.
func TestOfMastersThatStartTogetherOnOneStateExactlyOneServes(t *testing.T) {
	t.Parallel()
	const rounds, racers = 4, 5
	h := harness.NewHost(t, harness.Workers(2)...)
	var want map[string]harness.Instance
	for round := range rounds {
		ports := make([]int, racers)
		field := make([]*harness.Master, racers)
		for i := range field {
			ports[i] = harness.FreePort(t)
		}
		for i := range field {
			h.Port = ports[i] // so that a port in use does not decide
			field[i] = h.Launch(h.Program, nil)
		}
		var winner *harness.Master
		harness.WaitFor(t, "all but one have given up", func() error {
			winner = nil
			left := 0
			for i, m := range field {
				if m.Running() {
					winner, h.Port = m, ports[i]
					left++
				}
			}
			if left > 1 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		})
		if winner == nil {
			t.Fatalf("round %d: none is left", round)
		}
		for _, m := range field {
			if m != winner {
				m.WantExit(4)
				want := fmt.Sprintf("another master (pid %d) holds the state", winner.PID)
				if !strings.Contains(m.Log(), want) {
					t.Errorf("round %d: a loser said %q, want %q", round, m.Log(), want)
				}
			}
		}
		winner.AwaitServing()
		d := h.AwaitRunning(2)
		h.WantNoTwin(d)
		if want == nil {
			want = d.Instances()
		} else if diff := cmp.Diff(want, d.Instances()); diff != "" {
			t.Fatalf("round %d: the workers are not what they were (-before +after):\n%s", round, diff)
		}
		if round == rounds-1 {
			h.Ask("of the last of them")
			winner.Stop()
		} else {
			winner.Kill()
		}
	}
	h.WantNothingLeft()
}

// Two masters with different states want the same port: one gets it; the other reports that, starts no worker and
// harms none.
func TestOfMastersThatStartTogetherOnOnePortTheLoserStartsNoWorker(t *testing.T) {
	t.Parallel()
	const rounds = 4
	one, other := harness.NewHost(t, harness.Workers(2)...), harness.NewHost(t, harness.Workers(2)...)
	other.Port = one.Port
	for round := range rounds {
		first, second := one.Launch(one.Program, nil), other.Launch(other.Program, nil)
		harness.WaitFor(t, "one of them gives up", func() error {
			if first.Running() && second.Running() {
				return fmt.Errorf("both run")
			}
			return nil
		})
		winner, loser := first, second
		if !first.Running() {
			winner, loser = second, first
		}
		loser.WantExit(1)
		if got := loser.Log(); !strings.Contains(got, "port in use") ||
			!strings.Contains(got, "choose another --port") {
			t.Errorf("round %d: the loser said %q", round, got)
		}
		winner.AwaitServing()
		winner.Host.WantNoTwin(winner.Host.AwaitRunning(2))
		winner.Host.Ask("of the one that has the port")
		for id, pids := range loser.Host.Leaders() {
			// Workers that an earlier run of the loser left go on running.
			if len(pids) != 1 {
				t.Errorf("round %d: the loser's %s is %v", round, id, pids)
			}
		}
		winner.Kill()
	}
	for _, h := range []*harness.Host{one, other} {
		m := h.Start()
		h.WantNoTwin(h.AwaitRunning(2))
		m.Stop()
		h.WantNothingLeft()
	}
}

// The state of a running master is copied, and a second master runs on the copy. Neither controls the other's
// workers, even after both were killed.
func TestMasterOnACopiedStateRunsBesideTheOriginal(t *testing.T) {
	t.Parallel()
	original, twin := harness.NewHost(t, harness.Workers(2)...), harness.NewHost(t, harness.Workers(2)...)
	m := original.Start()
	before := original.AwaitRunning(2)
	want := before.Instances()
	// A stopped master writes nothing, so that the copy is consistent.
	m.Signal(syscall.SIGSTOP)
	awaitStopped(t, m.PID)
	copyState(t, original, twin)
	m.Signal(syscall.SIGCONT)

	other := twin.Start()
	theirs := twin.AwaitRunning(2)
	for _, w := range theirs.Workers {
		if was := before.Worker(t, w.ID); w.PID == was.PID || w.Token == was.Token || w.Port == was.Port {
			t.Errorf("the copy took the original's %s: %+v", w.ID, w)
		}
	}
	for round := range 2 {
		m.Kill()
		m = original.Start()
		if diff := cmp.Diff(want, original.AwaitRunning(2).Instances()); diff != "" {
			t.Errorf("round %d: the original's workers are not what they were (-before +after):\n%s", round, diff)
		}
		other.Kill()
		other = twin.Start()
		if diff := cmp.Diff(theirs.Instances(), twin.AwaitRunning(2).Instances()); diff != "" {
			t.Errorf("round %d: the copy's workers are not what they were (-before +after):\n%s", round, diff)
		}
	}
	original.Ask("of the original")
	twin.Ask("of the copy")
	original.WantNoTwin(original.AwaitRunning(2))
	twin.WantNoTwin(twin.AwaitRunning(2))

	// The death of a worker of one master does not affect the other master.
	original.KillWorker(before.Worker(t, "worker-0").PID)
	original.AwaitWorkers(2, "run, one of them anew", func(w harness.Worker) bool {
		return w.Running() && (w.ID == "worker-1" || w.Incarnation == 2)
	})
	other.Stop()
	original.AwaitRunning(2)
	m.Stop()
	original.WantNothingLeft()
	twin.WantNothingLeft()
}

// copyState copies a state directory, except the sockets in it.
func copyState(t *testing.T, from, to *harness.Host) {
	t.Helper()
	if err := os.Mkdir(to.State, 0o700); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(from.State)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			continue // logs, backups and sockets
		}
		content, err := os.ReadFile(filepath.Join(from.State, entry.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to.State, entry.Name()), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// awaitStopped returns when a process that got SIGSTOP has stopped: each thread ends its system call before.
func awaitStopped(t *testing.T, pid int) {
	t.Helper()
	harness.WaitFor(t, fmt.Sprintf("process %d has stopped", pid), func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil || len(tasks) == 0 {
			return fmt.Errorf("it has no threads, %w", err)
		}
		for _, task := range tasks {
			// A thread that has ended meanwhile is an error too, and gone at the next look.
			if f, err := harness.ReadStat(task); err != nil || f.State != 'T' {
				return fmt.Errorf("%s: state %c, %w", task, f.State, err)
			}
		}
		return nil
	})
}

func TestSecondMasterOnTheSameStateIsToldWhoHoldsIt(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	first := h.Start()
	before := h.AwaitRunning(2)
	port := h.Port
	h.Port = harness.FreePort(t)
	second := h.Launch(harness.Programs.Master, nil)
	second.WantExit(4)
	h.Port = port
	want := fmt.Sprintf("another master (pid %d) holds the state in %s", first.PID, h.State)
	if !strings.Contains(second.Log(), want) {
		t.Errorf("it said %q, want %q", second.Log(), want)
	}
	after := h.AwaitRunning(2)
	if diff := cmp.Diff(before.Instances(), after.Instances()); diff != "" || after.MasterPID != first.PID {
		t.Errorf("the first master's workers are not what they were (-before +after):\n%s", diff)
	}
	h.WantNoTwin(after)
	first.Stop()
	h.WantNothingLeft()
}

func TestMasterWhosePortIsInUseTouchesNoWorker(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	m.Kill()
	other := harness.NewHost(t)
	other.Port = h.Port
	theirs := other.Start()

	m = h.Launch(harness.Programs.Master, nil)
	m.WantExit(1)
	for _, want := range []string{"port in use", fmt.Sprint(h.Port), "choose another --port"} {
		if !strings.Contains(m.Log(), want) {
			t.Errorf("it said %q, want %q in it", m.Log(), want)
		}
	}
	for _, w := range before.Workers {
		harness.WorkerStatus(t, w.Port)
	}
	theirs.Stop()
	m = h.Start()
	after := h.AwaitRunning(2)
	after.WantInstances(t, before.Instances())
	m.Stop()
	h.WantNothingLeft()
}

func TestTwoMastersDoNotShareARuntimeFolder(t *testing.T) {
	t.Parallel()
	h, other := harness.NewHost(t, harness.Workers(1)...), harness.NewHost(t)
	m := h.Start()
	h.AwaitRunning(1)
	second := other.Launch(harness.Programs.Master, nil, "--runtime-dir", filepath.Join(h.State, "run"))
	second.WantExit(1)
	if got := second.Log(); !strings.Contains(got, "is served by another master: choose another --runtime-dir") {
		t.Errorf("it said %q", got)
	}
	h.AwaitRunning(1)
	m.Stop()
}
