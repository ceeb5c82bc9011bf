//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// serving is a program that serves HTTP on the port of its argument, after a note.
const serving = `#!/bin/sh
note=$NOTES/$HSU_WORKER_ID
{ for arg; do echo "arg $arg"; done; env | sed "s/^/env /"; } >"$note.new"
mv "$note.new" "$note"
exec python3 -m http.server --bind 127.0.0.1 "$1"
`

// importFile imports a file of the site as its configuration.
func (s *site) importFile(format, name string) {
	s.T.Helper()
	imported := s.CLI("config", "import", "--from", format, s.path(name))
	if imported.Code != 0 || imported.Stderr != "" {
		s.T.Fatalf("import: exit code %d: %s", imported.Code, imported.Stderr)
	}
	s.write("hsu.yaml", imported.Stdout)
	if checked := s.CLI("config", "check", s.path("hsu.yaml")); checked.Code != 0 || checked.Stderr != "" {
		s.T.Fatalf("the imported file is not valid: %s\n%s", checked.Stderr, imported.Stdout)
	}
}

// A Procfile runs: the web process on the port that the master chooses, with the variables of .env.
func TestImportedProcfileRuns(t *testing.T) {
	s := newSite(t, map[string]string{
		"Procfile": "web: ./serve $PORT \"$GREETING\"\nClock-1: ./note {port} | cat\n",
		".env":     "GREETING='hello there'\n", "serve": serving, "note": noting,
	})
	s.environ = []string{"NOTES=" + s.Record}
	s.importFile("procfile", "Procfile")
	m := s.start()
	d := s.awaitUp(2)
	ports := map[string]int{}
	for _, w := range d.Workers {
		ports[w.ID] = w.Port
	}
	if ports["clock_1-0"] != 0 || ports["web-0"] == 0 {
		t.Fatalf("the ports are %v, want one for web-0 and none for clock_1-0", ports)
	}
	page := ""
	harness.WaitFor(t, "web-0 serves", func() (err error) {
		page, err = get(t.Context(), ports["web-0"], "/")
		return err
	})
	if !strings.Contains(page, "Procfile") {
		t.Errorf("the folder of web-0 has no Procfile: %s", page)
	}
	if n := s.awaitNote("web-0"); !cmp.Equal(n.Args, []string{fmt.Sprint(ports["web-0"]), "hello there"}) {
		t.Errorf("the arguments of web-0 are %q", n.Args)
	}
	if n := s.awaitNote("clock_1-0"); !cmp.Equal(n.Args, []string{"{port}"}) {
		t.Errorf("the arguments of clock_1-0 are %q", n.Args)
	}
	m.Stop()
	s.WantNothingLeft()
}

// A supervisord.conf runs: words, expansions, the environment, the folder, processes with numbers.
func TestImportedSupervisordRuns(t *testing.T) {
	s := newSite(t, map[string]string{
		"supervisord.conf": `[supervisord]
environment = SHARED="%(ENV_WORD)s {x}"
[program:note]
command = %(here)s/note '%(process_num)d' "a $WORD" {b}
    %(ENV_WORD)s  ; a comment
process_name = %(program_name)s_%(process_num)d
numprocs = 2
directory = data
environment = ME="%(program_name)s,%(process_num)s",OTHER='$x'
startsecs = 0
[program:off]
command = ./note
autostart = false
[include]
files = conf.d/*.conf
`,
		"conf.d/more.conf": "[program:more]\ncommand = note-in-path %(process_num)02d\n" +
			"process_name = m%(process_num)02d\nnumprocs = 2\nnumprocs_start = 7\nstopsignal = INT\n",
		"note": noting, "path/note-in-path": noting, "data/keep": "",
	})
	s.environ = []string{"NOTES=" + s.Record, "WORD=word", "PATH=" + s.path("path") + ":/usr/bin:/bin"}
	s.importFile("supervisord", "supervisord.conf")
	m := s.start()
	s.awaitUp(4)
	for replica := range 2 {
		worker := fmt.Sprint("note-", replica)
		n := s.awaitNote(worker)
		want := []string{fmt.Sprint(replica), "a $WORD", "{b}", "word"}
		if !cmp.Equal(want, n.Args) || n.Folder != s.path("data") {
			t.Errorf("%s has the arguments %q, want %q, in %s", worker, n.Args, want, n.Folder)
		}
		n.wantEnv(t, worker, map[string]string{
			"SHARED": "word {x}", "ME": fmt.Sprintf("note,%d", replica), "OTHER": "$x",
		})
	}
	for _, number := range []string{"7", "8"} {
		if n := s.awaitNote("more_" + number + "-0"); !cmp.Equal(n.Args, []string{"0" + number}) {
			t.Errorf("more_%s-0 has the arguments %q", number, n.Args)
		}
	}
	m.Stop()
	s.WantNothingLeft()
}

// A process-compose.yaml runs: the shell, variables and templates, replicas, a probe, restarts.
func TestImportedProcessComposeRuns(t *testing.T) {
	port := harness.FreePort(t)
	s := newSite(t, map[string]string{
		"process-compose.yaml": fmt.Sprintf(`version: "0.5"
environment: ["GLOBAL=${WORD}"]
vars: {WHO: world}
processes:
  noter:
    command: |
      cd data
      exec ../note "$$HOME_OF" {{.WHO}} ${WORD} '{x}' $SECRET {{.PC_REPLICA_NUM}}
    environment: ["HOME_OF=a b", "NUMBER=$PC_REPLICA_NUM"]
    replicas: 2
    availability: {restart: always}
  web:
    entrypoint: ["./serve", "%d"]
    readiness_probe:
      http_get: {port: %d, path: /serve}
      initial_delay_seconds: 1
      period_seconds: 1
    availability: {restart: on_failure, max_restarts: 3}
  once:
    command: "echo 'done' >once.txt; exit 3"
`, port, port),
		".env": "SECRET=hunter2\n", "note": noting, "serve": serving, "data/keep": "",
	})
	s.environ = []string{"NOTES=" + s.Record, "WORD=word"}
	s.importFile("process-compose", "process-compose.yaml")
	m := s.start()
	for replica := range 2 {
		worker := fmt.Sprint("noter-", replica)
		n := s.awaitNote(worker)
		want := []string{"a b", "world", "word", "{x}", "hunter2", fmt.Sprint(replica)}
		if !cmp.Equal(want, n.Args) || n.Folder != s.path("data") {
			t.Errorf("%s has the arguments %q, want %q, in %s", worker, n.Args, want, n.Folder)
		}
		n.wantEnv(t, worker, map[string]string{
			"GLOBAL": "word", "SECRET": "hunter2", "PC_REPLICA_NUM": fmt.Sprint(replica),
		})
	}
	web := s.await("web-0", "passes its probe", up)
	if _, err := get(context.Background(), port, "/serve"); err != nil {
		t.Errorf("web-0 %+v passes its probe without an answer: %v", web, err)
	}
	s.await("once-0", "has failed and is not restarted", func(w harness.Worker) bool { return w.Status == "failed" })
	m.Stop()
	s.WantNothingLeft()
}

// A file of procman runs: a gRPC server that gets its port, and a program.
func TestImportedProcmanRuns(t *testing.T) {
	s := newSite(t, map[string]string{
		"procman.yaml": fmt.Sprintf(`managed_processes:
  - id: echo
    type: integrated_managed
    management:
      integrated_managed:
        control:
          execution: {executable_path: %s, environment: ["A=1"]}
          graceful_timeout: 5s
        health_check_run_options: {interval: 1s, timeout: 1s}
  - id: note
    type: standard_managed
    management:
      standard_managed:
        metadata: {name: Note}
        control:
          execution: {executable_path: bin/note, args: ["{x}", "$y"], environment: {B: "2 3"}}
          restart_policy: unless-stopped
`, harness.Programs.Worker),
		"bin/note": noting,
	})
	s.environ = []string{"NOTES=" + s.Record}
	s.importFile("procman", "procman.yaml")
	m := s.start()
	s.awaitUp(2)
	n := s.awaitNote("note-0")
	if !cmp.Equal(n.Args, []string{"{x}", "$y"}) || n.Folder != s.path("bin") {
		t.Errorf("note-0 = %+v, want it started in the folder of its program", n)
	}
	n.wantEnv(t, "note-0", map[string]string{"B": "2 3"})
	s.Ask("hello")
	m.Stop()
	s.WantNothingLeft()
}
