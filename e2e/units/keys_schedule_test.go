//go:build e2e && linux

package units

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// lasting counts its starts, waits for a file, and exits with its first argument.
const lasting = `#!/bin/sh
echo start >>"$NOTES/$HSU_WORKER_ID"
until [ -e "$NOTES/release" ]; do sleep 0.05; done
exit "$1"
`

// waits reports whether the worker waits for its next due time.
func waits(w harness.Worker) bool { return w.Status == "scheduled" && w.PID == 0 }

// makeDue has a due time of the worker have come, at the given time, while no master runs.
func (s *site) makeDue(id string, at time.Time) {
	s.T.Helper()
	s.EditRecord(id, func(w *records.Worker) { w.Due.Next = at })
}

func TestKeysOfSchedules(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"exiting": exiting, "lasting": lasting,
		"hsu.yaml": `
timezone: Europe/Berlin
defaults: {environment: {NOTES: "${NOTES}"}}
units:
  minutely: {kind: managed, command: [./lasting, "7"], schedule: "* * * * *"}
  late: {kind: managed, command: [./exiting, "0"], schedule: "0 0 1 1 *", missed: run-once}
  skipped: {kind: managed, command: [./exiting, "0"], schedule: "0 0 1 1 *"}
`,
	})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	for _, id := range []string{"late-0", "skipped-0"} {
		s.await(id, "is scheduled", waits)
	}
	if r := s.CLI("status"); r.Code != 0 {
		t.Errorf("status: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	m.Kill()
	missed := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	for _, id := range []string{"late-0", "skipped-0"} {
		s.makeDue(id, missed)
	}
	plan, err := harness.Output(t, "env", append(s.environ, harness.Programs.Master, "state", "plan",
		"--state-dir", s.State, "--config", s.path("hsu.yaml"))...)
	if err != nil || !strings.Contains(plan, "late-0: run\n") ||
		!strings.Contains(plan, "skipped-0: keep-scheduled\n") {
		t.Errorf("the plan does not make up for the missed run of late-0 alone: %v\n%s", err, plan)
	}
	m = s.start()
	for id, want := range map[string]int{"late-0": 1, "skipped-0": 0} {
		s.await(id, "is scheduled after its missed run", func(w harness.Worker) bool {
			return waits(w) && w.LastDueAt.Equal(missed) && (want == 0 || w.LastExit != nil)
		})
		if n := s.starts(id); n != want {
			t.Errorf("%s was started %d times, want %d", id, n, want)
		}
	}
	if lines := m.Logged("worker run missed"); len(lines) != 1 || lines[0].Worker != "skipped-0" {
		t.Errorf("missed runs: %+v, want that of skipped-0", lines)
	}

	// The clock of the machine makes the other one due.
	if s.starts("minutely-0") == 0 {
		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
	}
	run := s.await("minutely-0", "runs", up)
	m.Kill()
	m = s.start()
	adopted := s.await("minutely-0", "is adopted", func(w harness.Worker) bool { return up(w) && w.Adopted })
	if adopted.PID != run.PID || adopted.Incarnation != run.Incarnation {
		t.Errorf("the run is %+v after a crash, was %+v", adopted, run)
	}
	if err := os.WriteFile(filepath.Join(s.Record, "release"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.await("minutely-0", "has failed and is scheduled", func(w harness.Worker) bool {
		return w.Incarnation > run.Incarnation || waits(w) && w.Reason != "" && w.LastExit != nil
	})
	if r := s.CLI("status"); r.Code != 1 || !strings.Contains(r.Stderr, "scheduled after a run that failed") {
		t.Errorf("status: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if n := s.starts("late-0"); n != 1 {
		t.Errorf("late-0 was started %d times, want its missed run only", n)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A master is killed at each moment that it passes from its start to the end of a run: the due time is run once at
// most, and the worker shows it if it was not run.
func TestDueTimeIsRunOnceAtMostWhateverKillsTheMaster(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"exiting": exiting,
		"hsu.yaml": `
units:
  late:
    kind: managed
    command: [./exiting, "0"]
    environment: {NOTES: "${NOTES}"}
    schedule: "0 0 1 1 *"
    missed: run-once
`,
	})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start()
	s.await("late-0", "is scheduled", waits)
	m.Kill()

	due := time.Now().Add(-24 * time.Hour).Truncate(time.Second)
	ran := func(w harness.Worker) bool { return waits(w) && w.LastDueAt.Equal(due) }
	trace := filepath.Join(s.Dir, "trace")
	s.makeDue("late-0", due)
	m = s.Launch(s.Program, append(s.environ, "HSU_CRASH_TRACE="+trace))
	s.await("late-0", "has run", ran)
	m.Kill()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	passed := map[string]int{}
	for name := range strings.Lines(string(text)) {
		passed[strings.TrimSpace(name)]++
	}
	if passed["after-intent-record"] != 1 || passed["after-fork"] != 1 {
		t.Fatalf("the master has passed %v, want one start", passed)
	}
	killed, repeated, cutOff := 0, 0, 0
	for _, name := range slices.Sorted(maps.Keys(passed)) {
		for nth := range passed[name] {
			moment := fmt.Sprintf("%s:%d", name, nth+1)
			due = due.Add(time.Minute)
			before := s.starts("late-0")
			s.makeDue("late-0", due)
			m := s.Launch(s.Program, append(s.environ, "HSU_CRASH_POINT="+moment))
			harness.WaitFor(t, moment+" or the end of the run", func() error {
				if d, err := s.TryDump(); m.Running() && (err != nil || !slices.ContainsFunc(d.Workers, ran)) {
					return fmt.Errorf("%+v, %w", d.Workers, err)
				}
				return nil
			})
			if !m.Running() {
				killed++
			}
			m.Kill()
			m = s.start()
			w := s.await("late-0", "is scheduled", ran)
			n := s.starts("late-0") - before
			lost := strings.Contains(w.Reason, "cut off")
			if n > 1 || n == 0 && !lost {
				t.Errorf("killed at %s: %d runs, and the worker is %+v", moment, n, w)
			}
			if n > 1 {
				repeated++
			}
			if n == 0 {
				cutOff++
			}
			m.Kill()
		}
	}
	t.Logf("the master was killed at %d moments: %d runs were repeated, %d cut off", killed, repeated, cutOff)
	if killed < len(passed)/2 || cutOff == 0 {
		t.Errorf("the master was killed at %d of %d moments, and %d runs were cut off", killed, len(passed), cutOff)
	}
	m = s.start()
	m.Stop()
	s.WantNothingLeft()
}
