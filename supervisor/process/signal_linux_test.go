package process

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// eachKernel runs a test with signals to groups by pidfd, and as before Linux 6.9.
func eachKernel(t *testing.T, test func(t *testing.T)) {
	t.Run("by pidfd", test)
	t.Run("by number", func(t *testing.T) {
		withhold(t, &kernel.Withheld.GroupSignal)
		test(t)
	})
}

func TestSignalGroupReachesChildren(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		w := startWorker(t, "spawn", "count-usr1")
		first, second := w.expectPID(t, "ready"), w.expectPID(t, "ready")
		child := watchPID(t, first+second-w.PID())
		if err := w.Signal(unix.SIGCONT); err != nil {
			t.Fatal(err)
		}
		if err := w.SignalGroup(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitDone(t, w.Process)
		waitDone(t, child)
	})
}

func TestSignalGroupAfterLeaderDied(t *testing.T) {
	w := startWorker(t, "spawn", "sleep")
	first, second := w.expectPID(t, "ready"), w.expectPID(t, "ready")
	child := watchPID(t, first+second-w.PID())
	if err := w.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitDone(t, w.Process)
	w.Exit() // reaped
	func() {
		withhold(t, &kernel.Withheld.GroupSignal)
		defer kernel.Withheld.GroupSignal.Store(false)
		if err := w.SignalGroup(unix.SIGTERM); !errors.Is(err, ErrGone) {
			t.Errorf("SignalGroup by number after the leader's death: %v, want ErrGone", err)
		}
	}()
	if !hasPidfs(t) {
		t.Skip("needs Linux 6.9")
	}
	if err := w.SignalGroup(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitDone(t, child)
}

// For a process that leads no group only the process is signalled: the group belongs to another leader.
func TestSignalGroupOfNoLeader(t *testing.T) {
	eachKernel(t, func(t *testing.T) {
		w := startWorker(t, "spawn", "sleep")
		first, second := w.expectPID(t, "ready"), w.expectPID(t, "ready")
		child := watchPID(t, first+second-w.PID())
		if err := child.SignalGroup(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitDone(t, child)
		if !w.alive() {
			t.Error("the rest of the group was signalled")
		}
	})
}

func TestStopped(t *testing.T) {
	for _, behaviour := range []string{"sleep", "dead-leader"} {
		t.Run(behaviour, func(t *testing.T) {
			w := startWorker(t, behaviour)
			w.expect(t, "ready")
			if w.Stopped() {
				t.Error("Stopped() of a running process")
			}
			if err := w.SignalGroup(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			waitState(t, w.PID(), unix.WSTOPPED)
			if !w.Stopped() {
				t.Error("not Stopped() after SIGSTOP")
			}
			if err := w.SignalGroup(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			waitState(t, w.PID(), unix.WCONTINUED)
			if w.Stopped() {
				t.Error("Stopped() after SIGCONT")
			}
			if err := w.Signal(unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitDone(t, w.Process)
			if w.Stopped() {
				t.Error("Stopped() of a dead process")
			}
		})
	}
}

func TestSignalTheDead(t *testing.T) {
	w := startWorker(t, "exit", "0")
	waitDone(t, w.Process)
	w.Exit()
	err := w.Signal(unix.SIGTERM)
	if !errors.Is(err, ErrGone) {
		t.Errorf("Signal: %v, want ErrGone", err)
	}
}
