//go:build e2e && linux

package units

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/history"
)

// noteEvent notes the events that it gets.
const noteEvent = "#!/bin/sh\ncat >>\"$NOTES/$1\"\n"

// newEventSite returns a site with a worker and the commands.
func newEventSite(t *testing.T, onEvent string) *site {
	t.Helper()
	s := newSite(t, map[string]string{
		"hsu.yaml": eventFile(onEvent), "note": noteEvent,
		// It clears its environment, so that only its lease shows it.
		"hang": "#!/bin/sh\ncat >>\"$NOTES/$1\"\nexec env -i sleep 1000000\n",
		// It leaves a process in the background and ends.
		"leave": "#!/bin/sh\nsetsid env -i sleep 1000000 &\ncat >>\"$NOTES/$1\"\n",
	})
	s.environ = []string{"NOTES=" + s.Record}
	return s
}

func eventFile(onEvent string) string {
	return onEvent + `
units:
  job:
    kind: managed
    command: [sleep, "1000000"]
    restart: {backoff: {initial: 10ms}}
  other: {kind: managed, command: [sleep, "1000000"]}
`
}

// events returns the events that a command has noted.
func (s *site) events(name string) (lines []history.Line, types []string) {
	s.T.Helper()
	text, _ := os.ReadFile(filepath.Join(s.Record, name))
	for raw := range strings.Lines(string(text)) {
		var line history.Line
		if !strings.HasSuffix(raw, "\n") || json.Unmarshal([]byte(raw), &line) != nil {
			s.T.Fatalf("%s got %q", name, raw)
		}
		about := line.Worker
		if about == "" {
			about = line.Unit
		}
		lines, types = append(lines, line), append(types, strings.TrimPrefix(about+" ", " ")+line.Type)
	}
	return lines, types
}

// awaitEvent returns when the command has noted the event n times.
func (s *site) awaitEvent(name, event string, n int) {
	s.T.Helper()
	harness.WaitFor(s.T, fmt.Sprintf("%s gets %s", name, event), func() error {
		_, types := s.events(name)
		if got := len(slices.DeleteFunc(slices.Clone(types), func(t string) bool { return t != event })); got < n {
			return fmt.Errorf("%d times: %q", got, types)
		}
		return nil
	})
}

func TestKeysOfOnEvent(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, `
on_event:
- {types: [exited, master-started, scale, reload], run: [./note, some]}
- {units: [other], types: [started], run: [./note, other]}
- {types: [exited], run: [./hang, hung], timeout: 500ms}
- {types: [exited], run: [./leave, left]}
- {types: [exited], run: [./missing]}
`)
	m := s.start()
	job := s.awaitUp(2).Worker(t, "job-0")
	s.KillWorker(job.PID)
	s.awaitEvent("some", "job-0 exited", 1)
	if r := s.CLI("worker", "scale", "job=2"); r.Code != 0 {
		t.Fatalf("scale: %+v", r)
	}
	s.awaitEvent("some", "job scale", 1)
	lines, types := s.events("some")
	if want := []string{"master-started", "job-0 exited", "job scale"}; !slices.Equal(types, want) {
		t.Errorf("the events are %q, want %q", types, want)
	}
	if o := lines[2].Operator; o == nil || o.UID != uint32(os.Geteuid()) || o.Command == "" { //nolint:gosec // a uid
		t.Errorf("the operator is %+v", o)
	}
	// The same JSON.
	var printed []string
	for raw := range strings.Lines(s.CLI("events", "--json", "--type", "exited").Stdout) {
		printed = append(printed, raw)
	}
	noted, _ := os.ReadFile(filepath.Join(s.Record, "hung"))
	if len(printed) != 1 || printed[0] != string(noted) {
		t.Errorf("events --json prints %q, and the command got %q", printed, noted)
	}
	harness.WaitFor(t, "the command that hangs and the process in the background are killed", func() error {
		if left := s.Processes(); len(left) != 3 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	s.awaitEvent("other", "other-0 started", 1)
	harness.WaitFor(t, "status shows the failures", func() error {
		if text := s.CLI("status").Stdout; !strings.Contains(text, "commands of on_event: 2 failed, 0 events dropped") {
			return errors.New(text)
		}
		return nil
	})

	s.write("hsu.yaml", eventFile(`
on_event:
- {types: [reload, master-stopped], run: [./note, reloaded]}
`))
	m.Signal(syscall.SIGHUP)
	s.awaitEvent("reloaded", "reload", 1)
	if _, types := s.events("some"); slices.Contains(types, "reload") {
		t.Error("a removed command runs")
	}
	m.Stop()
	s.awaitEvent("reloaded", "master-stopped", 1)
	s.WantNothingLeft()
}

// The next master kills a command that the last one ran when it was killed, even one without its environment. It tells
// of the crash, and does not run the command again.
func TestCommandOfAKilledMasterIsKilled(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, `
on_event:
- {types: [started], units: [job], run: [./hang, hung], timeout: 1h}
- {types: [master-crashed, adopted], run: [./note, crash]}
`)
	m := s.start()
	s.awaitUp(2)
	s.awaitEvent("hung", "job-0 started", 1)
	harness.WaitFor(t, "the command hangs", func() error {
		if left := s.Processes(); len(left) != 3 || slices.ContainsFunc(left, func(p harness.Process) bool {
			return p.Environ["HSU_WORKER_ID"] == "on_event/0"
		}) {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	m.Kill()
	if n := len(s.Processes()); n != 3 {
		t.Fatalf("%d processes are left", n)
	}
	m = s.start()
	s.awaitEvent("crash", "master-crashed", 1)
	s.awaitEvent("crash", "job-0 adopted", 1)
	harness.WaitFor(t, "the command is killed", func() error {
		if left := s.Processes(); len(left) != 2 {
			return fmt.Errorf("there are %v", left)
		}
		return nil
	})
	if _, types := s.events("hung"); len(types) != 1 {
		t.Errorf("the command ran for %q", types)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A command has its event even if the master is killed right after the fork.
func TestCommandHasItsEventWhenTheMasterIsKilled(t *testing.T) {
	t.Parallel()
	s := newEventSite(t, `
on_event:
- {types: [reload], run: [./note, reloaded]}
`)
	faults := t.TempDir()
	s.environ = append(s.environ, "HSU_FAULT_DIR="+faults)
	m := s.start()
	s.awaitUp(2)
	// The workers run, so that the next process is the command.
	if err := os.WriteFile(filepath.Join(faults, crashpoint.Fork.After()), []byte("kill"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Signal(syscall.SIGHUP)
	m.Wait()
	s.awaitEvent("reloaded", "reload", 1)
	if err := os.Remove(filepath.Join(faults, crashpoint.Fork.After())); err != nil {
		t.Fatal(err)
	}
	s.start().Stop()
	s.WantNothingLeft()
}

func TestCommandOfAnEventRunsAsItsUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	s := newEventSite(t, `
on_event:
- {types: [started], units: [job], user: nobody, run: [sh, -c, "id -un; exit 3"]}
`)
	s.admitAll()
	m := s.start()
	harness.WaitFor(t, "the command has run as nobody", func() error {
		if log := m.Log(); !strings.Contains(log, `"output":"nobody\n"`) || !strings.Contains(log, "code 3") {
			return errors.New(log)
		}
		return nil
	})
	m.Stop()
	s.WantNothingLeft()
}
