//go:build e2e && linux

package units

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// stranger is a process that another program starts, and that no master may touch.
type stranger struct {
	*harness.Decoy
	born uint64
}

// watching is a host whose file watches one stranger in each of the ways in which a process can be found.
type watching struct {
	*site
	port      int
	strangers int
}

var ways = []string{"by-file-0", "by-name-0", "by-port-0"}

func newWatching(t *testing.T) *watching {
	t.Helper()
	w := &watching{site: newSite(t, nil), port: harness.FreePort(t)}
	w.write("hsu.yaml", w.file(""))
	return w
}

// file is the content of the configuration file, with more units. The arguments of a stranger begin alike.
func (w *watching) file(more string) string {
	return fmt.Sprintf(`units:
  by-file:
    kind: unmanaged
    discover: {pid_file: stranger.pid}
    health: {interval: 200ms}
  by-name:
    kind: unmanaged
    discover: {process: {name: %s, args: [decoy, -record, -port, "%d"]}}
  by-port:
    kind: unmanaged
    discover: {port: %d}
    health: {type: tcp, address: "127.0.0.1:%d", interval: 200ms}
%s`, filepath.Base(harness.Programs.Unit), w.port, w.port, w.port, more)
}

// appear starts a stranger and writes its PID file.
func (w *watching) appear() stranger {
	w.T.Helper()
	w.strangers++
	d, err := harness.StartDecoy(filepath.Join(w.Dir, fmt.Sprint("stranger-", w.strangers)), w.port)
	if err != nil {
		w.T.Fatal(err)
	}
	w.Others[d.PID] = true
	w.T.Cleanup(d.End)
	w.write("stranger.pid", strconv.Itoa(d.PID)+"\n")
	return stranger{d, harness.StartTicks(d.PID)}
}

// wantLeftAlone checks that the process has got no signal and is still the same.
func (s stranger) wantLeftAlone(t *testing.T, after string) {
	t.Helper()
	if err := s.Untouched(); err != nil {
		t.Errorf("after %s: %v", after, err)
	}
	if born := harness.StartTicks(s.PID); born != s.born {
		t.Errorf("after %s: process %d started at %d, want %d", after, s.PID, born, s.born)
	}
}

// awaitAll waits until all ways show the process, or none for a PID of 0.
func (w *watching) awaitAll(pid int) {
	w.T.Helper()
	for _, id := range ways {
		w.await(id, fmt.Sprint("shows process ", pid), func(got harness.Worker) bool {
			return got.PID == pid && (pid == 0) == (got.Status == "absent") && (pid == 0 || got.Status == "running")
		})
	}
}

// lives reports whether a process of this host lives; one that nobody has reaped does not.
func (w *watching) lives(pid int) bool {
	return slices.ContainsFunc(w.Processes(), func(p harness.Process) bool { return p.PID == pid })
}

// wantStatus checks the exit code of status, and that it says something.
func (w *watching) wantStatus(code int, words ...string) {
	w.T.Helper()
	harness.WaitFor(w.T, fmt.Sprint("status exits with ", code), func() error {
		r := w.CLI("status")
		if r.Code != code {
			return fmt.Errorf("it exits with %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		for _, word := range words {
			if !strings.Contains(r.Stdout+r.Stderr, word) {
				return fmt.Errorf("it does not say %q:\n%s%s", word, r.Stdout, r.Stderr)
			}
		}
		return nil
	})
}

func TestUnmanagedUnits(t *testing.T) {
	t.Parallel()
	w := newWatching(t)
	m := w.start()
	w.awaitAll(0)
	w.wantStatus(1, "by-file-0 is absent: there is no "+w.path("stranger.pid"),
		fmt.Sprint("nothing listens on port ", w.port), "0 of 3 workers ready")

	first := w.appear()
	w.awaitAll(first.PID)
	w.wantStatus(0, "3 of 3 workers ready", "unmanaged: "+filepath.Base(harness.Programs.Unit))
	if r := w.CLI("worker", "list", "--json"); !strings.Contains(r.Stdout, `"unmanaged": true`) ||
		!strings.Contains(r.Stdout, `"kind": "unmanaged"`) {
		t.Errorf("worker list --json:\n%s", r.Stdout)
	}
	if r := w.CLI("worker", "scale", "by-file=2"); r.Code == 0 || !strings.Contains(r.Stderr, "is not scaled") {
		t.Errorf("worker scale: %d\n%s", r.Code, r.Stderr)
	}

	// The next master finds the same process, and has nothing to tell.
	m.Kill()
	first.wantLeftAlone(t, "kill -9 of the master")
	if d := w.Dump(); d.Source != "offline" || d.Worker(t, "by-file-0").PID != first.PID {
		t.Errorf("offline: %+v", d)
	}
	m = w.start()
	w.awaitAll(first.PID)
	for _, message := range []string{"process found", "process gone", "process absent"} {
		if lines := m.Logged(message); len(lines) > 0 {
			t.Errorf("after a crash of the master: %q", lines)
		}
	}
	m.Stop()
	first.wantLeftAlone(t, "the stop of the master")

	// It ends and comes back while no master runs.
	first.End()
	second := w.appear()
	m = w.start()
	w.awaitAll(second.PID)
	harness.WaitFor(t, "the end is logged", func() error {
		if lines := m.Logged("process gone"); len(lines) != len(ways) ||
			!strings.Contains(lines[0].Reason, fmt.Sprint("pid ", first.PID)) ||
			!strings.Contains(lines[0].Reason, "while no master watched it") {
			return fmt.Errorf("%q", lines)
		}
		return nil
	})

	// Its end is noticed at once, with its exit.
	second.End()
	w.await("by-name-0", "is gone", func(got harness.Worker) bool {
		return got.Status == "absent" && got.LastExit != nil
	})
	w.awaitAll(0)
	third := w.appear()
	w.awaitAll(third.PID)
	m.Signal(syscall.SIGUSR1)
	m.WantExit(0)
	third.wantLeftAlone(t, "a detach")
	m = w.start()
	w.awaitAll(third.PID)
	m.Signal(syscall.SIGINT)
	m.Signal(syscall.SIGINT)
	m.Wait()
	third.wantLeftAlone(t, "an immediate stop")
}

func TestUnmanagedUnitsInAReload(t *testing.T) {
	t.Parallel()
	w := newWatching(t)
	s := w.appear()
	m := w.start()
	w.awaitAll(s.PID)
	reload := func(content string, words ...string) {
		t.Helper()
		w.write("hsu.yaml", content)
		r := w.CLI("reload")
		if r.Code != 0 {
			t.Fatalf("reload: %d\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		for _, word := range words {
			if !strings.Contains(r.Stdout, word) {
				t.Errorf("reload does not say %q:\n%s", word, r.Stdout)
			}
		}
		s.wantLeftAlone(t, "a reload: "+strings.Join(words, ", "))
	}
	reload(w.file("  more:\n    kind: unmanaged\n    discover: {process: {name: no-such-program}}\n"),
		"more: watch 1 worker: new unit")
	if got := w.Dump().Worker(t, "more-0"); got.Status != "absent" || got.Reason != "no process no-such-program" {
		t.Errorf("right after the reload: %+v", got)
	}
	w.awaitAll(s.PID)
	reload(w.file(""), "more: stop watching 1 worker: unit removed")
	reload(strings.Replace(w.file(""), "pid_file: stranger.pid", "pid_file: another.pid", 1),
		"by-file: apply to 1 worker: discover")
	w.await("by-file-0", "does not match any more", func(got harness.Worker) bool {
		return got.Status == "absent" && strings.Contains(got.Reason, "another.pid")
	})

	// The id goes to a worker that the master starts, and back.
	managed := strings.Replace(w.file(""), "kind: unmanaged\n    discover: {pid_file: stranger.pid}",
		`kind: managed
    command: [sleep, "1000"]
    start: {settle: 10ms}`, 1)
	reload(managed, "by-file: start 1 worker: new unit", "by-file: stop watching 1 worker: unit removed")
	worker := w.await("by-file-0", "is started", up)
	if worker.PID == s.PID || worker.Token == "" {
		t.Errorf("the worker is %+v", worker)
	}
	m.Kill()
	m = w.start()
	if again := w.await("by-file-0", "is adopted", up); again.PID != worker.PID || !again.Adopted {
		t.Errorf("the worker is %+v after a crash, want %+v", again, worker)
	}
	reload(w.file(""), "by-file: watch 1 worker: new unit", "by-file: stop and forget 1 worker: unit removed")
	w.awaitAll(s.PID)
	if w.lives(worker.PID) {
		t.Errorf("worker %d goes on", worker.PID)
	}

	// The same while no master runs.
	m.Kill()
	w.write("hsu.yaml", managed)
	m = w.start()
	worker = w.await("by-file-0", "is started", up)
	m.Kill()
	w.write("hsu.yaml", w.file(""))
	m = w.start()
	w.awaitAll(s.PID)
	harness.WaitFor(t, "the worker is stopped", func() error {
		if w.lives(worker.PID) {
			return errors.New("it goes on")
		}
		return nil
	})
	m.Stop()
	if r := w.CLI("state", "check"); r.Code != 0 {
		t.Errorf("state check: %s%s", r.Stdout, r.Stderr)
	}
	w.write("hsu.yaml", "units: {}\n")
	m = w.start()
	if d := w.Dump(); len(d.Workers) != 0 {
		t.Errorf("after the removal of all units: %+v", d.Workers)
	}
	m.Stop()
	s.wantLeftAlone(t, "the removal of all units")
}

// The processes that a master would find are in its plan.
func TestUnmanagedUnitsInAPlan(t *testing.T) {
	t.Parallel()
	w := newWatching(t)
	m := w.start()
	w.awaitAll(0)
	s := w.appear()
	r := w.CLI("state", "plan", "--config", w.path("hsu.yaml"))
	for _, id := range ways {
		line := lineOf(r.Stdout, id)
		if !strings.Contains(line, "watch") || !strings.Contains(line, fmt.Sprint(s.PID)) {
			t.Errorf("the plan says %q of %s, want process %d\n%s%s", line, id, s.PID, r.Stdout, r.Stderr)
		}
	}
	w.awaitAll(s.PID)
	m.Stop()
	w.write("hsu.yaml", "units: {}\n")
	r = w.CLI("state", "plan", "--config", w.path("hsu.yaml"))
	if line := lineOf(r.Stdout, "by-port-0"); !strings.Contains(line, "forget") {
		t.Errorf("the plan says %q of a removed unit\n%s%s", line, r.Stdout, r.Stderr)
	}
	s.wantLeftAlone(t, "two plans")
}

func lineOf(text, word string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, word+" ") {
			return line
		}
	}
	return ""
}

// A PID file that names a worker of the master itself is an error, and two processes are no choice.
func TestUnmanagedUnitsThatCannotBeFound(t *testing.T) {
	t.Parallel()
	w := newWatching(t)
	w.write("hsu.yaml", w.file(`
  own:
    kind: unmanaged
    discover: {pid_file: own.pid}
  two:
    kind: unmanaged
    discover: {process: {name: sleep, args: ["`+strconv.Itoa(1_000_000+w.port)+`"]}}
  ours:
    kind: managed
    command: [sleep, "`+strconv.Itoa(1_000_000+w.port)+`"]
    replicas: 2
    start: {settle: 10ms}
  hidden:
    kind: unmanaged
    discover: {pid_file: hidden.pid}
  bare: # shows no environment
    kind: managed
    command: [env, -i, sleep, "1000"]
    start: {settle: 10ms}
`))
	m := w.start()
	ours := w.await("ours-0", "runs", up)
	w.write("own.pid", strconv.Itoa(ours.PID))
	w.write("hidden.pid", strconv.Itoa(w.await("bare-0", "runs", up).PID))
	for id, reason := range map[string]string{
		"own-0": "is a process of this master", "two-0": "is a process of this master",
	} {
		w.await(id, reason, func(got harness.Worker) bool {
			return got.Status == "absent" && strings.Contains(got.Reason, reason)
		})
	}
	m.Kill()
	m = w.start()
	for _, id := range []string{"own-0", "hidden-0"} {
		w.await(id, "is still ours", func(got harness.Worker) bool {
			return got.Status == "absent" && strings.Contains(got.Reason, "is a process of this master")
		})
	}
	if again := w.await("ours-0", "runs", up); again.PID != ours.PID {
		t.Errorf("the worker is process %d, was %d", again.PID, ours.PID)
	}
	// Another user's file, a FIFO and a link.
	if err := errors.Join(os.Remove(w.path("own.pid")), syscall.Mkfifo(w.path("own.pid"), 0o600)); err != nil {
		t.Fatal(err)
	}
	w.await("own-0", "has a FIFO", func(got harness.Worker) bool { return strings.Contains(got.Reason, "a FIFO") })
	m.Stop()
	w.WantNothingLeft()
}

func TestUnmanagedUnitsHealth(t *testing.T) {
	t.Parallel()
	w := newWatching(t)
	w.write("hsu.yaml", w.file(`
  sick:
    kind: unmanaged
    discover: {pid_file: stranger.pid}
    health: {type: exec, command: [./well.sh, "{worker}"], interval: 100ms, failures: 2}
`))
	w.write("well.sh", "#!/bin/sh\ntest \"$1\" = sick-0 && test -e "+w.path("well")+" || { echo it is ill; exit 3; }\n")
	s := w.appear()
	m := w.start()
	got := w.await("sick-0", "is unhealthy", func(got harness.Worker) bool { return got.Status == "unhealthy" })
	if !strings.Contains(got.Reason, "exit code 3: it is ill") || got.PID != s.PID {
		t.Errorf("it is %+v", got)
	}
	w.wantStatus(1, "sick-0 is unhealthy")
	w.write("well", "")
	w.await("sick-0", "is well", up)
	w.wantStatus(0)
	s.wantLeftAlone(t, "failed health checks")
	m.Stop()
	s.wantLeftAlone(t, "the stop")
}

// On a host without systemd, or without the service, the reason is shown, and other units are not concerned.
func TestUnmanagedServiceThatSystemdDoesNotRun(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.write("hsu.yaml", `
units:
  database:
    kind: unmanaged
    discover: {systemd: hsu-e2e-none}
    health: {interval: 100ms}
  beside:
    kind: managed
    command: [sleep, "1000"]
    start: {settle: 10ms}
`)
	absent := func(got harness.Worker) bool {
		const noSystemd = "systemd cannot be asked: connect to systemd: "
		return got.Status == "absent" && (strings.HasPrefix(got.Reason, noSystemd) ||
			got.Reason == "systemd has no unit hsu-e2e-none.service")
	}
	m := s.start()
	beside := s.await("beside-0", "runs", up)
	s.await("database-0", "is absent", absent)
	m.Kill()
	m = s.start()
	s.await("database-0", "is absent", absent)
	if again := s.await("beside-0", "runs", up); again.PID != beside.PID {
		t.Errorf("the worker is process %d, was %d", again.PID, beside.PID)
	}
	m.Stop()
	s.WantNothingLeft()
}
