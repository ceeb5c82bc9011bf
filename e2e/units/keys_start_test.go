//go:build e2e && linux

package units

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// noting is a program that notes how it was started, in a file of the folder $NOTES with the name of the worker.
const noting = `#!/bin/sh
note=$NOTES/$HSU_WORKER_ID
{
	echo "folder $(pwd)"
	echo "program $0"
	for arg; do echo "arg $arg"; done
	env | sed "s/^/env /"
} >"$note.new"
mv "$note.new" "$note"
exec sleep 1000000
`

// note is a worker's note.
type note struct {
	Folder, Program string
	Args            []string
	env             map[string]string
}

// awaitNote returns the note of a worker.
func (s *site) awaitNote(worker string) (n note) {
	s.T.Helper()
	var text []byte
	harness.WaitFor(s.T, worker+" has noted its start", func() (err error) {
		text, err = os.ReadFile(filepath.Join(s.Record, worker))
		return err
	})
	n.env = map[string]string{}
	for line := range strings.Lines(string(text)) {
		switch key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); key {
		case "folder":
			n.Folder = value
		case "program":
			n.Program = value
		case "arg":
			n.Args = append(n.Args, value)
		case "env":
			name, value, _ := strings.Cut(value, "=")
			n.env[name] = value
		}
	}
	return n
}

// wantEnv checks variables of the worker's environment.
func (n note) wantEnv(t *testing.T, worker string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name := range want {
		if value, set := n.env[name]; set {
			got[name] = value
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the environment of %s (-want +got):\n%s", worker, diff)
	}
}

func TestKeysOfAStart(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{
		"hsu.yaml": `
include: [conf.d/*.yaml]
defaults:
  kind: managed
  environment: {NOTES: "${NOTES}", LEVEL: default, FROM_DEFAULTS: "yes"}
  start: {settle: 20ms}
  stop: {grace: 3s}
x-program: &program [./bin/note, "{unit}", "{worker}", "{replica}", "{{port}", "$${WORD} $$ two words", ""]
units:
  path: {command: [note-in-path]}
  script:
    command: *program
    replicas: 2
    working_dir: data
    env_file: [first.env, second.env]
    environment:
      LEVEL: unit
      FROM_VARIABLE: a ${WORD} b
      FROM_DEFAULT: ${NO_SUCH_VARIABLE:-fallback}
      FROM_FILE: ${file:secret}
      ME: "{unit}/{worker}/{replica}"
  off: {command: [./bin/note], enabled: false}
  nobody: {command: [./bin/note], replicas: 0}
`,
		"conf.d/more.yaml": "units: {included: {command: [./note], environment: {LEVEL: included}}}\n",
		"conf.d/note":      noting, "bin/note": noting, "path/note-in-path": noting,
		"first.env":  "# a comment\nFIRST=1\nBOTH=1\nLEVEL=file\n",
		"second.env": "BOTH='two words'\nLITERAL=${WORD}\n",
		"secret":     "hunter2\n",
		"data/keep":  "",
	})
	s.environ = []string{"NOTES=" + s.Record, "WORD=word", "PATH=" + s.path("path") + ":" + os.Getenv("PATH")}
	m := s.start()
	d := s.awaitUp(4)

	if n := s.awaitNote("path-0"); n.Folder != s.folder || n.Program != s.path("path/note-in-path") {
		t.Errorf("path-0 = %+v, want the program in PATH, in the folder of the file", n)
	}
	for replica := range 2 {
		worker := fmt.Sprint("script-", replica)
		n := s.awaitNote(worker)
		want := note{
			Folder: s.path("data"), Program: s.path("bin/note"),
			Args: []string{"script", worker, fmt.Sprint(replica), "{port}", "${WORD} $ two words", ""},
		}
		if diff := cmp.Diff(want, n, cmp.AllowUnexported(note{}), cmp.FilterPath(func(p cmp.Path) bool {
			return p.Last().String() == ".env"
		}, cmp.Ignore())); diff != "" {
			t.Errorf("%s (-want +got):\n%s", worker, diff)
		}
		n.wantEnv(t, worker, map[string]string{
			"LEVEL": "unit", "FROM_DEFAULTS": "yes", "FROM_VARIABLE": "a word b", "FROM_DEFAULT": "fallback",
			"FROM_FILE": "hunter2", "ME": fmt.Sprintf("script/%s/%d", worker, replica),
			"FIRST": "1", "BOTH": "two words", "LITERAL": "${WORD}", "WORD": "word",
		})
	}
	n := s.awaitNote("included-0")
	if n.Folder != s.path("conf.d") || n.Program != s.path("conf.d/note") {
		t.Errorf("included-0 = %+v, want it started from the folder of its file", n)
	}
	n.wantEnv(t, "included-0", map[string]string{"LEVEL": "included", "FROM_DEFAULTS": "yes"})

	var ids []string
	for _, w := range d.Workers {
		ids = append(ids, w.ID)
		if w.Port != 0 {
			t.Errorf("%s has port %d, and nothing uses one", w.ID, w.Port)
		}
	}
	slices.Sort(ids)
	if want := []string{"included-0", "path-0", "script-0", "script-1"}; !slices.Equal(ids, want) {
		t.Errorf("the workers are %v, want %v", ids, want)
	}
	if shown := s.CLI("state", "dump", "--json").Stdout + m.Log(); strings.Contains(shown, "hunter2") {
		t.Errorf("a secret is shown:\n%s", shown)
	}
	m.Stop()
	s.WantNothingLeft()
}

// offered returns the workers that get the calls of each service.
func offered(d harness.Dump) map[string][]string {
	found := map[string][]string{}
	for _, service := range d.Services {
		for _, e := range service.Endpoints {
			if e.Healthy {
				found[service.Name] = append(found[service.Name], e.Worker)
			}
		}
		slices.Sort(found[service.Name])
	}
	return found
}

// callEcho calls the echo unit, for a user.
func callEcho(ctx context.Context, conn grpc.ClientConnInterface, message, user string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "user-id", user), harness.Patience)
	defer cancel()
	return echo.Call(ctx, conn, message)
}

// echoed returns the workers that have noted each of the messages.
func (s *site) echoed(messages ...string) map[string]map[string]bool {
	s.T.Helper()
	files, err := os.ReadDir(s.Record)
	if err != nil {
		s.T.Fatal(err)
	}
	found := map[string]map[string]bool{}
	for _, message := range messages {
		found[message] = map[string]bool{}
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(s.Record, f.Name()))
		if err != nil {
			s.T.Fatal(err)
		}
		worker, _, _ := strings.Cut(f.Name(), ".")
		for line := range strings.Lines(string(text)) {
			if workers := found[strings.TrimSuffix(line, "\n")]; workers != nil {
				workers[worker] = true
			}
		}
	}
	return found
}

func TestKeysOfPortsAndServices(t *testing.T) {
	t.Parallel()
	s := newSite(t, map[string]string{"hsu.yaml": `
service_options:
  proto.EchoService: {balance: affinity, key: user-id, max_message: 1KiB}
defaults: {stop: {grace: 3s}}
units:
  echo:
    command: ["${UNIT}", -as, echo, -notes, "${NOTES}", --port, "{port}"]
    replicas: 2
    services: [proto.EchoService]
  business: {command: ["${UNIT}"], port: "${FIXED}"}
  told: {command: ["${UNIT}", -as, told, -notes, "${NOTES}"]}
  bound: {command: ["${UNIT}", -as, told, -notes, "${NOTES}"], services: [proto.EchoService]}
  silent: {command: ["${UNIT}", -as, told], services: []}
`})
	fixed := harness.FreePort(t)
	s.environ = []string{"UNIT=" + harness.Programs.Unit, "NOTES=" + s.Record, fmt.Sprint("FIXED=", fixed)}
	m := s.start()
	d := s.awaitUp(6)
	want := map[string][]string{
		"proto.EchoService":       {"bound-0", "echo-0", "echo-1", "told-0"},
		"proto.MyBusinessService": {"business-0", "told-0"},
	}
	harness.WaitFor(t, "the services are found", func() error {
		if diff := cmp.Diff(want, offered(s.Dump())); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
	ports := map[int]bool{}
	for _, w := range d.Workers {
		if ports[w.Port] = true; w.Port == 0 || (w.Port == fixed) != (w.ID == "business-0") {
			t.Errorf("%s has port %d", w.ID, w.Port)
		}
		if err := harness.Listening(w.Port); err != nil {
			t.Errorf("%s: %v", w.ID, err)
		}
	}
	if len(ports) != 6 {
		t.Errorf("the ports are %v, want six", slices.Collect(maps.Keys(ports)))
	}
	s.Ask("of the unit with the fixed port")
	conn := s.Dial()
	if err := callEcho(t.Context(), conn, strings.Repeat("x", 1500), "u"); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message above max_message: %v, want RESOURCE_EXHAUSTED", err)
	}
	users := []string{"ada", "grace", "mary", "sophie"}
	for range 4 {
		for _, user := range users {
			if err := callEcho(t.Context(), conn, user, user); err != nil {
				t.Errorf("a call of %s: %v", user, err)
			}
		}
	}
	for user, workers := range s.echoed(users...) {
		if len(workers) != 1 {
			t.Errorf("the calls of %s went to %v, want one worker", user, slices.Collect(maps.Keys(workers)))
		}
	}
	m.Kill()
	m = s.start()
	s.awaitUp(6).WantInstances(t, d.Instances())
	m.Stop()
	s.WantNothingLeft()
}
