//go:build e2e && linux

package units

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// timed is a program that notes when it starts and when it ends. With the argument "job" it ends as soon as the file
// $HSU_WORKER_ID.end exists, otherwise by SIGTERM, and then not before that file exists if the argument is "slow".
const timed = `#!/bin/sh
note() { echo "$1 $HSU_WORKER_ID $(date +%s%N)" >>"$NOTES/times"; }
end() {
	while [ "$1" = slow ] && ! [ -e "$HSU_WORKER_ID.end" ]; do sleep 0.02; done
	note end
	exit 0
}
trap 'end "$1"' TERM
note start
while ! [ "$1" = job ] || ! [ -e "$HSU_WORKER_ID.end" ]; do sleep 0.02; done
note end
`

const ordered = `
defaults:
  kind: managed
  environment: {NOTES: "${NOTES:-}"}
  start: {settle: 20ms}
  stop: {grace: 1m}
units:
  app: {command: [./timed, slow], depends_on: {db: ready, migrate: completed, cfg: started}}
  migrate: {command: [./timed, job], restart: {policy: on-failure}, depends_on: {db: ready}}
  db: {command: [./timed], health: {type: exec, command: [test, -e, db.ready], interval: 50ms}}
  cfg: {command: [./timed], health: {type: exec, command: [test, -e, cfg.ready], interval: 50ms}, start: {timeout: 1h}}
`

// moment is a line that the program timed has noted.
type moment struct {
	what string // such as "start db-0"
	at   time.Time
}

// moments returns the notes of all workers.
func (s *site) moments() (list []moment) {
	s.T.Helper()
	text, err := os.ReadFile(filepath.Join(s.Record, "times"))
	if err != nil {
		s.T.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		ns, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
		if err != nil || len(fields) != 3 {
			s.T.Fatalf("a note is %q", line)
		}
		list = append(list, moment{fields[0] + " " + fields[1], time.Unix(0, ns)})
	}
	return list
}

// wantOrder fails unless each of the moments was once, and before the next one.
func (s *site) wantOrder(whats ...string) {
	s.T.Helper()
	list := s.moments()
	var last moment
	for _, what := range whats {
		var at []moment
		for _, m := range list {
			if m.what == what {
				at = append(at, m)
			}
		}
		if len(at) != 1 {
			s.T.Errorf("%q was %d times, want once: %v", what, len(at), list)
			return
		}
		if at[0].at.Before(last.at) {
			s.T.Errorf("%q was before %q: %v", what, last.what, list)
		}
		last = at[0]
	}
}

func waitingFor(reason string) func(harness.Worker) bool {
	return func(w harness.Worker) bool {
		return w.Status == "waiting" && w.PID == 0 && strings.HasPrefix(w.Reason, reason)
	}
}

// The master is killed twice while workers wait, and once in the middle of its orderly stop.
func TestUnitsStartBehindTheirDependenciesAndStopBeforeThem(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"timed": timed, "hsu.yaml": ordered})
	s.environ = []string{"NOTES=" + s.Record}
	m := s.start() // SERVING does not wait for workers
	s.await("app-0", "waits for db", waitingFor("db: db-0 is starting: "))
	s.await("migrate-0", "waits for db", waitingFor("db: db-0 is starting: "))
	cfg := s.await("cfg-0", "starts", func(w harness.Worker) bool { return w.PID > 0 })
	db := s.await("db-0", "starts", func(w harness.Worker) bool { return w.PID > 0 })
	if r := s.CLI("status"); r.Code != 1 || !strings.Contains(r.Stdout, "app-0 is waiting: db: db-0 is starting") {
		t.Errorf("status: exit code %d, want 1 and the reason:\n%s", r.Code, r.Stdout)
	}
	r := s.CLI("state", "plan", "--config", s.path("hsu.yaml"))
	if !strings.Contains(r.Stdout, "it waited for its dependencies; it waits for db: db-0 is starting") {
		t.Errorf("state plan: %s%s", r.Stdout, r.Stderr)
	}
	m.Kill()

	m = s.start()
	s.await("app-0", "waits again", waitingFor("db: db-0 is starting: "))
	s.write("db.ready", "")
	s.await("app-0", "waits for migrate", waitingFor("migrate: migrate-0 is running"))
	migrate := s.await("migrate-0", "runs", up)
	m.Kill()

	m = s.start()
	s.await("app-0", "waits for migrate again", waitingFor("migrate: migrate-0 is running"))
	if w := s.Dump().Worker(t, "migrate-0"); w.PID != migrate.PID {
		t.Errorf("migrate-0 has PID %d, want %d", w.PID, migrate.PID)
	}
	s.write("migrate-0.end", "")
	app := s.await("app-0", "runs", up)
	if app.Restarts != 0 || app.Incarnation != 1 {
		t.Errorf("app-0 = %+v, want its first instance", app)
	}
	s.wantOrder("start db-0", "start migrate-0", "end migrate-0", "start app-0")
	s.wantOrder("start cfg-0", "start app-0")

	m.Signal(syscall.SIGTERM)
	s.await("app-0", "is being stopped", func(w harness.Worker) bool { return w.Status == "stopping" })
	for id, pid := range map[string]int{"db-0": db.PID, "cfg-0": cfg.PID} {
		if w := s.Dump().Worker(t, id); w.PID != pid || w.Status == "stopping" {
			t.Errorf("%s = %+v, want it as it is until app-0 has ended", id, w)
		}
	}
	m.Kill()
	s.write("app-0.end", "")
	m = s.start() // goes on stopping app-0, and starts it again
	s.await("app-0", "runs again", func(w harness.Worker) bool { return up(w) && w.Incarnation == 2 })
	for id, pid := range map[string]int{"db-0": db.PID, "cfg-0": cfg.PID} {
		if w := s.Dump().Worker(t, id); w.PID != pid {
			t.Errorf("%s = %+v, want PID %d", id, w, pid)
		}
	}
	m.Stop()
	var ends []string
	for _, moment := range s.moments() {
		if id, found := strings.CutPrefix(moment.what, "end "); found {
			ends = append(ends, id)
		}
	}
	slices.Sort(ends[3:])
	if want := []string{"migrate-0", "app-0", "app-0", "cfg-0", "db-0"}; !slices.Equal(ends, want) {
		t.Errorf("workers ended in the order %q, want %q", ends, want)
	}
	s.WantNothingLeft()
}

func TestFailedDependencyIsShownAndMendedByAReload(t *testing.T) {
	t.Parallel()
	file := func(code int, more string) string {
		return fmt.Sprintf(`
defaults: {kind: managed, start: {settle: 20ms}, stop: {grace: 1s}}
units:
  app: {command: [sleep, "1000000"], depends_on: {migrate: completed}}
  migrate: {command: [sh, -c, "exit %d"], restart: {policy: never}}
  top: {command: [sleep, "1000000"], depends_on: {app: ready}}
  off: {command: [sleep, "1000000"], enabled: false}
%s
`, code, more)
	}
	s := newSite(t, map[string]string{"hsu.yaml": file(3, "")})
	m := s.start()
	const why = "migrate: migrate-0 has failed: exited with code 3"
	s.await("app-0", "says why it waits in vain", waitingFor(why))
	s.await("top-0", "says why it waits in vain", waitingFor("app: app-0 is waiting: "+why))

	const more = `  more: {command: [sleep, "1000000"], depends_on: {migrate: completed}}`
	s.write("hsu.yaml", file(3, more))
	if r := s.CLI("reload"); r.Code != 1 || !strings.Contains(r.Stderr, "more-0 is waiting: "+why) {
		t.Errorf("reload: exit code %d: %s", r.Code, r.Stderr)
	}
	s.write("hsu.yaml", file(0, more+"\n  none: {command: [sleep, \"1000000\"], depends_on: {off: ready}}"))
	if r := s.CLI("reload", "--dry-run"); !strings.Contains(r.Stdout, "waits for off: it is disabled") {
		t.Errorf("reload --dry-run: %s%s", r.Stdout, r.Stderr)
	}
	if r := s.CLI("reload"); r.Code != 1 || !strings.Contains(r.Stderr, "none-0 is waiting: off: it is disabled") {
		t.Errorf("reload: exit code %d: %s", r.Code, r.Stderr)
	}
	for _, id := range []string{"app-0", "top-0", "more-0"} {
		s.await(id, "runs", up)
	}
	s.write("hsu.yaml", file(0, more))
	if r := s.CLI("reload"); r.Code != 0 {
		t.Errorf("reload: exit code %d: %s", r.Code, r.Stderr)
	}
	if r := s.CLI("status"); r.Code != 0 {
		t.Errorf("status: exit code %d, want 0: a completed unit is good\n%s", r.Code, r.Stdout)
	}
	m.Kill()
	m = s.start()
	before := s.Dump()
	if w := before.Worker(t, "migrate-0"); w.Status != "completed" || w.Incarnation != 2 {
		t.Errorf("migrate-0 = %+v, want it completed, and not run again", w)
	}
	m.Stop()
	s.WantNothingLeft()
}

// Each hop costs as much as a start: some commits and the settling time.
func TestChainOfAHundredUnits(t *testing.T) {
	t.Parallel()
	const units = 100
	var file strings.Builder
	file.WriteString("defaults: {kind: managed, start: {settle: 1ms}, stop: {grace: 10s}}\nunits:\n")
	for i := units - 1; i >= 0; i-- {
		fmt.Fprintf(&file, "  u%d: {command: [sleep, '1000000']", i)
		if i > 0 {
			fmt.Fprintf(&file, ", depends_on: {u%d: ready}", i-1)
		}
		file.WriteString("}\n")
	}
	s := newSite(t, map[string]string{"hsu.yaml": file.String()})
	began := time.Now()
	m := s.start()
	s.await(fmt.Sprintf("u%d-0", units-1), "runs", up)
	started := time.Since(began)
	s.awaitUp(units)
	began = time.Now()
	m.Stop()
	stopped := time.Since(began)
	t.Logf("%d units in a chain: started in %s, stopped in %s", units, started, stopped)
	const most = units * 200 * time.Millisecond // 10 to 20 times of what it takes on an idle machine
	if started > most || stopped > most {
		t.Errorf("started in %s, stopped in %s, want less than %s", started, stopped, most)
	}
	s.WantNothingLeft()
}
