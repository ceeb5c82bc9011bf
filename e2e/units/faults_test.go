//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
)

func TestMissingProgramStopsNoOtherUnit(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
defaults:
  kind: managed
  start: {settle: 20ms}
  stop: {grace: 1s}
  restart: {backoff: {initial: 10ms, max: 50ms}, budget: {restarts: 1000000}}
units:
  good: {command: [sleep, "1000000"]}
  missing: {command: [./not-yet]}
  unknown: {command: [no-such-program-in-path]}
  folder: {command: [./folder]}
  plain: {command: [./hsu.yaml]}
  homeless: {command: [sleep, "1000000"], working_dir: not-yet-either}
`, "folder/keep": ""})
	m := s.start()
	s.await("good-0", "runs", up)
	for worker, reason := range map[string]string{
		"missing-0": "no such file or directory", "unknown-0": "no-such-program-in-path is not in PATH",
		"folder-0": "is a directory", "plain-0": "is not executable", "homeless-0": "not-yet-either",
	} {
		s.await(worker, "says why it does not run", func(w harness.Worker) bool {
			return w.PID == 0 && strings.Contains(w.Reason, reason)
		})
	}
	harness.WaitFor(t, "people are told why", func() error { // it is not said during an attempt
		r := s.CLI("status")
		if r.Code != 1 || !strings.Contains(r.Stdout, "no-such-program-in-path is not in PATH") {
			return fmt.Errorf("status: exit code %d, want 1 and the reason\n%s%s", r.Code, r.Stdout, r.Stderr)
		}
		return nil
	})
	// A corrected file works without a restart of the master.
	s.write("not-yet", "#!/bin/sh\nexec sleep 1000000\n")
	s.write("not-yet-either/keep", "")
	s.await("missing-0", "runs", up)
	s.await("homeless-0", "runs", up)
	m.Stop()
	s.WantNothingLeft()
}

func TestFixedPortOfAnotherProcessIsTakenAsSoonAsItIsFree(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  fixed:
    command: ["${UNIT}"]
    port: ${FIXED}
    stop: {grace: 3s}
    restart: {backoff: {initial: 1ms}, budget: {restarts: 2, within: 1h}}
`})
	port := harness.FreePort(t)
	release := s.listen(port)
	s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", port)}
	m := s.start()
	waiting := func(w harness.Worker) bool {
		return w.Status == "backoff" && strings.Contains(w.Reason, fmt.Sprintf("port %d is not free", port))
	}
	s.await("fixed-0", "says that the port is taken", waiting)
	harness.WaitFor(t, "more attempts than the budget allows restarts", func() error {
		if n := len(m.Logged("worker backoff")); n < 4 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	harness.WaitFor(t, "people are told why", func() error {
		if r := s.CLI("worker", "list"); !strings.Contains(r.Stdout, fmt.Sprintf("port %d is not free", port)) {
			return fmt.Errorf("worker list = %s", r.Stdout)
		}
		return nil
	})
	m.Kill()
	m = s.start()
	s.await("fixed-0", "still says so", waiting)
	release()
	w := s.await("fixed-0", "runs", harness.Worker.Running)
	if w.Port != port || w.Restarts != 0 || w.Incarnation != 1 {
		t.Errorf("fixed-0 = %+v, want port %d, the first incarnation and no restart", w, port)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A port that two units want is a fault of the file. If the second unit is not in the file when it is checked, the
// first one keeps the port.
func TestUnitsWithTheSamePortAreRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  first: {kind: managed, command: [sleep, "1"], port: 8080}
  second: {kind: managed, command: [sleep, "1"], port: 8080}
`})
	m := s.Launch(s.Program, nil)
	m.WantExit(2)
	if want := "hsu.yaml:4:56: units.second.port: 8080 is the port of unit first"; !strings.Contains(m.Log(), want) {
		t.Errorf("the fault is not told: %s", m.Log())
	}
}

func TestFileThatDisappearsUnderARunningMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units: {a: {kind: managed, command: [sleep, "1000000"], replicas: 2, start: {settle: 20ms}}}
`})
	m := s.start()
	before := s.awaitUp(2)
	text, err := os.ReadFile(s.path("hsu.yaml"))
	if err == nil {
		err = os.Remove(s.path("hsu.yaml"))
	}
	if err != nil {
		t.Fatal(err)
	}
	// The running master does not need it.
	s.KillWorker(before.Workers[0].PID)
	s.await(before.Workers[0].ID, "runs again", func(w harness.Worker) bool { return up(w) && w.Restarts == 1 })
	want := s.awaitUp(2).Instances()
	if r := s.CLI("reload"); r.Code == 0 || !strings.Contains(r.Stderr, "no such file") {
		t.Errorf("reload: exit code %d: %s", r.Code, r.Stderr)
	}
	m.Kill()
	// A master without it does nothing: it does not know which workers are wanted.
	m = s.Launch(s.Program, nil)
	m.WantExit(2)
	if got := len(s.Leaders()); got != 2 {
		t.Errorf("%d workers are left, want both", got)
	}
	s.write("hsu.yaml", string(text))
	m = s.start()
	s.awaitUp(2).WantInstances(t, want)
	m.Stop()
	s.WantNothingLeft()
}

// The file names programs that the master runs with its own rights.
func TestFileThatOthersCanWriteIsRefusedByARootMaster(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		harness.SkipOutsideCI(t, "is about a master of root")
	}
	s := newSite(t, map[string]string{
		"hsu.yaml": "include: [more.yaml]\n",
		"more.yaml": "units: {a: {kind: managed, command: [./program], start: {settle: 20ms}," +
			" restart: {backoff: {initial: 10ms, max: 50ms}, budget: {restarts: 1000000}}}}\n",
		"program": "#!/bin/sh\nexec sleep 1000000\n",
	})
	chmod := func(name string, mode os.FileMode) {
		if err := os.Chmod(s.path(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"hsu.yaml", "more.yaml", "."} {
		info, err := os.Stat(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		chmod(name, info.Mode().Perm()|0o022)
		m := s.Launch(s.Program, nil)
		m.WantExit(2)
		if !strings.Contains(m.Log(), "can be written by users other than root") {
			t.Errorf("%s with mode %s: %s", name, info.Mode()|0o022, m.Log())
		}
		chmod(name, info.Mode().Perm())
	}
	chmod("program", 0o722)
	m := s.start()
	s.await("a-0", "is not started", func(w harness.Worker) bool {
		return w.PID == 0 && strings.Contains(w.Reason, "can be written by users other than root")
	})
	chmod("program", 0o700)
	s.await("a-0", "runs", up)
	m.Stop()
	s.WantNothingLeft()
}
