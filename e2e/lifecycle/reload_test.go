//go:build e2e && linux

package lifecycle

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// file is a configuration file that a test changes.
type file struct {
	*harness.Host
	path  string
	units map[string]string // each in the form of YAML's flow style, without its braces
}

func newFile(t *testing.T, units map[string]string) *file {
	h := harness.NewHost(t)
	f := &file{Host: h, path: filepath.Join(h.Dir, "hsu.yaml"), units: units}
	h.Flags = []string{"--config", f.path}
	f.write()
	return f
}

func (f *file) write() {
	f.T.Helper()
	var text strings.Builder
	text.WriteString("defaults: {start: {settle: 50ms}}\nunits:\n")
	for _, name := range slices.Sorted(maps.Keys(f.units)) {
		fmt.Fprintf(&text, "  %s: {kind: managed, %s}\n", name, f.units[name])
	}
	if err := os.WriteFile(f.path, []byte(text.String()), 0o600); err != nil {
		f.T.Fatal(err)
	}
}

// set changes a unit, or removes it with an empty text.
func (f *file) set(unit, text string) {
	f.T.Helper()
	if f.units[unit] = text; text == "" {
		delete(f.units, unit)
	}
	f.write()
}

// running returns the PIDs of all workers once these and no others run.
func (f *file) running(ids ...string) map[string]int {
	f.T.Helper()
	pids := map[string]int{}
	harness.WaitFor(f.T, fmt.Sprintf("exactly %v run", ids), func() error {
		clear(pids)
		d, err := f.TryDump()
		if err != nil {
			return err
		}
		for _, w := range d.Workers {
			if w.Status == "running" {
				pids[w.ID] = w.PID
			}
		}
		if len(pids) != len(ids) || len(d.Workers) != len(ids) {
			return fmt.Errorf("running are %v of %d workers", pids, len(d.Workers))
		}
		return nil
	})
	f.WantNoTwin(f.Dump())
	return pids
}

// reload runs the command and checks its exit code and its output.
func (f *file) reload(code int, output string, flags ...string) {
	f.T.Helper()
	r := f.CLI(append([]string{"reload"}, flags...)...)
	if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, output) {
		f.T.Fatalf("reload: exit code %d, %q, %q; want %d with %q", r.Code, r.Stdout, r.Stderr, code, output)
	}
}

func TestReloadTouchesOnlyWhatHasChanged(t *testing.T) {
	t.Parallel()
	f := newFile(t, map[string]string{
		"a": `command: [sleep, "1000"], replicas: 2`, "b": `command: [sleep, "1000"]`, "c": `command: [sleep, "1000"]`,
	})
	m := f.Start()
	before := f.running("a-0", "a-1", "b-0", "c-0")
	f.reload(0, "nothing has changed")

	f.set("a", `command: [sleep, "1001"], replicas: 2`)
	f.set("b", "")
	f.set("c", `command: [sleep, "1000"], stop: {grace: 1s}`)
	f.set("d", `command: [sleep, "1000"]`)
	f.reload(0, "a: replace in turn 2 workers: command\n", "--dry-run")
	if same := f.running("a-0", "a-1", "b-0", "c-0"); !maps.Equal(same, before) {
		t.Errorf("a dry run changed %v to %v", before, same)
	}
	f.reload(0, "c: apply to 1 worker: stop\nd: start 1 worker: new unit\nb: stop and forget 1 worker: unit removed\n")
	after := f.running("a-0", "a-1", "c-0", "d-0")
	if after["a-0"] == before["a-0"] || after["a-1"] == before["a-1"] || after["c-0"] != before["c-0"] {
		t.Errorf("the reload changed %v to %v", before, after)
	}

	// A faulty file changes nothing, and neither the signal nor the command ends the master.
	f.set("e", "comand: [sleep], replica: 2")
	f.reload(2, `unknown key "comand"`)
	recorded := f.CLI("events", "--type", "reload-failed").Stdout
	if want := "; " + f.path + ":6:"; !strings.Contains(recorded, "has 2 faults: ") ||
		!strings.Contains(recorded, want) || strings.Contains(recorded, "^") || !strings.Contains(recorded, "by ") {
		t.Errorf("the refused reload is recorded as %s", recorded)
	}
	m.Signal(syscall.SIGHUP)
	harness.WaitFor(t, "the signal's fault is logged", func() error {
		if !strings.Contains(m.Log(), "reload failed") {
			return fmt.Errorf("the log is %s", m.Log())
		}
		return nil
	})
	f.set("e", `command: [sleep, "1000"]`)
	m.Signal(syscall.SIGHUP)
	after["e-0"] = f.running("a-0", "a-1", "c-0", "d-0", "e-0")["e-0"]

	// The first worker that does not get ready ends the reload.
	f.set("a", `command: [sh, -c, "exit 3"], replicas: 2`)
	f.reload(1, "replaced 0 of 2 workers: a-0 is not ready: exited with code 3")
	if w := f.Dump().Worker(t, "a-1"); w.PID != after["a-1"] || !w.Outdated {
		t.Errorf("after a reload that failed a-1 is %+v", w)
	}
	f.set("a", `command: [sleep, "1002"], replicas: 2`)
	f.reload(0, "a: replace in turn 2 workers: command\n")
	last := f.running("a-0", "a-1", "c-0", "d-0", "e-0")
	if last["a-1"] == after["a-1"] || last["c-0"] != after["c-0"] || last["e-0"] != after["e-0"] {
		t.Errorf("the last reload changed %v to %v", after, last)
	}
	m.Stop()
	f.WantNothingLeft()
}

func TestReloadIsCompletedAfterACrash(t *testing.T) {
	t.Parallel()
	f := newFile(t, map[string]string{
		"a": `command: [sleep, "1000"], replicas: 2`, "b": `command: [sleep, "1000"]`,
	})
	m := f.Start()
	before := f.running("a-0", "a-1", "b-0")
	f.set("a", `command: [sleep, "1001"], replicas: 2, start: {settle: 25s}`)
	f.set("b", "")
	m.Signal(syscall.SIGHUP)
	var replaced int
	harness.WaitFor(t, "the first worker is replaced", func() error {
		if replaced = f.Dump().Worker(t, "a-0").PID; replaced == 0 || replaced == before["a-0"] {
			return fmt.Errorf("its process is %d", replaced)
		}
		return nil
	})
	m.Kill()
	f.set("a", `command: [sleep, "1001"], replicas: 2`)
	m = f.Start()
	harness.WaitFor(t, "the next master completes the reload", func() error {
		if !strings.Contains(m.Log(), "rollout completed") {
			return fmt.Errorf("the log is %s", m.Log())
		}
		return nil
	})
	after := f.running("a-0", "a-1")
	if after["a-0"] != replaced || after["a-1"] == before["a-1"] {
		t.Errorf("the next master runs %v, want %d and a successor of %d", after, replaced, before["a-1"])
	}
	f.reload(0, "nothing has changed\n")
	if last := f.running("a-0", "a-1"); !maps.Equal(last, after) {
		t.Errorf("a reload without a change changed %v to %v", after, last)
	}
	m.Stop()
	f.WantNothingLeft()
}

// A reload that nobody waits for is recorded when the command returns: the next master completes it.
func TestReloadWithoutWaiting(t *testing.T) {
	t.Parallel()
	f := newFile(t, map[string]string{"a": `command: [sleep, "1000"]`, "b": `command: [sleep, "1000"]`})
	m := f.Start()
	before := f.running("a-0", "b-0")
	f.reload(0, "nothing has changed\n", "--no-wait")
	f.set("a", "comand: [sleep]")
	f.reload(2, `unknown key "comand"`, "--no-wait")

	f.set("a", `command: [sleep, "1001"], start: {settle: 15s}`)
	f.set("b", "")
	f.set("c", `command: [sleep, "1000"]`)
	f.reload(0, "recorded and begun", "--no-wait", "--timeout", "10s")
	m.Kill()
	f.set("a", `command: [sleep, "1001"]`)
	m = f.Start()
	if after := f.running("a-0", "c-0"); after["a-0"] == before["a-0"] {
		t.Errorf("a-0 is still process %d", before["a-0"])
	}

	// A failure is found in the history.
	f.set("a", `command: [sh, -c, "exit 3"], start: {settle: 20s}`)
	f.reload(0, `"done": false`, "--no-wait", "--json")
	harness.WaitFor(t, "the failure is recorded", func() error {
		recorded := f.CLI("events", "--type", "reload-failed").Stdout
		if !strings.Contains(recorded, "a-0 is not ready: exited with code 3") {
			return fmt.Errorf("the history has %s", recorded)
		}
		return nil
	})
	m.Stop()
	f.WantNothingLeft()
}

func TestReloadNamesAMasterThatHasEnded(t *testing.T) {
	t.Parallel()
	f := newFile(t, map[string]string{"a": `command: [sleep, "1000"]`})
	m := f.Start()
	before := f.running("a-0")
	f.set("a", `command: [sleep, "1001"], start: {settle: 25s}`)
	reload := make(chan string, 1)
	go func() {
		r := f.CLI("reload")
		reload <- fmt.Sprintf("exit code %d: %s", r.Code, r.Stderr)
	}()
	harness.WaitFor(t, "the worker is replaced", func() error {
		if pid := f.Dump().Worker(t, "a-0").PID; pid == 0 || pid == before["a-0"] {
			return fmt.Errorf("its process is %d", pid)
		}
		return nil
	})
	m.Kill()
	if got := <-reload; !strings.HasPrefix(got, "exit code 1:") ||
		!strings.Contains(got, "the master ended before the reload was done") {
		t.Errorf("reload: %s", got)
	}
	f.set("a", `command: [sleep, "1001"]`)
	m = f.Start()
	f.running("a-0")
	m.Stop()
	f.WantNothingLeft()
}
