//go:build e2e && linux

package world

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

	"github.com/core-tools/hsu-master/e2e/harness"
)

// namespace is a PID namespace with its own /proc, as in a container. It lives as long as its process 1, and all
// its processes die with that.
type namespace struct {
	h      *harness.Host
	first  *exec.Cmd
	record string
	mounts *os.File // its mount namespace
	pids   *os.File
}

// newNamespace creates a namespace, if the test may. Processes in it get PIDs above number.
func newNamespace(h *harness.Host, number int) *namespace {
	h.T.Helper()
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(h.T, "makes PID namespaces, which only root may")
	}
	record, err := os.MkdirTemp(h.Dir, "namespace")
	if err != nil {
		h.T.Fatal(err)
	}
	n := &namespace{h: h, record: record}
	n.first = exec.Command(harness.Programs.Unit, "-as", "init", "-record", record, "-number", strconv.Itoa(number))
	n.first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	n.first.Stderr = os.Stderr
	if err := n.first.Start(); err != nil {
		h.T.Fatal(err)
	}
	pid := n.first.Process.Pid
	h.Others[pid] = true
	h.T.Cleanup(n.end)
	harness.WaitFor(h.T, "the namespace is there", func() error {
		left, _ := filepath.Glob(filepath.Join(record, "init.*[0-9]"))
		if len(left) == 0 {
			return errors.New("its first process has not said so")
		}
		return nil
	})
	for name, file := range map[string]**os.File{"mnt": &n.mounts, "pid": &n.pids} {
		if *file, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			h.T.Fatal(err)
		}
	}
	return n
}

// start starts the command inside; cmd.Process has its PID outside.
func (n *namespace) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		// The locked thread is not reused: it ends with this goroutine. The process's first thread would not end,
		// and /proc/self would follow its namespace, so another thread is used while this goroutine holds the first
		// one.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			started <- n.start(cmd)
			return
		}
		err := unix.Unshare(unix.CLONE_FS) // required by the next line
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

// close releases the namespace, whose number may then be reused.
func (n *namespace) close() {
	_, _ = n.mounts.Close(), n.pids.Close()
}

// pidInside returns the PID of a process in its innermost namespace.
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

// pidOutside returns the PID, as the test sees it, of the only process of this host with that PID inside a namespace.
func pidOutside(h *harness.Host, inside int) int {
	h.T.Helper()
	for _, f := range h.Processes() {
		if pidInside(f.PID) == inside {
			return f.PID
		}
	}
	h.T.Fatalf("no process has number %d inside", inside)
	return 0
}

// wantInside is WantNoTwin for workers in a namespace.
func wantInside(h *harness.Host, d harness.Dump) {
	h.T.Helper()
	leaders := h.Leaders()
	for _, w := range d.Workers {
		if got := leaders[w.ID]; len(got) != 1 || pidInside(got[0]) != w.PID {
			h.T.Errorf("%s is process %d in the dump, and %v in /proc", w.ID, w.PID, got)
		}
		delete(leaders, w.ID)
	}
	if len(leaders) > 0 {
		h.T.Errorf("processes that the dump does not name: %v", leaders)
	}
}

// reborn starts a decoy inside that has the PID number.
func (n *namespace) reborn(number int) *harness.Decoy {
	n.h.T.Helper()
	record, err := os.MkdirTemp(n.h.Dir, "decoy")
	if err != nil {
		n.h.T.Fatal(err)
	}
	var cmd *exec.Cmd
	var ended chan struct{}
	begin := func() {
		cmd = exec.Command(harness.Programs.Unit, "-as", "reborn", "-record", record, "-number", strconv.Itoa(number))
		cmd.Stderr = os.Stderr
		if err := n.start(cmd); err != nil {
			n.h.T.Fatal(err)
		}
		n.h.Others[cmd.Process.Pid] = true
		ended = make(chan struct{})
		go func(cmd *exec.Cmd, ended chan<- struct{}) {
			defer close(ended)
			_ = cmd.Wait()
		}(cmd, ended)
	}
	begin()
	n.h.T.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	harness.WaitFor(n.h.T, fmt.Sprintf("a stranger has number %d", number), func() error {
		select {
		case <-ended:
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
	for _, f := range n.h.Processes() {
		if strings.Contains(f.Command, record) && pidInside(f.PID) == number {
			n.h.Others[f.PID] = true
			return &harness.Decoy{PID: f.PID, Record: record}
		}
	}
	n.h.T.Fatalf("no stranger has number %d", number)
	return nil
}

// The kernel really gives the recorded PID to a foreign process.
func TestPIDThatWasReallyReusedIsLeftAloneAndItsWorkerStartedAnew(t *testing.T) {
	t.Parallel()
	const rounds = 4
	h := harness.NewHost(t, append(harness.Workers(2), "--restart-budget", "1000/5m", "--restart-backoff", "1ms")...)
	n := newNamespace(h, 0)
	h.Begin = n.start
	var decoys []*harness.Decoy
	m := h.Start()
	for round := range rounds {
		before := h.AwaitRunning(2)
		wantInside(h, before)
		dead, kept := before.Worker(t, "worker-0"), before.Worker(t, "worker-1")
		m.Kill()
		h.KillWorker(pidOutside(h, dead.PID))
		d := n.reborn(dead.PID)
		decoys = append(decoys, d)
		if got := pidInside(d.PID); got != dead.PID {
			t.Fatalf("the stranger is %d inside, want %d", got, dead.PID)
		}

		m = h.Start()
		after := h.AwaitRunning(2)
		if w := after.Worker(t, "worker-0"); w.PID == dead.PID || w.Incarnation != round+2 || w.Adopted {
			t.Errorf("round %d: %+v, want a new process", round, w)
		}
		if w := after.Worker(t, "worker-1"); w.PID != kept.PID || w.Token != kept.Token || !w.Adopted {
			t.Errorf("round %d: %+v, want it as it was: %+v", round, w, kept)
		}
		wantInside(h, after)
		h.Ask("with a stranger about")
		for _, d := range decoys {
			d.WantUntouched(t)
		}
	}
	m.Stop()
	for _, d := range decoys {
		d.WantUntouched(t)
	}
	h.WantNothingLeft()
}
