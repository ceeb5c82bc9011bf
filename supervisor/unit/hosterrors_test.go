package unit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/probe"
)

func TestHostErrors(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	missing := dir + "/no"
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(program string) probe.Spec {
		return probe.Spec{Type: probe.TypeExec, Command: []string{program, missing}}
	}
	for name, test := range map[string]struct {
		unit            Spec
		start, commands []string
	}{
		"none":      {unit: Spec{Path: self, Dir: dir}},
		"no folder": {unit: Spec{Path: self}},
		"missing": {
			unit: Spec{Path: self, Dir: missing}, start: []string{"working_dir: there is no folder " + missing + " "},
		},
		"file": {unit: Spec{Path: self, Dir: file}, start: []string{"working_dir: " + file + " is no folder"}},
		"below file": {
			unit: Spec{Path: self, Dir: file + "/no"}, start: []string{"working_dir: " + file + "/no is no folder"},
		},
		"placeholder": {
			unit: Spec{Path: self, Dir: dir + "/{unit}"}, start: []string{"working_dir: there is no folder "},
		},
		"home": {
			unit:  Spec{Path: self, Dir: dir + "/~/app"},
			start: []string{"working_dir: there is no folder " + dir + "/~/app on this host: ~ is not replaced"},
		},
		"both": {
			unit: Spec{Path: missing, Dir: missing}, start: []string{"command: stat ", "working_dir: there is "},
		},
		"before": {
			unit:  Spec{Path: self, Start: Start{Before: []string{file, "a"}}},
			start: []string{"start.before: " + file + " is not executable"},
		},
		"before of each worker": {
			unit: Spec{Name: "a", Path: self, Start: Start{Before: []string{dir + "/{worker}"}}},
		},
		"before of each replica": {
			unit: Spec{Name: "a", Path: self, Start: Start{Before: []string{dir + "/no-{replica}"}}},
		},
		"before of the unit": {
			unit:  Spec{Name: "a", Path: self, Start: Start{Before: []string{dir + "/{unit}"}}},
			start: []string{"start.before: stat " + dir + "/a: no such file"},
		},
		"stop": {
			unit: Spec{Path: self, Stop: Stop{Command: []string{"no-such-program"}, After: []string{missing}}},
			commands: []string{
				"stop.command: no-such-program is not in PATH: install it",
				"stop.after: stat " + missing + ": no such file or directory: name an executable",
			},
		},
		"hooks that are there": {
			unit: Spec{
				Path: self, Start: Start{Before: []string{self}},
				Stop:   Stop{Command: []string{self}, After: []string{self}},
				Health: Health{Readiness: check(self), Liveness: check(self)},
			},
		},
		"placeholder of the program": {
			unit:     Spec{Name: "a", Path: self, Stop: Stop{After: []string{dir + "/{worker}{{"}}},
			commands: []string{"stop.after: stat " + dir + "/a-0{: no such file"},
		},
		"port in the program": {unit: Spec{Path: self, Stop: Stop{After: []string{dir + "/{port}"}}}},
		"one check": {
			unit:     Spec{Path: self, Health: Health{Readiness: check(missing), Liveness: check(missing)}},
			commands: []string{"readiness.command: stat " + missing},
		},
		"two checks": {
			unit:     Spec{Path: self, Health: Health{Readiness: check(dir), Liveness: check(missing)}},
			commands: []string{"readiness.command: " + dir + " is a directory", "liveness.command: stat " + missing},
		},
		"check in the folder": {
			unit:     Spec{Path: self, Dir: dir, Health: Health{Readiness: check("./file")}},
			commands: []string{"readiness.command: " + file + " is not executable"},
		},
		"another type of check": {
			unit: Spec{
				Path: self, Health: Health{Readiness: probe.Spec{Type: probe.TypeTCP, Command: []string{missing}}},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			compareHostErrors(t, "start", test.unit.StartErrors(), test.start)
			compareHostErrors(t, "commands", test.unit.CommandErrors(), test.commands)
		})
	}
}

// compareHostErrors reports errors that do not begin with the wanted texts, of which each begins with a key.
func compareHostErrors(t *testing.T, what string, got []HostError, want []string) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(o HostError, begin string) bool {
		return strings.HasPrefix(o.Key+": "+o.Err.Error(), begin)
	}) {
		t.Errorf("%s: %v, want %q", what, got, want)
	}
}
