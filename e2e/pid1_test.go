//go:build e2e && linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asFirst makes the command process 1 of a PID namespace, as in a container.
func asFirst(t *testing.T) func(*exec.Cmd) error {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "makes PID namespaces, which only root may")
	}
	return func(cmd *exec.Cmd) error {
		cmd.Args = append([]string{programs.unit, "-as", "first", "--", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = programs.unit
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
		cmd.SysProcAttr.Unshareflags |= unix.CLONE_NEWNS
		return cmd.Start()
	}
}

// namespaceOf returns the namespace whose first process it is.
func (h *host) namespaceOf(pid int) *namespace {
	h.t.Helper()
	n := &namespace{h: h}
	var err error
	for name, file := range map[string]**os.File{"mnt": &n.mounts, "pid": &n.pids} {
		if *file, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			h.t.Fatal(err)
		}
	}
	h.t.Cleanup(n.close)
	return n
}

// children returns the children of a process, and the zombies among them.
func children(parent int) (all, zombies []int) {
	for _, pid := range pids() {
		f, err := readStat(fmt.Sprintf("/proc/%d", pid))
		if err != nil || f.ppid != parent {
			continue
		}
		all = append(all, pid)
		if f.state == 'Z' {
			zombies = append(zombies, pid)
		}
	}
	return all, zombies
}

func TestMasterThatIsProcess1ReapsOrphansAndKnowsHowItsWorkersEnded(t *testing.T) {
	t.Parallel()
	h := newHost(t, append(workers(2), "--restart-backoff", "1ms")...)
	h.begin = asFirst(t)
	m := h.start()
	h.awaitRunning(2)
	inside := h.namespaceOf(m.pid)
	for round := range 3 {
		// Each process in brackets loses its parent at once.
		script := exec.Command("/bin/sh", "-c", "for i in $(seq 100); do (: &); (sleep 0.1 &); done")
		if err := inside.start(script); err != nil {
			t.Fatal(err)
		}
		victim := h.awaitRunning(2).worker(t, "worker-0")
		h.killWorker(h.outside(victim.PID))
		if err := script.Wait(); err != nil {
			t.Fatal(err)
		}
		after := h.awaitWorkers(2, "run again", func(d dump, w worker) bool {
			return running(d, w) && (w.ID != "worker-0" || w.PID != victim.PID)
		}).worker(t, "worker-0")
		if e := after.LastExit; e == nil || !e.Known || e.Signal == nil || *e.Signal != "SIGKILL" {
			t.Errorf("round %d: the worker that was killed ended with %+v", round, e)
		}
	}
	waitFor(t, "the master has its workers as children, and no other", func() error {
		all, zombies := children(m.pid)
		if len(all) != 2 {
			return fmt.Errorf("it has %d, %d of them zombies", len(all), len(zombies))
		}
		return nil
	})
	h.ask("of a worker")
	m.stop()
	h.wantNothingLeft()
}
