//go:build e2e && linux

package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// grace is short, because some of these workers use all of it.
const grace = 500 * time.Millisecond

func graceful(flags []string) []string {
	return append(flags, "--stop-grace", grace.String())
}

// awaitDescendants returns when n descendants of workers have recorded that they run.
func (h *host) awaitDescendants(n int) {
	h.t.Helper()
	waitFor(h.t, fmt.Sprintf("%d descendants run", n), func() error {
		if got, _ := filepath.Glob(filepath.Join(h.record, "*.[0-9]*[0-9]")); len(got) < n {
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
		h := newHost(t)
		h.flags = graceful(h.units(habits...))
		m := h.start()
		h.awaitRunning(len(habits))
		h.awaitDescendants(descendants)
		// The processes that the daemons descend from exit after the daemons have run.
		waitFor(t, "the test sees all processes, else it sees none that are left either", func() error {
			if got, want := len(h.processes()), len(habits)+descendants; got != want {
				return fmt.Errorf("it sees %d, want %d", got, want)
			}
			return nil
		})
		m.stop()
		h.wantNothingLeft()
	})
	t.Run("by one that adopted them", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		h.flags = graceful(h.units(habits...))
		m := h.start()
		before := h.awaitRunning(len(habits)).instances(t)
		h.awaitDescendants(descendants)
		m.kill()
		m = h.start()
		if diff := cmp.Diff(before, h.awaitRunning(len(habits)).instances(t)); diff != "" {
			t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
		}
		m.stop()
		h.wantNothingLeft()
	})
}

func TestStopEndsWorkersThatAreSuspended(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	// Enough time for the plain one, on any machine, to wake up and exit.
	h.flags = append(h.units("plain", "stubborn"), "--stop-grace", "12s")
	m := h.start()
	d := h.awaitRunning(2)
	for _, w := range d.Workers {
		h.signalWorker(w.PID, syscall.SIGSTOP)
	}
	m.stop()
	if log := m.log(); strings.Count(log, "did not stop within its grace") != 1 {
		t.Errorf("want the plain one to go on and end, and the stubborn one to be killed:\n%s", log)
	}
	h.wantNothingLeft()
}

// A process whose PID changes all the time must not escape.
func TestStopEndsAChainOfProcessesThatForkFasterThanAnyoneLooks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = graceful(h.units("plain+chain"))
	m := h.start()
	h.awaitRunning(1)
	h.awaitDescendants(1)
	m.stop()
	h.wantNothingLeft()
}

func TestStopEndsWorkersThatAreNotReadyYet(t *testing.T) {
	t.Parallel()
	for _, habit := range []string{"deaf", "mute"} {
		t.Run(habit, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.flags = graceful(h.units(habit))
			m := h.start()
			h.awaitWorkers(1, "start", func(_ dump, w worker) bool { return w.Status == "starting" && w.PID > 0 })
			m.stop()
			h.wantNothingLeft()
		})
	}
}

// A stop does not change the desired state.
func TestStoppedMasterStartsItsWorkersAnew(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	before := h.awaitRunning(2)
	h.ask("one")
	m.stop()
	offline := h.dump()
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
	m = h.start()
	after := h.awaitRunning(2)
	for _, w := range after.Workers {
		was := before.worker(t, w.ID)
		if w.Incarnation != 2 || w.Restarts != 0 || w.PID == was.PID {
			t.Errorf("%s = %+v, want a second incarnation that cost no restart", w.ID, w)
		}
	}
	if after.ProcessedCount != 1 || after.MasterID != before.MasterID {
		t.Errorf("count and master id = %d, %s, want 1 and %s", after.ProcessedCount, after.MasterID, before.MasterID)
	}
	m.stop()
	h.wantNothingLeft()
}

func TestStopLetsRequestsUnderWayEnd(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(2)...)
	m := h.start()
	h.awaitRunning(2)
	load := h.startLoad(32)
	load.awaitMore(300)
	m.signal(syscall.SIGTERM)
	m.wantExit(0)
	acked := load.acked.Load()
	m = h.start() // for the callers that wait for a master
	load.stop()
	// Every answered request is counted, and none was cut off between the two.
	got, sent := h.dump().ProcessedCount, load.sent.Load()
	if got < acked || got > sent {
		t.Errorf("processed_count = %d, want it between %d acknowledged and %d sent", got, acked, sent)
	}
	m.stop()
	h.wantNothingLeft()
}

// detach detaches the master and checks that the next one adopts its workers.
func detach(t *testing.T, h *host, m *master, signal syscall.Signal) {
	t.Helper()
	before := h.awaitRunning(3)
	want := before.instances(t)
	m.signal(signal)
	m.wantExit(0)
	if got := h.leaders(); len(got) != 3 {
		t.Errorf("the workers that go on are %v, want all three", got)
	}
	for _, w := range before.Workers {
		own(t, w.Port) // it answers
	}
	m = h.start()
	after := h.awaitRunning(3)
	if diff := cmp.Diff(want, after.instances(t)); diff != "" {
		t.Errorf("the workers are not what they were (-before +after):\n%s", diff)
	}
	if i := slices.IndexFunc(after.Workers, func(w worker) bool { return !w.Adopted }); i >= 0 {
		t.Errorf("%+v was not adopted", after.Workers[i])
	}
	h.wantNoTwin(after)
	h.ask("after the detachment")
	m.signal(syscall.SIGINT)
	m.wantExit(0)
}

func TestUSR1LeavesTheWorkersForTheNextMaster(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	detach(t, h, h.start(), syscall.SIGUSR1)
	h.wantNothingLeft()
}

func TestOnExitDetachLeavesTheWorkersAtSIGTERM(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(3)...)
	detach(t, h, h.start("--on-exit", "detach"), syscall.SIGTERM)
	h.wantNothingLeft()
}

func TestSecondINTGivesNoGrace(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = append(h.units("stubborn", "stubborn"), "--stop-grace", "10m")
	m := h.start()
	h.awaitRunning(2)
	m.signal(syscall.SIGINT)
	waitFor(t, "the stop begins", func() error {
		if got := len(m.said("worker stopping")); got < 2 {
			return fmt.Errorf("%d workers are being stopped", got)
		}
		return nil
	})
	if !m.running() {
		t.Errorf("the first INT gave no grace either")
	}
	m.signal(syscall.SIGINT)
	m.wantExit(0) // some minutes earlier than the grace
	h.wantNothingLeft()
}

// By default these signals would end it like a crash.
func TestHangupAndUSR2DoNotEndTheMaster(t *testing.T) {
	t.Parallel()
	h := newHost(t, workers(1)...)
	m := h.start()
	h.awaitRunning(1)
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR2, syscall.SIGPIPE} {
		m.signal(s)
		h.ask("after " + s.String())
	}
	if !m.running() {
		t.Fatalf("the master ended\n%s", m.log())
	}
	m.stop()
	h.wantNothingLeft()
}
