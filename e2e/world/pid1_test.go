//go:build e2e && linux

package world

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// asFirst makes the command process 1 of a PID namespace, as in a container.
func asFirst(t *testing.T) func(*exec.Cmd) error {
	t.Helper()
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "makes PID namespaces, which only root may")
	}
	return func(cmd *exec.Cmd) error {
		cmd.Args = append([]string{harness.Programs.Unit, "-as", "first", "--", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = harness.Programs.Unit
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWPID
		cmd.SysProcAttr.Unshareflags |= unix.CLONE_NEWNS
		return cmd.Start()
	}
}

// namespaceOf returns the namespace whose first process it is.
func namespaceOf(h *harness.Host, pid int) *namespace {
	h.T.Helper()
	n := &namespace{h: h}
	var err error
	for name, file := range map[string]**os.File{"mnt": &n.mounts, "pid": &n.pids} {
		if *file, err = os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name)); err != nil {
			h.T.Fatal(err)
		}
	}
	h.T.Cleanup(n.close)
	return n
}

// children returns the children of a process, and the zombies among them.
func children(parent int) (all, zombies []int) {
	for _, pid := range harness.PIDs() {
		f, err := harness.ReadStat(fmt.Sprintf("/proc/%d", pid))
		if err != nil || f.PPID != parent {
			continue
		}
		all = append(all, pid)
		if f.State == 'Z' {
			zombies = append(zombies, pid)
		}
	}
	return all, zombies
}

func TestMasterThatIsProcess1ReapsOrphansAndKnowsHowItsWorkersEnded(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, append(harness.Workers(2), "--restart-backoff", "1ms")...)
	h.Begin = asFirst(t)
	m := h.Start()
	h.AwaitRunning(2)
	inside := namespaceOf(h, m.PID)
	for round := range 3 {
		// Each process in brackets loses its parent at once.
		script := exec.Command("/bin/sh", "-c", "for i in $(seq 100); do (: &); (sleep 0.1 &); done")
		if err := inside.start(script); err != nil {
			t.Fatal(err)
		}
		victim := h.AwaitRunning(2).Worker(t, "worker-0")
		h.KillWorker(pidOutside(h, victim.PID))
		if err := script.Wait(); err != nil {
			t.Fatal(err)
		}
		after := h.AwaitWorkers(2, "run again", func(w harness.Worker) bool {
			return w.Running() && (w.ID != "worker-0" || w.PID != victim.PID)
		}).Worker(t, "worker-0")
		if e := after.LastExit; e == nil || !e.Known || e.Signal == nil || *e.Signal != "SIGKILL" {
			t.Errorf("round %d: the worker that was killed ended with %+v", round, e)
		}
	}
	harness.WaitFor(t, "the master has its workers as children, and no other", func() error {
		all, zombies := children(m.PID)
		if len(all) != 2 {
			return fmt.Errorf("it has %d, %d of them zombies", len(all), len(zombies))
		}
		return nil
	})
	h.Ask("of a worker")
	m.Stop()
	h.WantNothingLeft()
}
