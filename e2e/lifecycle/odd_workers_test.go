//go:build e2e && linux

package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// odd is a worker that is not simply one process with one program.
type odd struct {
	name  string
	flags func(h *harness.Host) []string
	// begin tells a process that serves to become odd. It is called once; nil if no word is needed.
	begin func(h *harness.Host, pid int)
	// is fails while the process has not become odd yet.
	is func(h *harness.Host, pid int) error
	// nameless: nothing shows any more which worker the process is, so that it cannot be adopted without a recorded
	// PID, only stopped.
	nameless bool
	root     bool // only root can do that
}

// eachOddWorker runs a test for each odd worker.
func eachOddWorker(t *testing.T, test func(t *testing.T, o odd)) {
	for _, o := range oddWorkers {
		t.Run(o.name, func(t *testing.T) {
			if o.root && os.Geteuid() != 0 {
				harness.SkipOutsideCI(t, "only root can do that")
			}
			t.Parallel()
			test(t, o)
		})
	}
}

var oddWorkers = []odd{{
	name: "behind sh -c",
	flags: func(h *harness.Host) []string {
		return harness.WorkersOf("/bin/sh", 1, "-c", `"$0" -as plain "$@"; exit $?`, harness.Programs.Unit)
	},
	is: func(h *harness.Host, pid int) error {
		for _, f := range h.Processes() {
			if f.PPID == pid {
				return nil
			}
		}
		return errors.New("the shell has no child")
	},
}, {
	name:  "executes itself again",
	flags: func(h *harness.Host) []string { return h.Units("reexec") },
	begin: func(h *harness.Host, pid int) {
		// Before it serves, it would end by this signal, and so would the program that it executes.
		harness.WaitFor(h.T, "it handles the signal", func() error {
			if readLogs(h, "serving") == 0 {
				return errors.New("it does not serve")
			}
			return nil
		})
		h.SignalWorker(pid, syscall.SIGHUP)
	},
	is: func(h *harness.Host, _ int) error {
		if n := readLogs(h, "serving"); n < 2 {
			return fmt.Errorf("%d programs have served", n)
		}
		return nil
	},
}, {
	name:  "overwrites its title and environment",
	flags: func(h *harness.Host) []string { return h.Units("titled") },
	is: func(_ *harness.Host, pid int) error {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); strings.Contains(string(text), "HSU_") {
			return errors.New("its environment is still to be read")
		}
		return nil
	},
	nameless: true,
}, {
	name:  "its first thread has ended",
	flags: func(h *harness.Host) []string { return h.Units("leaderless") },
	is: func(_ *harness.Host, pid int) error {
		if f, err := harness.ReadStat(fmt.Sprintf("/proc/%d", pid)); err != nil || f.State != 'Z' {
			return fmt.Errorf("state %c, %w", f.State, err)
		}
		return nil
	},
}, {
	name:  "hides its memory from other processes",
	flags: func(h *harness.Host) []string { return h.Units("undumpable") },
	is: func(h *harness.Host, _ int) error {
		if readLogs(h, "hidden from others") == 0 {
			return errors.New("it does not")
		}
		return nil
	},
}, {
	name:  "becomes another user",
	flags: func(h *harness.Host) []string { return h.Units("nobody") },
	root:  true,
	is: func(_ *harness.Host, pid int) error {
		if got := runsAs(pid); got != harness.Nobody {
			return fmt.Errorf("it is user %d", got)
		}
		return nil
	},
}}

// runsAs returns the effective user of a process, -1 if the process is gone.
func runsAs(pid int) int {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/task", pid), &st) != nil {
		return -1
	}
	return int(st.Uid)
}

func readLogs(h *harness.Host, text string) int {
	log, _ := os.ReadFile(filepath.Join(h.State, "logs", "worker-0.log"))
	return strings.Count(string(log), text)
}

// awaitOdd returns when the worker on that port serves and has become odd.
func awaitOdd(h *harness.Host, o odd, pid, port int) {
	h.T.Helper()
	if o.begin != nil {
		o.begin(h, pid)
	}
	harness.WaitFor(h.T, o.name, func() error { return errors.Join(harness.Listening(port), o.is(h, pid)) })
	harness.WorkerStatus(h.T, port)
}

func TestOddWorkerIsAdoptedAfterACrashOfTheMaster(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := harness.NewHost(t)
		h.Flags = o.flags(h)
		m := h.Start()
		d := h.AwaitRunning(1)
		want := d.Instances()
		m.Kill()
		awaitOdd(h, o, d.Workers[0].PID, d.Workers[0].Port)
		memory := harness.WorkerStatus(t, d.Workers[0].Port).GetStatus()

		for range 2 {
			m = h.Start()
			d = h.AwaitRunning(1)
			d.WantInstances(t, want)
			h.Ask("of an odd worker")
			h.WantNoTwin(dumpOf(d, o))
			m.Kill()
		}
		if got := harness.WorkerStatus(t, d.Workers[0].Port).GetStatus(); got != memory {
			t.Errorf("its memory is another")
		}
		m = h.Start()
		h.AwaitRunning(1)
		m.Stop()
		h.WantNothingLeft()
	})
}

// dumpOf removes from d the workers that their environment cannot reveal.
func dumpOf(d harness.Dump, o odd) harness.Dump {
	if o.nameless {
		d.Workers = nil
	}
	return d
}

func TestOddWorkerWhosePIDWasNotRecordedIsAdoptedOrStoppedButNeverDoubled(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := harness.NewHost(t)
		h.Flags = o.flags(h)
		crashAt(h, "after-fork", settled(1), syscall.SIGKILL)
		recorded := h.Dump().Workers[0]
		if recorded.PID != 0 || recorded.Port == 0 {
			t.Fatalf("recorded is %+v, want a port and no pid", recorded)
		}
		var pid int
		harness.WaitFor(t, "the worker's first process", func() error {
			for _, f := range h.Processes() {
				if f.Session == f.PID {
					pid = f.PID
					return nil
				}
			}
			return errors.New("not there")
		})
		awaitOdd(h, o, pid, recorded.Port)

		m := h.Start()
		d := h.AwaitRunning(1)
		switch w := d.Workers[0]; {
		case o.nameless && w.PID == pid:
			t.Errorf("adopted %+v, of which nothing tells that it is ours", w)
		case !o.nameless && (w.PID != pid || !w.Adopted || w.Incarnation != 1):
			t.Errorf("%+v, want process %d adopted", w, pid)
		}
		h.Ask("of an odd worker")
		leaders := slices.DeleteFunc(h.Processes(), func(f harness.Process) bool { return f.Session != f.PID })
		if len(leaders) != 1 || leaders[0].PID != d.Workers[0].PID {
			t.Errorf("processes that could be the worker: %v, want the one of the dump: %+v", leaders, d.Workers[0])
		}
		m.Stop()
		h.WantNothingLeft()
	})
}

func TestOddWorkerIsStoppedAndStartedAgainLikeAnyOther(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := harness.NewHost(t)
		h.Flags = o.flags(h)
		m := h.Start()
		before := h.AwaitRunning(1).Workers[0]
		awaitOdd(h, o, before.PID, before.Port)
		h.AwaitRunning(1)
		h.KillWorker(before.PID)
		after := h.AwaitWorkers(1, "run again",
			func(w harness.Worker) bool { return w.Running() && w.Incarnation == 2 })
		if w := after.Workers[0]; w.LastExit == nil || w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL" {
			t.Errorf("last exit = %+v, want SIGKILL", w.LastExit)
		}
		m.Stop()
		h.WantNothingLeft()
	})
}

func TestProcessThatExecutesItselfUnderARunningMasterIsNoExit(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = h.Units("reexec")
	m := h.Start()
	d := h.AwaitRunning(1)
	want := d.Instances()
	awaitOdd(h, oddWorkers[1], d.Workers[0].PID, d.Workers[0].Port)
	d = h.AwaitRunning(1)
	d.WantInstances(t, want)
	m.Stop()
	h.WantNothingLeft()
}

// If only descendants are left, they are stopped before the next instance starts: they may hold its port, or do its
// work.
func TestDescendantsOfADeadWorkerAreGoneBeforeItsReplacementComes(t *testing.T) {
	for _, down := range []bool{true, false} {
		name := map[bool]string{true: "died while no master ran", false: "died under a running master"}[down]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			h.Flags = harness.ShortGrace(h.Units("plain+child+stopped+bare+daemon+baredaemon+nolease"))
			m := h.Start()
			w := h.AwaitRunning(1).Workers[0]
			awaitDescendants(h, 6)
			old := h.Processes()
			if down {
				m.Kill()
			}
			h.KillWorker(w.PID)
			if down {
				m = h.Start()
			}
			h.AwaitWorkers(1, "run again", func(w harness.Worker) bool { return w.Running() && w.Incarnation == 2 })
			for _, f := range h.Processes() {
				same := func(o harness.Process) bool { return o.PID == f.PID && o.StartTicks == f.StartTicks }
				if slices.ContainsFunc(old, same) {
					t.Errorf("of the first instance is left: %v", f)
				}
			}
			awaitDescendants(h, 12)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}
