//go:build e2e && linux

package units

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// why returns what "why" prints about a worker, a unit, or all that is not well. It must fit a terminal.
func (s *site) why(names ...string) string {
	s.T.Helper()
	r := s.CLI(append([]string{"why"}, names...)...)
	if r.Code != 0 {
		s.T.Fatalf("why %q: %+v", names, r)
	}
	lines := strings.Split(r.Stdout, "\n")
	for _, line := range lines {
		if utf8.RuneCountInString(line) > 80 {
			s.T.Errorf("why %q: %d columns: %s", names, utf8.RuneCountInString(line), line)
		}
	}
	if len(lines) > 25 {
		s.T.Errorf("why %q: %d lines", names, len(lines))
	}
	return r.Stdout
}

// wantWhy waits until "why" prints the texts.
func (s *site) wantWhy(name string, texts ...string) {
	s.T.Helper()
	harness.WaitFor(s.T, "why "+name, func() error {
		said := s.why(name)
		for _, text := range texts {
			if !strings.Contains(strings.Join(strings.Fields(said), " "), text) {
				return fmt.Errorf("no %q in\n%s", text, said)
			}
		}
		return nil
	})
}

const troubled = `
defaults: {kind: managed, start: {settle: 20ms}}
units:
  crash:
    command: [sh, -c, "echo the password is $$PASSWORD; exit 3"]
    environment: {PASSWORD: "hunter2hunter2"}
    start: {settle: 10s}
    restart: {budget: {restarts: 2, within: 5m}, backoff: {initial: 10ms}}
  dependent: {command: [sleep, "1000000"], depends_on: {crash: ready}}
  sick:
    command: [sleep, "1000000"]
    health: {type: exec, command: [sh, -c, "echo no such path; exit 1"], interval: 1s}
    start: {timeout: 1m}
  task: {command: ["true"], restart: {policy: on-failure}}
  daily: {command: ["true"], schedule: "0 0 1 1 *"}
  other: {kind: unmanaged, discover: {pid_file: none.pid}}
  fine: {command: [sleep, "1000000"], replicas: 2}
`

// A program that goes to the background is told from one that has nothing to do.
func TestWhyOfAProgramInTheBackground(t *testing.T) {
	t.Parallel()
	const never = "restart: {budget: {restarts: 0, within: 5m}, policy: always}"
	s := newSite(t, map[string]string{"hsu.yaml": `
defaults: {kind: managed, start: {settle: 10s}}
units:
  daemon: {command: [sh, -c, "sleep 1000000 & exit 0"], ` + never + `}
  detached: {command: [sh, -c, "setsid sleep 1000000 3>&- 4>&- 5>&- & sleep 0.1"], ` + never + `}
  settled: {command: [sh, -c, "sleep 1000000 & sleep 0.5"], start: {settle: 20ms}, ` + never + `}
  task: {command: [sh, -c, "sleep 1000000 & exit 0"], restart: {policy: on-failure}}
  idle: {command: ["true"], ` + never + `}
  broken: {command: [sh, -c, "sleep 1000000 & exit 3"], ` + never + `}
`})
	m := s.start()
	const hint, help = "left other processes running, so it probably goes to the background",
		`do have it stay in the foreground (such as nginx -g "daemon off;", redis-server --daemonize no), then: `
	for _, name := range []string{"daemon", "detached", "settled"} {
		worker := name + "-0"
		s.wantWhy(name, worker+" is failed", "exited with code 0 and "+hint, help+"hsu-master worker restart "+worker)
	}
	s.wantWhy("task", "task-0 is completed", hint, help+"hsu-master worker start task-0")
	for _, name := range []string{"idle", "broken"} {
		s.wantWhy(name, name+"-0 is failed")
		if said := s.why(name); strings.Contains(said, "background") {
			t.Errorf("why %s:\n%s", name, said)
		}
	}
	m.Stop()
	s.WantNothingLeft()
}

// Each kind of trouble has its cause, what happens next, and what helps; without a master too.
func TestWhy(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": troubled})
	m := s.start()
	s.wantWhy("crash", "crash-0 is failed since", "restart budget 2/5m used up: exited with code 3",
		"next tries once more at", "do mend it, then: hsu-master worker restart crash-0",
		"2 of 2 restarts within 5m spent", "output | the password is")
	if said := s.why("crash-0"); strings.Contains(said, "hunter2") || strings.Count(said, "exited with code 3\n") < 4 {
		t.Errorf("why crash-0 shows a secret, or not the three exits:\n%s", said)
	}
	s.wantWhy("dependent-0", "dependent-0 is waiting", "why waits for crash: crash-0 has failed",
		"do hsu-master why crash")
	s.wantWhy("sick-0", "sick-0 is starting", "no such path", "if it is not ready by then",
		"health missed")
	s.wantWhy("task-0", "task-0 is completed", "is not started again: restart policy on-failure")
	s.wantWhy("daily-0", "daily-0 is scheduled", "next runs at", "hsu-master worker start daily-0 runs it now")
	s.wantWhy("other-0", "other-0 is absent", "none.pid", "is taken as soon as it is found")

	s.SignalWorker(s.await("fine-1", "runs", up).PID, syscall.SIGKILL)
	s.wantWhy("fine-1", "fine-1 is running", "killed by SIGKILL, which hsu-master did not send", "1 of 10 restarts")
	s.wantWhy("fine", "fine has 2 running", "more: hsu-master why fine-0")
	if said := s.why(); !strings.HasPrefix(said, "4 of 8 workers are not well:\n") {
		t.Errorf("why:\n%s", said)
	}
	if r := s.CLI("why", "crsh-0"); r.Code != 1 || !strings.Contains(r.Stderr, `did you mean "crash-0"?`) {
		t.Errorf("an unknown worker: %+v", r)
	}
	s.wantInspection("crash-0")

	m.Kill()
	said := s.why("crash-0")
	for _, text := range []string{
		"no master is running; as last recorded:", "crash-0 is failed since", "nothing, until a master runs",
		"exited with code 3", "hsu-master run",
	} {
		if !strings.Contains(said, text) {
			t.Errorf("without a master, no %q in:\n%s", text, said)
		}
	}
	if said := s.why(); strings.Contains(said, "fine-0") || !strings.Contains(said, "crash-0 is failed") {
		t.Errorf("why without a master:\n%s", said)
	}
	s.start().Stop()
	s.WantNothingLeft()
}

// wantInspection compares what "worker inspect" prints for people and in JSON.
func (s *site) wantInspection(id string) {
	s.T.Helper()
	text := s.CLI("worker", "inspect", id).Stdout
	for _, want := range []string{
		"\nunit in force\n", "environment       PASSWORD\n", "\nevents, the newest first\n",
		"\nexits, the newest first\n",
		"command line      ", "restart           always, 2 restarts within 5m",
	} {
		if !strings.Contains(text, want) {
			s.T.Errorf("worker inspect: no %q in:\n%s", want, text)
		}
	}
	printed := s.CLI("worker", "inspect", id, "--json").Stdout
	var shown struct {
		Source  string
		Workers []struct {
			Worker   harness.Worker
			Exits    []struct{ Reason string }
			Events   []struct{ Type string }
			Settings map[string]string
			Policy   struct{ Spent int }
		}
	}
	if err := json.Unmarshal([]byte(printed), &shown); err != nil {
		s.T.Fatal(err)
	}
	w := shown.Workers[0]
	if shown.Source != "live" || w.Worker.ID != id || len(w.Exits) != 3 || w.Exits[0].Reason != "exited with code 3" ||
		len(w.Events) != 9 || w.Events[0].Type != "failed" || w.Settings["environment"] != "PASSWORD" ||
		w.Policy.Spent != 2 {
		s.T.Errorf("worker inspect --json: %+v", shown)
	}
	if strings.Contains(text+printed, "hunter2") {
		s.T.Errorf("worker inspect shows a secret:\n%s\n%s", text, printed)
	}
}

// Inspect shows a living worker: its processes, its port, the changes since its start.
func TestInspectOfAnOutdatedWorker(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"program":  "#!/bin/sh\nsleep 1000000 & exec sleep 1000000\n",
		"hsu.yaml": "units:\n  web: {kind: managed, command: [./program], start: {settle: 20ms}}\n",
	})
	m := s.start()
	w := s.await("web-0", "runs", up)
	if said := s.why(); said != "all is well: 1 running\n" {
		t.Errorf("why: %q", said)
	}
	m.Kill()
	s.write("program", "#!/bin/sh\nexec sleep 2000000\n")
	m = s.start()
	s.await("web-0", "is outdated", func(w harness.Worker) bool { return w.Outdated })
	s.wantWhy("web-0", "it is well; outdated: executable", "hsu-master worker restart web-0")
	text := s.CLI("worker", "inspect", "web-0").Stdout
	if !strings.Contains(text, fmt.Sprintf("  pid               %d\n", w.PID)) ||
		!strings.Contains(text, "outdated          executable\n") {
		t.Errorf("worker inspect:\n%s", text)
	}
	_, family, _ := strings.Cut(text, "family ")
	family, _, _ = strings.Cut(family, "\n")
	if pids := strings.Fields(family); len(pids) != 2 || pids[0] != fmt.Sprint(w.PID) {
		t.Errorf("family %q, want %d and its child", family, w.PID)
	}
	m.Stop()
	s.WantNothingLeft()
}
