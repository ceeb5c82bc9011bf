//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

const fileOfLimits = `
defaults: {kind: managed, command: [sleep, "1000000"], start: {settle: 20ms}, stop: {grace: 3s}}
units:
  plain: {}
  bounded: {limits: {memory: 64MiB, cpu: 0.5, pids: 20}}
  helped: {limits: {memory: 64MiB, pids: 1}, umask: "0022"}
  required: {limits: {pids: 20, enforce: required}, restart: {policy: never}}
`

// Without a cgroup that it may manage, the master says so once, or starts no worker that requires its limits.
func TestKeysOfLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": fileOfLimits})
	m := s.start()
	const next = "mount them at /sys/fs/cgroup"
	says := func(text, keys string) bool {
		return strings.Contains(text, keys+": ") &&
			(strings.Contains(text, "is not delegated to the master: let systemd do that (Delegate=yes)") ||
				strings.HasSuffix(text, next))
	}
	s.await("required-0", "has failed", func(w harness.Worker) bool {
		return w.Status == "failed" && says(w.Reason, "limits.enforce is required: limits.pids")
	})
	if w := s.await("plain-0", "runs", up); len(w.Unenforced) > 0 {
		t.Errorf("plain-0 has no limits: %q", w.Unenforced)
	}
	s.await("helped-0", "runs", up)
	bounded := s.await("bounded-0", "runs", up)
	for range 2 {
		if len(bounded.Unenforced) != 1 || !says(bounded.Unenforced[0], "limits.memory, limits.cpu, limits.pids") {
			t.Errorf("bounded-0 does not say that nothing is enforced: %q", bounded.Unenforced)
		}
		s.KillWorker(bounded.PID)
		killed := bounded.PID
		bounded = s.await("bounded-0", "runs again", func(w harness.Worker) bool { return up(w) && w.PID != killed })
	}
	list := s.CLI("worker", "list")
	if want := "limits.memory, limits.cpu, limits.pids not enforced"; !strings.Contains(list.Stdout, want) {
		t.Errorf("worker list has no %q:\n%s", want, list.Stdout)
	}
	s.write("hsu.yaml", strings.ReplaceAll(fileOfLimits, "memory: 64MiB, cpu: 0.5, pids: 20", "cpu: 0.5"))
	s.reload(0, "bounded: apply to 1 worker: limits.memory, limits.pids\n")
	changed := s.await("bounded-0", "has one limit", func(w harness.Worker) bool {
		return len(w.Unenforced) == 1 && says(w.Unenforced[0], "limits.cpu") &&
			!strings.Contains(w.Unenforced[0], "memory")
	})
	if changed.PID != bounded.PID {
		t.Errorf("the change of a limit has replaced process %d by %d", bounded.PID, changed.PID)
	}
	m.Kill() // the next master shows it again
	m = s.start()
	if w := s.Dump().Worker(t, "bounded-0"); w.PID != bounded.PID || len(w.Unenforced) != 1 {
		t.Errorf("after a crash of the master: %+v, want process %d, without its limit", w, bounded.PID)
	}
	m.Stop()
	s.WantNothingLeft()
}

// One event, and one line in the log, for each worker and limits that are not enforced.
func TestUnenforcedLimitsAreLoggedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": fileOfLimits})
	m := s.start()
	w := s.await("bounded-0", "runs", up)
	s.KillWorker(w.PID)
	s.await("bounded-0", "runs again", func(now harness.Worker) bool { return up(now) && now.PID != w.PID })
	s.await("helped-0", "runs", up)
	said := map[string]int{}
	for _, line := range m.Logged("worker limits not enforced") {
		said[line.Worker]++
	}
	if len(said) != 2 || said["bounded-0"] != 1 || said["helped-0"] != 1 {
		t.Errorf("logged %v, want bounded-0 and helped-0 once", said)
	}
	m.Stop()
	s.WantNothingLeft()
}

// confined starts a master in a cgroup that it may manage.
func (s *site) confined() (m *harness.Master, dir string) {
	s.T.Helper()
	needRoot(s.T)
	dir, err := harness.DelegateCgroup()
	if err != nil {
		harness.SkipOutsideCI(s.T, "delegates a cgroup: %v", err)
	}
	s.T.Cleanup(func() {
		if err := harness.LeaveCgroup(dir, false); err != nil {
			s.T.Error(errors.Join(err, harness.LeaveCgroup(dir, true)))
		}
	})
	s.Begin = func(cmd *exec.Cmd) error { return harness.StartInCgroup(cmd, dir) }
	return s.start(), dir
}

// limitsOf returns the content of the files of the limits of a worker's cgroup.
func limitsOf(t *testing.T, dir string, w harness.Worker) string {
	t.Helper()
	var all []string
	for _, name := range []string{"memory.max", "cpu.max", "pids.max"} {
		text, err := os.ReadFile(filepath.Join(dir, w.ID+"."+w.Token, name))
		if err != nil {
			t.Error(err)
		}
		all = append(all, strings.TrimSpace(string(text)))
	}
	return strings.Join(all, ", ")
}

// A cgroup without a controller enforces no limit of it.
func TestLimitsWithoutControllers(t *testing.T) {
	t.Parallel()
	if harness.HasController("memory") {
		t.Skip("this host has the controllers")
	}
	s := newSite(t, map[string]string{"hsu.yaml": fileOfLimits})
	m, dir := s.confined()
	w := s.await("bounded-0", "runs", up)
	for i, controller := range []string{"memory", "cpu", "pids"} {
		want := fmt.Sprintf("limits.%s: %s does not have the controller %[1]s", controller, dir)
		if len(w.Unenforced) != 3 || !strings.HasPrefix(w.Unenforced[i], want) {
			t.Errorf("%q, want %q", w.Unenforced, want)
		}
	}
	s.await("required-0", "has failed", func(w harness.Worker) bool {
		return w.Status == "failed" && strings.Contains(w.Reason, "does not have the controller pids")
	})
	m.Stop()
	s.WantNothingLeft()
}

// greedy uses memory until it is killed.
const greedy = `#!/bin/sh
exec tail /dev/zero
`

// The limits hold from the first instruction on, follow a reload, and stay in force without a master.
func TestLimitsAreEnforced(t *testing.T) {
	t.Parallel()
	for _, controller := range []string{"memory", "cpu", "pids"} {
		if !harness.HasController(controller) {
			t.Skip("the cgroups of version 2 do not have the controller " + controller)
		}
	}
	s := newSite(t, map[string]string{
		"greedy": greedy,
		"hsu.yaml": fileOfLimits + `
  greedy: {command: [./greedy], limits: {memory: 16MiB}, restart: {policy: never}}
`,
	})
	m, dir := s.confined()
	const unlimited = "max, max 100000, max"
	for id, want := range map[string]string{
		"plain-0": unlimited, "bounded-0": "67108864, 50000 100000, 20", "helped-0": "67108864, max 100000, 1",
		"required-0": "max, max 100000, 20",
	} {
		w := s.await(id, "runs", up)
		if got := limitsOf(t, dir, w); got != want || len(w.Unenforced) > 0 {
			t.Errorf("%s has the limits %s, want %s; not enforced: %q", id, got, want, w.Unenforced)
		}
	}
	s.await("greedy-0", "was killed", func(w harness.Worker) bool {
		const why = "killed by SIGKILL: the kernel has killed a process of it because it reached limits.memory"
		return w.Status == "failed" && strings.Contains(w.Reason, why)
	})
	before := s.Dump()
	s.write("hsu.yaml", strings.ReplaceAll(fileOfLimits, "memory: 64MiB, cpu: 0.5, pids: 20", "memory: 32MiB"))
	s.reload(0, "bounded: apply to 1 worker: limits.memory, limits.cpu, limits.pids\n")
	w := s.await("bounded-0", "runs", up)
	if got, want := limitsOf(t, dir, w), "33554432, max 100000, max"; got != want {
		t.Errorf("after the reload bounded-0 has the limits %s, want %s", got, want)
	}
	m.Kill()
	s.write("hsu.yaml", strings.ReplaceAll(fileOfLimits, "memory: 64MiB, cpu: 0.5, pids: 20", "pids: 30"))
	m = s.start()
	after := s.awaitUp(4)
	for _, id := range []string{"plain-0", "bounded-0", "helped-0", "required-0"} {
		if was, is := before.Worker(t, id), after.Worker(t, id); was.PID != is.PID || len(is.Unenforced) > 0 {
			t.Errorf("%s has process %d, before %d; not enforced: %q", id, is.PID, was.PID, is.Unenforced)
		}
	}
	if got, want := limitsOf(t, dir, w), "max, max 100000, 30"; got != want {
		t.Errorf("the next master has left the limits %s, want %s", got, want)
	}
	m.Stop()
	s.WantNothingLeft()
}
