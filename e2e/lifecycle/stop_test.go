//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// awaitDescendants returns when n descendants of workers have recorded that they run.
func awaitDescendants(h *harness.Host, n int) {
	h.T.Helper()
	harness.WaitFor(h.T, fmt.Sprintf("%d descendants run", n), func() error {
		if got, _ := filepath.Glob(filepath.Join(h.Record, "*.[0-9]*[0-9]")); len(got) < n {
			return fmt.Errorf("%d do: %v", len(got), got)
		}
		return nil
	})
}

func TestStopLeavesNoProcessWhateverTheWorkersAreLike(t *testing.T) {
	habits := []string{
		"plain",
		"stubborn",                   // ignores SIGTERM
		"stops-on-term",              // answers SIGTERM by stopping itself
		"leaderless",                 // its first thread has ended
		"titled",                     // shows no environment any more
		"plain+child+stopped+bare",   // children that outlive it
		"plain+daemon",               // a descendant in a session of its own, with no living parent
		"plain+baredaemon",           // the same, and without an environment: only the lease identifies it
		"plain+nolease",              // the same, without the lease: only the environment identifies it
		"stubborn+daemon+baredaemon", // all of these at once
		"titled+baredaemon+nolease",
	}
	const descendants = 3 + 1 + 1 + 1 + 2 + 2
	t.Run("by the master that started them", func(t *testing.T) {
		t.Parallel()
		h := harness.NewHost(t)
		h.Flags = harness.ShortGrace(h.Units(habits...))
		m := h.Start()
		h.AwaitRunning(len(habits))
		awaitDescendants(h, descendants)
		// The processes that the daemons descend from exit after the daemons have run.
		harness.WaitFor(t, "the test sees all processes, else it sees none that are left either", func() error {
			if got, want := len(h.Processes()), len(habits)+descendants; got != want {
				return fmt.Errorf("it sees %d, want %d", got, want)
			}
			return nil
		})
		m.Stop()
		h.WantNothingLeft()
	})
	t.Run("by one that adopted them", func(t *testing.T) {
		t.Parallel()
		h := harness.NewHost(t)
		h.Flags = harness.ShortGrace(h.Units(habits...))
		m := h.Start()
		before := h.AwaitRunning(len(habits)).Instances()
		awaitDescendants(h, descendants)
		m.Kill()
		m = h.Start()
		h.AwaitRunning(len(habits)).WantInstances(t, before)
		m.Stop()
		h.WantNothingLeft()
	})
}

func TestStopEndsWorkersThatAreSuspended(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	// Enough time for the plain one, on any machine, to wake up and exit.
	h.Flags = append(h.Units("plain", "stubborn"), "--stop-grace", "12s")
	m := h.Start()
	d := h.AwaitRunning(2)
	for _, w := range d.Workers {
		h.SignalWorker(w.PID, syscall.SIGSTOP)
	}
	m.Stop()
	if log := m.Log(); strings.Count(log, "worker stop timed out") != 1 {
		t.Errorf("want the plain one to go on and end, and the stubborn one to be killed:\n%s", log)
	}
	h.WantNothingLeft()
}

// A process whose PID changes all the time must not escape.
func TestStopEndsAChainOfProcessesThatForkFasterThanAnyoneLooks(t *testing.T) {
	h := harness.NewHost(t)
	h.Flags = harness.ShortGrace(h.Units("plain+chain"))
	m := h.Start()
	h.AwaitRunning(1)
	awaitDescendants(h, 1)
	m.Stop()
	h.WantNothingLeft()
}

func TestStopEndsWorkersThatAreNotReadyYet(t *testing.T) {
	t.Parallel()
	for _, habit := range []string{"deaf", "mute"} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			h.Flags = harness.ShortGrace(h.Units(habit))
			m := h.Start()
			h.AwaitWorkers(1, "start", func(w harness.Worker) bool { return w.Status == "starting" && w.PID > 0 })
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// A stop does not change the desired state.
func TestStoppedMasterStartsItsWorkersAnew(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	before := h.AwaitRunning(2)
	h.Ask("one")
	m.Stop()
	offline := h.Dump()
	if offline.Source != "offline" || offline.MasterPID != 0 || offline.ProcessedCount != 1 {
		t.Errorf("the dump of a stopped master = %+v", offline)
	}
	for _, w := range offline.Workers {
		if w.Status != "stopped" || w.Desired != "running" || w.PID != 0 {
			t.Errorf("%s = %+v, want it stopped and still wanted", w.ID, w)
		}
		if w.LastExit == nil || w.LastExit.Code == nil || *w.LastExit.Code != 0 || !w.LastExit.Known {
			t.Errorf("%s's last exit = %+v, want code 0", w.ID, w.LastExit)
		}
	}
	m = h.Start()
	after := h.AwaitRunning(2)
	for _, w := range after.Workers {
		was := before.Worker(t, w.ID)
		if w.Incarnation != 2 || w.Restarts != 0 || w.PID == was.PID {
			t.Errorf("%s = %+v, want a second incarnation that cost no restart", w.ID, w)
		}
	}
	if after.ProcessedCount != 1 || after.MasterID != before.MasterID {
		t.Errorf("count and master id = %d, %s, want 1 and %s", after.ProcessedCount, after.MasterID, before.MasterID)
	}
	m.Stop()
	h.WantNothingLeft()
}

func TestStopLetsRequestsUnderWayEnd(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(2)...)
	m := h.Start()
	h.AwaitRunning(2)
	load := h.StartLoad(32)
	load.AwaitMore(300)
	m.Signal(syscall.SIGTERM)
	m.WantExit(0)
	acked := load.Acked.Load()
	m = h.Start() // for the callers that wait for a master
	load.Stop()
	// Every answered request is counted, and none was cut off between the two.
	got, sent := h.Dump().ProcessedCount, load.Sent.Load()
	if got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.Stop()
	h.WantNothingLeft()
}

// detach detaches the master and checks that the next one adopts its workers.
func detach(t *testing.T, h *harness.Host, m *harness.Master, signal syscall.Signal) {
	t.Helper()
	before := h.AwaitRunning(3)
	want := before.Instances()
	m.Signal(signal)
	m.WantExit(0)
	if got := h.Leaders(); len(got) != 3 {
		t.Errorf("the workers that go on are %v, want all three", got)
	}
	for _, w := range before.Workers {
		harness.WorkerStatus(t, w.Port) // it answers
	}
	m = h.Start()
	after := h.AwaitRunning(3)
	after.WantInstances(t, want)
	if i := slices.IndexFunc(after.Workers, func(w harness.Worker) bool { return !w.Adopted }); i >= 0 {
		t.Errorf("%+v was not adopted", after.Workers[i])
	}
	h.WantNoTwin(after)
	h.Ask("after the detachment")
	m.Signal(syscall.SIGINT)
	m.WantExit(0)
}

func TestUSR1LeavesTheWorkersForTheNextMaster(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	detach(t, h, h.Start(), syscall.SIGUSR1)
	h.WantNothingLeft()
}

func TestOnExitDetachLeavesTheWorkersAtSIGTERM(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(3)...)
	detach(t, h, h.Start("--on-exit", "detach"), syscall.SIGTERM)
	h.WantNothingLeft()
}

func TestSecondINTGivesNoGrace(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = append(h.Units("stubborn", "stubborn"), "--stop-grace", "10m")
	m := h.Start()
	h.AwaitRunning(2)
	m.Signal(syscall.SIGINT)
	harness.WaitFor(t, "the stop begins", func() error {
		if got := len(m.Logged("worker stopping")); got < 2 {
			return fmt.Errorf("%d workers are being stopped", got)
		}
		return nil
	})
	if !m.Running() {
		t.Errorf("the first INT gave no grace either")
	}
	m.Signal(syscall.SIGINT)
	m.WantExit(0) // some minutes earlier than the grace
	h.WantNothingLeft()
}

// By default these signals would end it like a crash.
func TestHangupAndUSR2DoNotEndTheMaster(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	h.AwaitRunning(1)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGPIPE} {
		m.Signal(s)
		h.Ask("after " + s.String())
	}
	if !m.Running() {
		t.Fatalf("the master ended\n%s", m.Log())
	}
	m.Stop()
	h.WantNothingLeft()
}
