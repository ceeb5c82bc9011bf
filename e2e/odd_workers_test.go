//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// odd is a worker that is not simply one process with one program.
type odd struct {
	name  string
	flags func(h *host) []string
	// begin tells a process that serves to become odd. It is called once; nil if no word is needed.
	begin func(h *host, pid int)
	// is fails while the process has not become odd yet.
	is func(h *host, pid int) error
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
				lacking(t, "only root can do that")
			}
			t.Parallel()
			test(t, o)
		})
	}
}

var oddWorkers = []odd{{
	name: "behind sh -c",
	flags: func(h *host) []string {
		return workersOf("/bin/sh", 1, "-c", `"$0" -as plain "$@"; exit $?`, programs.unit)
	},
	is: func(h *host, pid int) error {
		for _, f := range h.processes() {
			if f.ppid == pid {
				return nil
			}
		}
		return errors.New("the shell has no child")
	},
}, {
	name:  "executes itself again",
	flags: func(h *host) []string { return h.units("reexec") },
	begin: func(h *host, pid int) {
		// Before it serves, it would end by this signal, and so would the program that it executes.
		waitFor(h.t, "it handles the signal", func() error {
			if readLogs(h, "serving") == 0 {
				return errors.New("it does not serve")
			}
			return nil
		})
		h.signalWorker(pid, syscall.SIGHUP)
	},
	is: func(h *host, _ int) error {
		if n := readLogs(h, "serving"); n < 2 {
			return fmt.Errorf("%d programs have served", n)
		}
		return nil
	},
}, {
	name:  "overwrites its title and environment",
	flags: func(h *host) []string { return h.units("titled") },
	is: func(_ *host, pid int) error {
		if text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); strings.Contains(string(text), "HSU_") {
			return errors.New("its environment is still to be read")
		}
		return nil
	},
	nameless: true,
}, {
	name:  "its first thread has ended",
	flags: func(h *host) []string { return h.units("leaderless") },
	is: func(_ *host, pid int) error {
		if f, err := readStat(fmt.Sprintf("/proc/%d", pid)); err != nil || f.state != 'Z' {
			return fmt.Errorf("state %c, %w", f.state, err)
		}
		return nil
	},
}, {
	name:  "hides its memory from other processes",
	flags: func(h *host) []string { return h.units("undumpable") },
	is: func(h *host, _ int) error {
		if readLogs(h, "hidden from others") == 0 {
			return errors.New("it does not")
		}
		return nil
	},
}, {
	name:  "becomes another user",
	flags: func(h *host) []string { return h.units("nobody") },
	root:  true,
	is: func(_ *host, pid int) error {
		if got := runsAs(pid); got != nobody {
			return fmt.Errorf("it is user %d", got)
		}
		return nil
	},
}}

// nobody is the UID of that user.
const nobody = 65534

// runsAs returns the effective user of a process, -1 if the process is gone.
func runsAs(pid int) int {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/task", pid), &st) != nil {
		return -1
	}
	return int(st.Uid)
}

func readLogs(h *host, text string) int {
	log, _ := os.ReadFile(filepath.Join(h.state, "logs", "worker-0.log"))
	return strings.Count(string(log), text)
}

// awaitOdd returns when the worker on that port serves and has become odd.
func (h *host) awaitOdd(o odd, pid, port int) {
	h.t.Helper()
	if o.begin != nil {
		o.begin(h, pid)
	}
	waitFor(h.t, o.name, func() error { return errors.Join(listening(port), o.is(h, pid)) })
	own(h.t, port)
}

func TestOddWorkerIsAdoptedAfterACrashOfTheMaster(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := newHost(t)
		h.flags = o.flags(h)
		m := h.start()
		d := h.awaitRunning(1)
		want := d.instances(t)
		m.kill()
		h.awaitOdd(o, d.Workers[0].PID, d.Workers[0].Port)
		memory := own(t, d.Workers[0].Port).GetStatus()

		for range 2 {
			m = h.start()
			d = h.awaitRunning(1)
			if diff := cmp.Diff(want, d.instances(t)); diff != "" {
				t.Errorf("the worker is not what it was (-before +after):\n%s", diff)
			}
			h.ask("of an odd worker")
			h.wantNoTwin(dumpOf(d, o))
			m.kill()
		}
		if got := own(t, d.Workers[0].Port).GetStatus(); got != memory {
			t.Errorf("its memory is another")
		}
		m = h.start()
		h.awaitRunning(1)
		m.stop()
		h.wantNothingLeft()
	})
}

// dumpOf removes from d the workers that their environment cannot reveal.
func dumpOf(d dump, o odd) dump {
	if o.nameless {
		d.Workers = nil
	}
	return d
}

func TestOddWorkerWhosePIDWasNotRecordedIsAdoptedOrStoppedButNeverDoubled(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := newHost(t)
		h.flags = o.flags(h)
		h.crash("after-fork", settled(1), syscall.SIGKILL)
		recorded := h.dump().Workers[0]
		if recorded.PID != 0 || recorded.Port == 0 {
			t.Fatalf("recorded is %+v, want a port and no pid", recorded)
		}
		var pid int
		waitFor(t, "the worker's first process", func() error {
			for _, f := range h.processes() {
				if f.session == f.pid {
					pid = f.pid
					return nil
				}
			}
			return errors.New("not there")
		})
		h.awaitOdd(o, pid, recorded.Port)

		m := h.start()
		d := h.awaitRunning(1)
		switch w := d.Workers[0]; {
		case o.nameless && w.PID == pid:
			t.Errorf("adopted %+v, of which nothing tells that it is ours", w)
		case !o.nameless && (w.PID != pid || !w.Adopted || w.Incarnation != 1):
			t.Errorf("%+v, want process %d adopted", w, pid)
		}
		h.ask("of an odd worker")
		leaders := slices.DeleteFunc(h.processes(), func(f found) bool { return f.session != f.pid })
		if len(leaders) != 1 || leaders[0].pid != d.Workers[0].PID {
			t.Errorf("processes that could be the worker: %v, want the one of the dump: %+v", leaders, d.Workers[0])
		}
		m.stop()
		h.wantNothingLeft()
	})
}

func TestOddWorkerIsStoppedAndStartedAgainLikeAnyOther(t *testing.T) {
	eachOddWorker(t, func(t *testing.T, o odd) {
		h := newHost(t)
		h.flags = o.flags(h)
		m := h.start()
		before := h.awaitRunning(1).Workers[0]
		h.awaitOdd(o, before.PID, before.Port)
		h.awaitRunning(1)
		h.killWorker(before.PID)
		after := h.awaitWorkers(1, "run again",
			func(d dump, w worker) bool { return running(d, w) && w.Incarnation == 2 })
		if w := after.Workers[0]; w.LastExit == nil || w.LastExit.Signal == nil || *w.LastExit.Signal != "SIGKILL" {
			t.Errorf("last exit = %+v, want SIGKILL", w.LastExit)
		}
		m.stop()
		h.wantNothingLeft()
	})
}

func TestProcessThatExecutesItselfUnderARunningMasterIsNoExit(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.flags = h.units("reexec")
	m := h.start()
	d := h.awaitRunning(1)
	want := d.instances(t)
	h.awaitOdd(oddWorkers[1], d.Workers[0].PID, d.Workers[0].Port)
	d = h.awaitRunning(1)
	if diff := cmp.Diff(want, d.instances(t)); diff != "" {
		t.Errorf("the worker is not what it was (-before +after):\n%s", diff)
	}
	m.stop()
	h.wantNothingLeft()
}

// If only descendants are left, they are stopped before the next instance starts: they may hold its port, or do its
// work.
func TestDescendantsOfADeadWorkerAreGoneBeforeItsReplacementComes(t *testing.T) {
	for _, down := range []bool{true, false} {
		name := map[bool]string{true: "died while no master ran", false: "died under a running master"}[down]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.flags = graceful(h.units("plain+child+stopped+bare+daemon+baredaemon+nolease"))
			m := h.start()
			w := h.awaitRunning(1).Workers[0]
			h.awaitDescendants(6)
			old := h.processes()
			if down {
				m.kill()
			}
			h.killWorker(w.PID)
			if down {
				m = h.start()
			}
			h.awaitWorkers(1, "run again", func(d dump, w worker) bool { return running(d, w) && w.Incarnation == 2 })
			for _, f := range h.processes() {
				if slices.ContainsFunc(old, func(o found) bool { return o.pid == f.pid && o.born == f.born }) {
					t.Errorf("of the first instance is left: %v", f)
				}
			}
			h.awaitDescendants(12)
			m.stop()
			h.wantNothingLeft()
		})
	}
}
