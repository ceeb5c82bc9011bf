//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// reload runs the command and checks its exit code and its output.
func (s *site) reload(code int, output string, flags ...string) {
	s.T.Helper()
	r := s.CLI(append([]string{"reload"}, flags...)...)
	if r.Code != code || !strings.Contains(r.Stdout+r.Stderr, output) {
		s.T.Fatalf("reload %q: exit code %d, %q, %q; want %d with %q", flags, r.Code, r.Stdout, r.Stderr, code, output)
	}
}

// The port is free for the new unit when the worker of the old one has ended, and not before.
func TestRenamedUnitKeepsItsFixedPort(t *testing.T) {
	t.Parallel()
	const text = `
units:
  NAME:
    command: ["${UNIT}"]
    port: ${FIXED}
`
	s := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "NAME", "before")})
	port := harness.FreePort(t)
	s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", port)}
	m := s.start()
	s.await("before-0", "runs", harness.Worker.Running)
	s.write("hsu.yaml", strings.ReplaceAll(text, "NAME", "after"))
	s.reload(0, "after: start 1 worker: new unit\nbefore: stop and forget 1 worker: unit removed\n")
	w := s.await("after-0", "runs", harness.Worker.Running)
	if d := s.Dump(); w.Port != port || w.Restarts != 0 || w.Incarnation != 1 || len(d.Workers) != 1 {
		t.Errorf("the workers are %+v, want after-0 alone, on port %d, started once", d.Workers, port)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A master that is killed while a port is passed on leaves a state from which the next one completes that.
func TestPassingOnAPortCutOffByACrashIsCompleted(t *testing.T) {
	t.Parallel()
	const text = `
units:
  NAME:
    command: ["${UNIT}"]
    port: ${FIXED}
    restart: {backoff: {max: 100ms}}
`
	points := []crashpoint.Point{
		crashpoint.UnitRecord, crashpoint.StopRecord, crashpoint.Removal, crashpoint.Port, crashpoint.IntentRecord,
	}
	for _, moment := range harness.Moments(1, points...) {
		s := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "NAME", "before")})
		port := harness.FreePort(t)
		s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", port)}
		m := s.start()
		s.await("before-0", "runs", harness.Worker.Running) // so that the next master passes none of the points yet
		m.Kill()
		m = s.Launch(s.Program, append(s.environ, "HSU_CRASH_POINT="+moment))
		m.AwaitServing()
		s.await("before-0", "runs", harness.Worker.Running)
		s.write("hsu.yaml", strings.ReplaceAll(text, "NAME", "after"))
		m.Signal(syscall.SIGHUP)
		m.WantExit(-1)
		m = s.start()
		w := s.await("after-0", "runs", harness.Worker.Running)
		if w.Port != port || w.Restarts != 0 {
			t.Errorf("%s: after-0 is %+v, want it on port %d at no cost", moment, w, port)
		}
		harness.WaitFor(t, moment+": before-0 is gone", func() error {
			if d := s.Dump(); len(d.Workers) != 1 {
				return fmt.Errorf("the workers are %+v", d.Workers)
			}
			return nil
		})
		s.WantNoTwin(s.Dump())
		m.Stop()
		s.WantNothingLeft()
	}
}

// A unit that is put back while its worker is being stopped is started then, also if a signal asks for that.
func TestReloadWaitsForAWorkerThatIsWantedAgain(t *testing.T) {
	t.Parallel()
	const slow = `
units:
  kept: {kind: managed, command: [sleep, "1000"], start: {settle: 20ms}}
  slow:
    kind: managed
    command: [sh, -c, "trap : TERM; while :; do sleep 0.1; done"]
    start: {settle: 20ms}
    stop: {grace: 4s}
`
	without, _, _ := strings.Cut(slow, "  slow:")
	s := newSite(t, map[string]string{"hsu.yaml": slow})
	m := s.start()
	before := s.awaitUp(2)
	s.write("hsu.yaml", without)
	s.reload(1, "the reload is not done in time, the master goes on with it: it waits for slow-0 (stopping)",
		"--timeout", "2s")
	s.write("hsu.yaml", slow)
	m.Signal(syscall.SIGHUP)
	w := s.await("slow-0", "runs again", func(w harness.Worker) bool {
		return up(w) && w.PID != before.Worker(t, "slow-0").PID
	})
	if kept := s.Dump().Worker(t, "kept-0"); kept.PID != before.Worker(t, "kept-0").PID || w.Restarts != 0 {
		t.Errorf("kept-0 is %+v, slow-0 is %+v, want the first untouched and the second without restarts", kept, w)
	}
	if log := m.Log(); strings.Contains(log, "reload failed") {
		t.Errorf("the signal's reload failed:\n%s", log)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A command that is missing after a reload does not touch the living worker, and the exit code says so.
func TestReloadReportsAMissingCommand(t *testing.T) {
	t.Parallel()
	const program = "#!/bin/sh\nexec sleep 1000\n"
	s := newSite(t, map[string]string{
		"program": program,
		"hsu.yaml": `
units: {a: {kind: managed, command: [./program], start: {settle: 20ms}}}
`,
	})
	m := s.start()
	before := s.awaitUp(1).Instances()
	if err := os.Remove(s.path("program")); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{"--dry-run"}, nil} {
		s.reload(1, "a: cannot start 1 worker: ", flags...)
		s.reload(1, "hsu-master: error: workers of a cannot be started\n", flags...)
	}
	s.awaitUp(1).WantInstances(t, before)
	s.write("program", program)
	s.reload(0, "")
	m.Stop()
	s.WantNothingLeft()
}

// So it is with a folder, and a master that finds none starts the other units.
func TestReloadReportsAMissingWorkingFolder(t *testing.T) {
	t.Parallel()
	const text = `
units:
  a: {kind: managed, command: [sleep, "1000"], start: {settle: 20ms}}
  b: {kind: managed, command: [sleep, "1000"], start: {settle: 20ms}, working_dir: "%s"}
`
	s := newSite(t, map[string]string{"hsu.yaml": fmt.Sprintf(text, "."), "new/keep": ""})
	m := s.start()
	before := s.awaitUp(2).Instances()
	s.write("hsu.yaml", fmt.Sprintf(text, "missing"))
	for _, flags := range [][]string{{"--dry-run"}, nil} {
		s.reload(1, "b: cannot start 1 worker: working folder: there is no folder "+s.path("missing"), flags...)
	}
	s.awaitUp(2).WantInstances(t, before)
	m.Stop()
	m = s.start()
	harness.WaitFor(t, "a is up, and b is not", func() error {
		up := map[string]bool{}
		for _, w := range s.Dump().Workers {
			up[w.ID] = w.Status == "running"
		}
		if !up["a-0"] || up["b-0"] {
			return fmt.Errorf("the running workers are %v", up)
		}
		return nil
	})
	s.write("hsu.yaml", fmt.Sprintf(text, "new"))
	s.reload(0, "")
	s.awaitUp(2)
	m.Stop()
	s.WantNothingLeft()
}

// enabled: false is the decision of the file.
func TestDisabledUnitIsNotScaled(t *testing.T) {
	t.Parallel()
	const text = `
units: {off: {kind: managed, command: [sleep, "1000"], start: {settle: 20ms}, enabled: false}}
`
	s := newSite(t, map[string]string{"hsu.yaml": text})
	m := s.start()
	r := s.CLI("worker", "scale", "off=2")
	if r.Code != 1 || !strings.Contains(r.Stderr, `the unit is disabled: "off"`) ||
		!strings.Contains(r.Stderr, `hint: enable it in the file, then "hsu-master reload"`) {
		t.Errorf("worker scale of a disabled unit: %+v", r)
	}
	for command, want := range map[string]string{
		"unit list":        "off   managed  no       0 of 0",
		"why off":          "if its file disables it",
		"worker start off": "unit off is disabled: enable it with \"unit enable\", or in the file if that disables it",
	} {
		if r := s.CLI(strings.Fields(command)...); !strings.Contains(r.Stdout+r.Stderr, want) {
			t.Errorf("%s: %+v, want %q", command, r, want)
		}
	}
	if d := s.Dump(); len(d.Workers) != 0 {
		t.Errorf("the workers are %+v, want none", d.Workers)
	}
	s.write("hsu.yaml", strings.Replace(text, "enabled: false", "enabled: true", 1))
	s.reload(0, "off: start 1 worker: replicas 0 to 1\n")
	s.awaitUp(1)
	if r := s.CLI("worker", "scale", "off=2"); r.Code != 0 {
		t.Errorf("worker scale of the enabled unit: %+v", r)
	}
	s.awaitUp(2)
	s.write("hsu.yaml", text) // the scale does not outlive this
	s.reload(0, "off: stop and forget 2 workers: replicas 2 to 0\n")
	s.AwaitWorkers(0, "exist", up)
	m.Stop()
	for command, want := range map[string]string{
		"unit list": "off   managed  -        0 of 0", // the record does not say whether the file disables it
		"why off":   "its configuration says replicas: 0 or enabled: false",
	} {
		if r := s.CLI(strings.Fields(command)...); !strings.Contains(r.Stdout, want) {
			t.Errorf("%s without a master: %+v, want %q", command, r, want)
		}
	}
	s.WantNothingLeft()
}

// The delay of the policy also bounds the retries while another process has the port.
func TestFixedPortIsTriedWithinTheLongestDelay(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
units:
  fixed:
    command: ["${UNIT}"]
    port: ${FIXED}
    restart: {backoff: {initial: 10ms, max: 50ms}}
`})
	port := harness.FreePort(t)
	s.listen(port)
	s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", port)}
	m := s.start()
	// The first and then each second, fourth, eighth try is logged. Without the bound 64 tries take five minutes.
	harness.WaitFor(t, "64 tries", func() error {
		if n := len(m.Logged("worker backoff")); n < 7 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	m.Stop()
	s.WantNothingLeft()
}

// wrongCheck is a unit that fails because of the address of its check, with a format for retry_failed.
const wrongCheck = `
units:
  a:
    kind: managed
    command: ["${UNIT}", --port, "{port}"]
    port: ${FIXED}
    health: {type: tcp, address: "127.0.0.1:PORT", interval: 1s, timeout: 1s}
    start: {timeout: 500ms}
    restart: {budget: {restarts: 0}, retry_failed: %s}
`

// A worker has failed because of the address of its check. When that is corrected, a reload has it tried at once.
func TestReloadTriesAWorkerWhoseCheckIsMended(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(wrongCheck, "1h")
	s := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "PORT", "1")})
	s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", harness.FreePort(t))}
	m := s.start()
	s.await("a-0", "has failed", func(w harness.Worker) bool { return w.Status == "failed" })
	s.reload(0, "nothing has changed")
	s.await("a-0", "is still failed", func(w harness.Worker) bool { return w.Status == "failed" && w.Incarnation == 1 })
	m.Kill()
	m = s.start()
	s.await("a-0", "is still failed", func(w harness.Worker) bool { return w.Status == "failed" && w.Incarnation == 1 })
	mended := strings.ReplaceAll(text, "PORT", "{port}")
	s.write("hsu.yaml", strings.ReplaceAll(mended, "500ms", "30s"))
	s.reload(0, "a: apply to 1 worker: health, start\na: try again 1 worker: health, start")
	s.await("a-0", "runs", func(w harness.Worker) bool { return up(w) && w.Incarnation == 2 })
	m.Stop()
	s.WantNothingLeft()
}

// A reload mends the check of a worker that has failed, and the master is killed before it has tried the worker again.
// The next master does so.
func TestTryOfAMendedWorkerCutOffByACrashIsMade(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(wrongCheck, "never")
	moments := harness.Moments(1, crashpoint.IntentRecord, crashpoint.Fork)
	for _, moment := range append(moments, crashpoint.UnitRecord.After()) {
		s := newSite(t, map[string]string{"hsu.yaml": strings.ReplaceAll(text, "PORT", "1")})
		s.environ = []string{"UNIT=" + harness.Programs.Unit, fmt.Sprint("FIXED=", harness.FreePort(t))}
		m := s.start()
		s.await("a-0", "has failed", func(w harness.Worker) bool { return w.Status == "failed" })
		m.Kill()
		m = s.Launch(s.Program, append(s.environ, "HSU_CRASH_POINT="+moment))
		m.AwaitServing()
		mended := strings.ReplaceAll(text, "PORT", "{port}")
		s.write("hsu.yaml", strings.ReplaceAll(mended, "500ms", "30s"))
		m.Signal(syscall.SIGHUP)
		m.WantExit(-1)
		m = s.start()
		s.await("a-0", moment+": runs", func(w harness.Worker) bool { return up(w) && w.Restarts == 0 })
		s.WantNoTwin(s.Dump())
		m.Stop()
		s.WantNothingLeft()
	}
}
