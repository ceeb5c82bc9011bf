//go:build e2e && linux

package world

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// The commands around workers, of a master in one PID namespace and of the next one in another.

// hooked is a host with one unit, whose hooks note their begin in the file "order", and block while there is a file
// with the name of the hook.
type hooked struct {
	*harness.Host
	folder string
}

func newHooked(t *testing.T) hooked {
	t.Helper()
	h := hooked{Host: harness.NewHost(t)}
	h.folder = filepath.Join(h.Dir, "site")
	script := `#!/bin/sh
cd "` + h.folder + `"
echo "$1 begins" >>order
while [ -e "$1" ]; do sleep 0.02; done
echo "$1 ends" >>order
`
	units := `
defaults: {kind: managed}
units:
  shop:
    command: [./shop]
    health: {type: process}
    start: {settle: 20ms, before: [./hook, before]}
    stop: {grace: 20s, after: [./hook, after]}
    restart: {backoff: {initial: 1ms, max: 5ms}}
`
	err := errors.Join(os.Mkdir(h.folder, 0o700),
		harness.WriteProgram(h.path("hook"), []byte(script)),
		harness.WriteProgram(h.path("shop"), []byte("#!/bin/sh\nexec sleep 1000000\n")),
		os.WriteFile(h.path("hsu.yaml"), []byte(units), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	h.Flags = []string{"--config", h.path("hsu.yaml")}
	return h
}

func (h hooked) path(name string) string { return filepath.Join(h.folder, name) }

// block has the hook block until the returned function is called.
func (h hooked) block(hook string) (release func()) {
	h.T.Helper()
	if err := os.WriteFile(h.path(hook), nil, 0o600); err != nil {
		h.T.Fatal(err)
	}
	return func() {
		if err := os.Remove(h.path(hook)); err != nil {
			h.T.Error(err)
		}
	}
}

// noted returns how many times the hook has begun.
func (h hooked) noted(hook string) int {
	text, _ := os.ReadFile(h.path("order"))
	return strings.Count(string(text), hook+" begins\n")
}

func (h hooked) awaitNoted(hook string, n int) {
	h.T.Helper()
	harness.WaitFor(h.T, fmt.Sprintf("%s has begun %d times", hook, n), func() error {
		if got := h.noted(hook); got != n {
			return fmt.Errorf("%d times", got)
		}
		return nil
	})
}

// command returns the PID of the only command of a hook, which leads a session. What it has just forked looks like it.
func (h hooked) command(hook string) int {
	h.T.Helper()
	pid := 0
	for _, p := range h.Processes() {
		if p.Environ["HSU_WORKER_ID"] == "shop-0/"+hook && p.Session == p.PID {
			if pid != 0 {
				h.T.Errorf("%s runs twice at once: %d, %d", hook, pid, p.PID)
			}
			pid = p.PID
		}
	}
	if pid == 0 {
		h.T.Fatalf("%s does not run", hook)
	}
	return pid
}

// planInside returns the output of state plan as a process in the namespace sees it.
func (h hooked) planInside(n *namespace) string {
	h.T.Helper()
	var out bytes.Buffer
	cmd := exec.Command(h.Program, "state", "plan", "--json", "--config", h.path("hsu.yaml"), "--state-dir", h.State)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := n.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.T.Errorf("state plan: %v\n%s", err, out.String())
	}
	return out.String()
}

func running(w harness.Worker) bool { return w.Status == "running" && w.PID > 0 }

// begin starts a master, and waits until it runs the hook, which blocks.
func (h hooked) begin(hook string) (m *harness.Master, release func()) {
	h.T.Helper()
	release = h.block(hook)
	m = h.Start()
	if hook == "after" {
		h.KillWorker(h.AwaitWorkers(1, "run", running).Workers[0].PID)
	}
	h.awaitNoted(hook, 1)
	return m, release
}

// From a container, a command that a killed master has left outside is not visible. Its lease is.
func TestHookThatLivesOutsideOfTheContainerIsNotRunTwice(t *testing.T) {
	for hook, key := range map[string]string{"before": "start.before", "after": "stop.after"} {
		t.Run(hook, func(t *testing.T) {
			t.Parallel()
			h := newHooked(t)
			n := newNamespace(h.Host, 0)
			m, release := h.begin(hook)
			m.Kill()
			if plan := h.CLI("state", "plan", "--json").Stdout; !strings.Contains(plan, "is stopped first (") {
				t.Errorf("the plan where the command runs does not name it:\n%s", plan)
			}
			plan := h.planInside(n)
			for _, want := range []string{`"action": "hold"`, `"hook": "` + key + `"`, `"lease": "held"`} {
				if !strings.Contains(plan, want) {
					t.Errorf("the plan inside lacks %s:\n%s", want, plan)
				}
			}
			h.Begin = n.start
			m = h.Start()
			held := func(w harness.Worker) bool {
				return strings.HasPrefix(w.Reason, "held: "+key+" that an earlier master ran: ") &&
					strings.HasSuffix(w.Reason, "it lives: start a master where it runs")
			}
			for range 2 { // the second master reads the record of the first
				h.AwaitWorkers(1, "are held", held)
				m.Kill()
				m = h.Start()
			}
			h.AwaitWorkers(1, "are held", held)
			pid := h.command(hook) // the only one
			if got := h.noted(hook); got != 1 {
				t.Errorf("%s has begun %d times beside the first", hook, got)
			}
			release()
			harness.WaitFor(t, "the command ends", func() error {
				if err := syscall.Kill(pid, 0); err == nil {
					return fmt.Errorf("process %d lives", pid)
				}
				return nil
			})
			h.awaitNoted(hook, 2)
			h.AwaitWorkers(1, "run", running)
			m.Stop()
			h.WantNothingLeft()
		})
	}
}

// wantItEndedFromOutside starts a master outside of all containers, which must end the first start.before and run it
// again.
func (h hooked) wantItEndedFromOutside(first int, release func()) {
	h.T.Helper()
	h.Begin = (*exec.Cmd).Start
	m := h.Start()
	h.awaitNoted("before", 2)
	if pid := h.command("before"); pid == first {
		h.T.Errorf("process %d was not ended", pid)
	}
	release()
	h.AwaitWorkers(1, "run", running)
	m.Stop()
	h.WantNothingLeft()
}

// From outside, the command in a container is visible: it is ended, and run again.
func TestHookThatLivesInAContainerIsEndedFromOutside(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	n := newNamespace(h.Host, 0)
	h.Begin = n.start
	m, release := h.begin("before")
	first := h.command("before")
	m.Kill()
	h.wantItEndedFromOutside(first, release)
}

// Without its lease, nothing shows whether a command in another namespace lives. Where it runs, it is found.
func TestHookThatLivesOutsideOfTheContainerWithoutALeaseToAsk(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	n := newNamespace(h.Host, 0)
	m, release := h.begin("before")
	m.Kill()
	if err := os.RemoveAll(filepath.Join(h.State, "run")); err != nil {
		t.Fatal(err)
	}
	h.Begin = n.start
	m = h.Start()
	h.AwaitWorkers(1, "are held, and it is said what to do", func(w harness.Worker) bool {
		return strings.HasPrefix(w.Reason, "held: start.before ") &&
			strings.Contains(w.Reason, "start a master where it ran, or reboot if it is certainly gone")
	})
	first := h.command("before")
	m.Signal(syscall.SIGTERM)
	m.WantExit(1) // one is left that it cannot stop

	h.wantItEndedFromOutside(first, release)
}

// The commands of a container end with it, and those of the next one run.
func TestHookOfARestartedContainerRunsAgain(t *testing.T) {
	t.Parallel()
	h := newHooked(t)
	first := newNamespace(h.Host, 500)
	h.Begin = first.start
	m, release := h.begin("before")
	first.end()
	m.Wait()
	release()
	h.Begin = newNamespace(h.Host, 1000).start
	m = h.Start()
	h.AwaitWorkers(1, "run", running)
	if got := h.noted("before"); got != 2 {
		t.Errorf("start.before has begun %d times, want 2", got)
	}
	m.Stop()
	h.WantNothingLeft()
}
