//go:build e2e && linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// namespace is a PID namespace with a /proc of its own, as a container has one. It
// lives as long as its process 1, and all that is in it dies with that.
type namespace struct {
	h      *host
	first  *exec.Cmd
	record string
	mounts *os.File // its mount namespace
	pids   *os.File
}

// newNamespace makes one, where the test may. With pidMax, of 400 at least, numbers
// below it are given out from pidMax-100 on, and then again from 300 on.
func (h *host) newNamespace(pidMax int) *namespace {
	h.t.Helper()
	if os.Geteuid() != 0 {
		lacking(h.t, "makes PID namespaces, which only root may")
	}
	if pidMax != 0 && !kernelSince(6, 14) {
		lacking(h.t, "needs a pid_max for each PID namespace (Linux 6.14): here it would be the whole machine's")
	}
	record, err := os.MkdirTemp(h.dir, "namespace")
	if err != nil {
		h.t.Fatal(err)
	}
	n := &namespace{h: h, record: record}
	n.first = exec.Command(programs.unit, "-as", "init", "-record", record, "-number", strconv.Itoa(pidMax))
	n.first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	n.first.Stderr = os.Stderr
	if err := n.first.Start(); err != nil {
		h.t.Fatal(err)
	}
	pid := n.first.Process.Pid
	h.others[pid] = true
	h.t.Cleanup(n.end)
	waitFor(h.t, "the namespace is there", func() error {
		left, _ := filepath.Glob(filepath.Join(record, "init.*[0-9]"))
		if len(left) == 0 {
			return errors.New("its first process has not said so")
		}
		return nil
	})
	for name, file := range map[string]**os.File{"mnt": &n.mounts, "pid": &n.pids} {
		if *file, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			h.t.Fatal(err)
		}
	}
	return n
}

// start starts the command inside; its PID is known by the outside's number.
func (n *namespace) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		// The thread is never given back: it ends with this goroutine. The first thread
		// would stay, and with it what /proc/self says, so that another one is taken
		// while this goroutine has that.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			started <- n.start(cmd)
			return
		}
		err := unix.Unshare(unix.CLONE_FS) // what the next line asks for
		if err == nil {
			err = unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS)
		}
		if err == nil {
			err = unix.Setns(int(n.pids.Fd()), unix.CLONE_NEWPID)
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}

// end kills everything inside.
func (n *namespace) end() {
	_ = n.first.Process.Kill()
	_ = n.first.Wait()
}

// close lets go of the namespace, whose number may then be given to another.
func (n *namespace) close() {
	_, _ = n.mounts.Close(), n.pids.Close()
}

// pidInside is the number of a process in the innermost namespace that it is in.
func pidInside(pid int) int {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if numbers, found := strings.CutPrefix(line, "NSpid:"); found {
			fields := strings.Fields(numbers)
			inside, _ := strconv.Atoi(fields[len(fields)-1])
			return inside
		}
	}
	return 0
}

// outside is the number by which the test knows the only process of this host with
// that number inside a namespace.
func (h *host) outside(inside int) int {
	h.t.Helper()
	for _, f := range h.processes() {
		if pidInside(f.pid) == inside {
			return f.pid
		}
	}
	h.t.Fatalf("no process has number %d inside", inside)
	return 0
}

// wantInside is wantNoTwin for workers in a namespace.
func (h *host) wantInside(d dump) {
	h.t.Helper()
	leaders := h.leaders()
	for _, w := range d.Workers {
		if got := leaders[w.ID]; len(got) != 1 || pidInside(got[0]) != w.PID {
			h.t.Errorf("%s is process %d in the dump, and %v in /proc", w.ID, w.PID, got)
		}
		delete(leaders, w.ID)
	}
	if len(leaders) > 0 {
		h.t.Errorf("processes that the dump does not name: %v", leaders)
	}
}

// reborn makes processes inside until one has the number, and that one is a decoy.
func (n *namespace) reborn(number int) *decoy {
	n.h.t.Helper()
	record, err := os.MkdirTemp(n.h.dir, "decoy")
	if err != nil {
		n.h.t.Fatal(err)
	}
	d := &decoy{t: n.h.t, record: record}
	begin := func() {
		d.ended = make(chan struct{})
		d.cmd = exec.Command(programs.unit, "-as", "reborn", "-record", record, "-number", strconv.Itoa(number))
		d.cmd.Stderr = os.Stderr
		if err := n.start(d.cmd); err != nil {
			n.h.t.Fatal(err)
		}
		n.h.others[d.cmd.Process.Pid] = true
		go func(cmd *exec.Cmd, ended chan<- struct{}) {
			defer close(ended)
			_ = cmd.Wait()
		}(d.cmd, d.ended)
	}
	begin()
	n.h.t.Cleanup(func() { d.end() })
	waitFor(n.h.t, fmt.Sprintf("a stranger has number %d", number), func() error {
		select {
		case <-d.ended:
			begin() // it had the number itself
		default:
		}
		for _, name := range []string{"reborn.*", "decoy.*"} {
			if left, _ := filepath.Glob(filepath.Join(record, name+"[0-9]")); len(left) == 0 {
				return fmt.Errorf("no %s yet", name)
			}
		}
		return nil
	})
	for _, f := range n.h.processes() {
		if strings.Contains(f.command, record) && pidInside(f.pid) == number {
			d.number = f.pid
			n.h.others[f.pid] = true
			return d
		}
	}
	n.h.t.Fatalf("no stranger has number %d", number)
	return nil
}

// kernelSince tells whether the running kernel is that version or a newer one.
func kernelSince(major, minor int) bool {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	var x, y int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &x, &y); err != nil {
		return false
	}
	return x > major || x == major && y >= minor
}

// The numbers go round, and a stranger really gets the one that is recorded.
func TestPIDThatWasReallyReusedIsLeftAloneAndItsWorkerStartedAnew(t *testing.T) {
	t.Parallel()
	const rounds = 4
	h := newHost(t, append(workers(2), "--restart-budget", "1000/5m", "--restart-backoff", "1ms")...)
	n := h.newNamespace(500) // four hundred are used up by the threads of all that run here
	h.begin = n.start
	var decoys []*decoy
	m := h.start()
	for round := range rounds {
		before := h.awaitRunning(2)
		h.wantInside(before)
		dead, kept := before.worker(t, "worker-0"), before.worker(t, "worker-1")
		m.kill()
		h.killWorker(h.outside(dead.PID))
		d := n.reborn(dead.PID)
		decoys = append(decoys, d)
		if got := pidInside(d.pid()); got != dead.PID {
			t.Fatalf("the stranger is %d inside, want %d", got, dead.PID)
		}

		m = h.start()
		after := h.awaitRunning(2)
		if w := after.worker(t, "worker-0"); w.PID == dead.PID || w.Incarnation != round+2 || w.Adopted {
			t.Errorf("round %d: %+v, want a new process", round, w)
		}
		if w := after.worker(t, "worker-1"); w.PID != kept.PID || w.Token != kept.Token || !w.Adopted {
			t.Errorf("round %d: %+v, want it as it was: %+v", round, w, kept)
		}
		h.wantInside(after)
		h.ask("with a stranger about")
		for _, d := range decoys {
			d.wantUntouched()
		}
	}
	m.stop()
	for _, d := range decoys {
		d.wantUntouched()
	}
	h.wantNothingLeft()
}
