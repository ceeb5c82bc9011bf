//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// A reload replaces as many workers at once as the unit allows, and no more.
func TestReloadReplacesTwoWorkersAtOnce(t *testing.T) {
	t.Parallel()
	file := func(level string) string {
		return fmt.Sprintf(`
units:
  a:
    kind: managed
    command: [sleep, "1000"]
    replicas: 5
    environment: {LEVEL: %s, NOTES: "${NOTES}"}
    health: {type: exec, command: [sh, -c, 'test "$$LEVEL" = info || test -e "$$NOTES/go-on"'], interval: 100ms}
    update: {max_unavailable: 2}
`, level)
	}
	s := newSite(t, map[string]string{"hsu.yaml": file("info")})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	s.awaitUp(5)
	s.write("hsu.yaml", file("debug"))
	m.Signal(syscall.SIGHUP)
	replaced := func(want, running int) func() error {
		return func() error {
			d, err := s.TryDump()
			if err != nil {
				return err
			}
			begun, done := 0, 0
			for _, w := range d.Workers {
				switch {
				case w.Incarnation == 2 && up(w):
					done++
				case w.Incarnation == 2 || !up(w):
					begun++
				}
			}
			if begun > 2 {
				t.Errorf("%d workers are being replaced at the same time: %+v", begun, d.Workers)
			}
			if begun != want || done != running {
				return fmt.Errorf("%d are being replaced, and %d are", begun, done)
			}
			return nil
		}
	}
	harness.WaitFor(t, "two workers are being replaced", replaced(2, 0))
	if err := os.WriteFile(filepath.Join(s.Record, "go-on"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "all are replaced", replaced(0, 5))
	m.Stop()
	s.WantNothingLeft()
}

// callers is the number of callers during each change.
const callers = 64

// underLoad makes a change during calls, and returns when some more have ended. Then no call may have failed.
func (s *site) underLoad(what string, change func()) {
	s.T.Helper()
	calls := s.StartCallers(callers, harness.Once)
	calls.AwaitMore(callers)
	change()
	calls.AwaitMore(callers)
	calls.Stop()
	if failed := calls.TakeFailures(); len(failed) > 0 {
		s.T.Errorf("%s: calls failed: %v", what, failed)
	}
}

// integrated returns a file with replicas of a program of the site that serves calls, and breaks off those in flight at
// SIGTERM.
func integrated(program string, replicas int, u update) string {
	return fmt.Sprintf(`
units:
  a:
    command: [%s, --as, abrupt]
    replicas: %d
    stop: {grace: 20s}
    update: {order: %s, max_unavailable: %d}
`, program, replicas, u.order, u.atOnce)
}

// update is how a reload replaces the workers of a unit.
type update struct {
	order  string
	atOnce int
}

// installed writes the unit program into the site, as a version of its own.
func (s *site) installed(name, version string) {
	s.T.Helper()
	harness.Install(s.T, s.path(name), harness.Programs.Unit, version)
}

// No change loses a call: another program, more and fewer replicas, and a program that never becomes ready.
func TestChangesUnderCallersLoseNoCall(t *testing.T) {
	t.Parallel()
	for order, left := range map[update]int{ // after the bad program
		{"stop-first", 1}: 2, {"start-first", 1}: 3, {"stop-first", 2}: 1,
	} {
		s := newSite(t, map[string]string{
			"hsu.yaml": integrated("./program", 4, order),
			"bad":      "#!/bin/sh\nexit 3\n",
		})
		s.installed("program", "1")
		m := s.start()
		s.AwaitWorkers(4, "run", harness.Worker.Running)
		s.underLoad(fmt.Sprint(order, ": another program"), func() {
			s.installed("program", "2")
			s.reload(0, "a: replace in turn 4 workers: changed since its start")
		})
		d := s.AwaitWorkers(4, "run", harness.Worker.Running)
		for _, w := range d.Workers {
			if w.Incarnation != 2 || w.Outdated {
				t.Errorf("%v: %+v is not replaced", order, w)
			}
		}
		s.underLoad(fmt.Sprint(order, ": more replicas"), func() {
			s.write("hsu.yaml", integrated("./program", 6, order))
			s.reload(0, "a: start 2 workers: replicas 4 to 6")
		})
		s.underLoad(fmt.Sprint(order, ": fewer replicas"), func() {
			s.write("hsu.yaml", integrated("./program", 3, order))
			s.reload(0, "a: stop and forget 3 workers: replicas 6 to 3")
		})
		s.underLoad(fmt.Sprint(order, ": a bad program"), func() {
			s.write("hsu.yaml", integrated("./bad", 3, order))
			if r := s.CLI("reload"); r.Code != 1 || !strings.Contains(r.Stderr, "replaced 0 of 3 workers: a-") {
				t.Errorf("%v: reload: exit code %d, %s", order, r.Code, r.Stderr)
			}
		})
		serving := 0
		for _, w := range s.Dump().Workers {
			if w.Running() {
				serving++
			}
		}
		if serving != left {
			t.Errorf("%v: %d of the former workers serve, want %d: %+v", order, serving, left, s.Dump().Workers)
		}
		m.Stop()
		s.WantNothingLeft()
	}
}

// A master that is killed during a reload is followed by one that completes it, without a spare worker in the end.
func TestReloadCutOffByACrashIsCompleted(t *testing.T) {
	t.Parallel()
	for _, order := range []string{"stop-first", "start-first"} {
		s := newSite(t, map[string]string{"hsu.yaml": integrated("./program", 3, update{order, 1})})
		s.installed("program", "1")
		m := s.start()
		s.AwaitWorkers(3, "run", harness.Worker.Running)
		s.installed("program", "2")
		m.Signal(syscall.SIGHUP)
		s.await("a-0", "is being replaced", func(w harness.Worker) bool { return w.Incarnation == 2 })
		m.Kill()
		m = s.start()
		s.AwaitWorkers(3, "are replaced", func(w harness.Worker) bool {
			return w.Running() && w.Incarnation == 2 && !w.Outdated
		})
		if _, err := os.Stat(filepath.Join(s.State, "logs", "a-3.log")); err == nil && order == "stop-first" {
			t.Error("there was a spare worker")
		}
		m.Stop()
		s.WantNothingLeft()
	}
}
