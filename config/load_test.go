package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// exampleFile has each key at least once.
const exampleFile = "../examples/units/hsu-master.yaml"

func loadExample(t *testing.T) *File {
	t.Helper()
	text, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Load(mainFile, fakeHost(map[string]string{
		mainFile: string(text), "/run/secrets/token": "hunter2\n", "/etc/hsu/search.env": "REGION=eu\n",
		"/etc/hsu/conf.d/more.yaml": "units: {more: {command: [more], working_dir: /}}",
	}))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// mustLoad loads a file of the given text.
func mustLoad(t *testing.T, text string) *File {
	t.Helper()
	f, err := load(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The end-to-end tests run this example. This test needs none of its programs.
func TestExampleOfSixPrograms(t *testing.T) {
	text, err := os.ReadFile("../examples/six/hsu-master.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]Kind{}
	for _, u := range mustLoad(t, string(text)).Units {
		kinds[u.Name] = u.Kind
	}
	want := map[string]Kind{
		"greeter": Integrated, "shop": Managed, "cache": Managed, "pages": Managed, "chatter": Managed,
		"report": Managed,
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
}

func TestExampleHasEachKey(t *testing.T) {
	f := loadExample(t)
	used := map[string]bool{}
	var note func(prefix string, n *node)
	note = func(prefix string, n *node) {
		for _, e := range entriesOf(n) {
			name := e.name
			used[prefix+name] = true
			if name == "readiness" || name == "liveness" {
				name = "health" // they have the same keys
			}
			note(prefix+name+".", e.value)
		}
	}
	note("", f.main)
	for i := range f.units {
		note("units.*.", f.units[i])
	}
	var check func(prefix string, keys []key)
	check = func(prefix string, keys []key) {
		for _, k := range keys {
			if !used[prefix+k.name] {
				t.Errorf("%s is not in %s", prefix+k.name, exampleFile)
			}
			if k.name == "readiness" || k.name == "liveness" || k.name == "defaults" {
				continue
			}
			check(prefix+k.name+".", k.value.form().keys)
		}
	}
	check("", new(File).keys())
	check("units.*.", new(Unit).keys())
	check("service_options.acme.Search.", new(ServiceOptions).keys())
}

func TestExampleUnit(t *testing.T) {
	f := loadExample(t)
	umask := Umask(0o027)
	health := Health{
		Type: HealthAuto, Interval: 5 * time.Second, Timeout: 2 * time.Second, Failures: 3, Successes: 1,
		BusyLimit: 5 * time.Minute,
	}
	want := Unit{
		Name: "search", Kind: Integrated, Enabled: true, Replicas: 2,
		Program: Program{
			Command: []string{"/etc/hsu/bin/search", "--log-level", "info"}, WorkingDir: "/etc/hsu", User: "search",
			Group: "search", Umask: &umask, EnvFile: []string{"/etc/hsu/search.env"},
			Capabilities: Capabilities{Keep: true},
			Environment:  map[string]string{"LOG_LEVEL": "info", "TOKEN": "hunter2", "REGION": "eu"},
		},
		Routing:   Routing{Port: Port{Mode: PortAuto}, Services: []string{"acme.Search"}},
		DependsOn: []Dependency{{"db", Ready}},
		Health:    health, Readiness: health, Liveness: health,
		Start: Start{Timeout: 30 * time.Second, Settle: time.Second, Before: []string{"/etc/hsu/migrate.sh"}},
		Restart: Restart{
			Policy: RestartAlways, Backoff: Backoff{100 * time.Millisecond, 30 * time.Second, 2},
			Budget: Budget{10, 5 * time.Minute}, RetryFailed: 5 * time.Minute, SuccessCodes: []int{0},
		},
		Stop: Stop{"TERM", 10 * time.Second, []string{"/etc/hsu/bye.sh"}, []string{"/etc/hsu/cleanup.sh"}},
		Limits: Limits{
			OpenFiles: new(4096), Core: new(Size(0)), Memory: new(Size(512 << 20)), CPU: new(1.5), PIDs: new(200),
			Enforce: BestEffort,
		},
		MemoryRestart: 480 << 20,
		Log:           Log{LogToFile, 10 << 20, 7 * 24 * time.Hour, 5, true},
		Update:        Update{StopFirst, 1},
	}
	if diff := cmp.Diff(want, f.Units[0]); diff != "" {
		t.Errorf("unit search differs (-want +got):\n%s", diff)
	}
}

// The rotation that "defaults:" sets for the other units is no fault of a unit whose output goes to no file.
func TestRotationOfDefaultsIsForFiles(t *testing.T) {
	f := mustLoad(t, `
defaults: {kind: managed, command: [a], log: {max_size: 1MiB, keep: 3}}
units:
  journal: {log: {to: journal}}
  inherit: {log: {to: inherit, x-why: for the container}}
`)
	for i, want := range []LogTarget{LogToJournal, LogToInherit} {
		if u := f.Units[i]; u.Log.To != want || u.Log.Keep != 3 {
			t.Errorf("%s: %+v", u.Name, u.Log)
		}
	}
}

// A unit takes a value from its own map, else from "defaults:", else the default. Maps are merged, lists replaced.
func TestPrecedence(t *testing.T) {
	f := mustLoad(t, `
defaults:
  kind: managed
  command: [default, list]
  environment: {A: default, B: default}
  log: {keep: 3, max_size: 1MiB}
  restart: {success_codes: [0, 1], backoff: {initial: 1s}}
  discover: {port: 80}
  depends_on: {db: ready}
  stop: {after: [cleanup], grace: 1m}
  health: {type: tcp, address: "127.0.0.1:80", interval: 1m}
units:
  own:
    kind: integrated
    command: [own]
    environment: {B: own, C: own}
    log: {keep: 4}
    restart: {success_codes: [2]}
    health: {type: http, url: "http://127.0.0.1/"}
    depends_on: {other: started}
  other: {depends_on: , log: }
  db: {kind: unmanaged}
`)
	own, other, db := f.Units[0], f.Units[1], f.Units[2]
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"kind", own.Kind, Integrated},
		{"inherited kind", other.Kind, Managed},
		{"list", own.Program.Command, []string{"own"}},
		{"inherited list", other.Program.Command, []string{"default", "list"}},
		{"map", own.Program.Environment, map[string]string{"A": "default", "B": "own", "C": "own"}},
		{"nested", own.Log, Log{LogToFile, 1 << 20, 0, 4, true}},
		{"nested list", own.Restart.SuccessCodes, []int{2}},
		{"nested map", own.Restart.Backoff, Backoff{time.Second, 30 * time.Second, 2}},
		{"dependencies", own.DependsOn, []Dependency{{"other", Started}, {"db", Ready}}},
		{"blank map", other.Log.Keep, 3},
		{"blank dependencies", other.DependsOn, []Dependency{{"db", Ready}}},
		{"address of another type of check", own.Health.Address, ""},
		{"interval of a check", own.Health.Interval, time.Minute},
		{"inherited check", other.Health.Address, "127.0.0.1:80"},
		{"not for the kind", own.Discover, Discover{}},
		{"for the kind", db.Discover, Discover{Port: 80}},
		{"part for the kind", db.Stop, Stop{Signal: "TERM", Grace: time.Minute}},
		{"none for the kind", db.Program.Command, []string(nil)},
	} {
		if diff := cmp.Diff(check.want, check.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", check.what, diff)
		}
	}
}

// What follows from other values if the file does not say it.
func TestDerivedValues(t *testing.T) {
	f := mustLoad(t, `
defaults: {memory_restart: 1GiB}
units:
  placeholder: {kind: managed, command: [a, "--port={port}"]}
  variable: {kind: managed, command: [sh, -c, "a $$HSU_WORKER_PORT"]}
  environment: {kind: managed, command: [a], environment: {PORT: "{port}"}}
  before: {kind: managed, command: [a], start: {before: [b, "{port}"]}}
  stop: {kind: managed, command: [a], stop: {command: [sh, -c, "a $$HSU_WORKER_PORT"]}}
  after: {kind: managed, command: [a], stop: {after: [b, "{port}"]}}
  none: {kind: "${KIND:-managed}", command: [a]}
  job: {kind: managed, command: [a], schedule: 0 3 * * *, restart: {retry_failed: never}}
  split:
    command: [a]
    health: {interval: 1m}
    readiness: {type: tcp}
`)
	ports := map[string]PortMode{}
	for _, u := range f.Units {
		ports[u.Name] = u.Routing.Port.Mode
	}
	want := map[string]PortMode{
		"placeholder": PortAuto, "variable": PortAuto, "environment": PortAuto, "none": PortNone, "job": PortNone,
		"split": PortAuto, "before": PortAuto, "stop": PortAuto, "after": PortAuto,
	}
	if diff := cmp.Diff(want, ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if job := f.Units[7]; job.Restart.Policy != RestartNever || job.Restart.RetryFailed != 0 {
		t.Errorf("a unit with a schedule has %+v", job.Restart)
	}
	for i, want := range map[int]Size{0: 1 << 30, 7: 0} { // a unit with a schedule does not inherit it
		if got := f.Units[i].MemoryRestart; got != want {
			t.Errorf("memory_restart of %s is %d, want %d", f.Units[i].Name, got, want)
		}
	}
	split := f.Units[8]
	if split.Readiness.Type != HealthTCP || split.Readiness.Interval != 5*time.Second {
		t.Errorf("readiness is %+v, want a check of its own", split.Readiness)
	}
	if diff := cmp.Diff(split.Health, split.Liveness); diff != "" {
		t.Errorf("liveness is not health:\n%s", diff)
	}
}

// Where a text is wanted, the text of the file is kept.
func TestTextsAreKept(t *testing.T) {
	f := mustLoad(t, `
units:
  a:
    command: [0027, 1.10, yes, 0x1F, 1_000, .inf, 'it''s', "a\tb", two words]
    umask: 0027
    environment:
      LITERAL: |
        one
        two
      FOLDED: >-
        one
        two
`)
	u := f.Units[0]
	want := []string{"0027", "1.10", "yes", "0x1F", "1_000", ".inf", "it's", "a\tb", "two words"}
	if diff := cmp.Diff(want, u.Program.Command); diff != "" {
		t.Errorf("command (-want +got):\n%s", diff)
	}
	if *u.Program.Umask != 0o027 {
		t.Errorf("umask = %o", *u.Program.Umask)
	}
	variables := map[string]string{"LITERAL": "one\ntwo\n", "FOLDED": "one two"}
	if diff := cmp.Diff(variables, u.Program.Environment); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestSystemdService(t *testing.T) {
	for text, want := range map[string]string{
		"db": "db.service", "db.service": "db.service", "x@1.service": "x@1.service", "x@1": "x@1.service",
		`a\x2db`: `a\x2db.service`, "a:b_c.d-e": "a:b_c.d-e.service", "my.socketd": "my.socketd.service",
		strings.Repeat("a", 247): strings.Repeat("a", 247) + ".service",
		"multi-user.target":      "must be a service", "db.socket": "must be a service",
		"x@": "must be an instance such as x@1", "x@.service": "must be an instance such as x@1",
		".service": "must be the name of a service", "a/b": "must be the name", "a b": "must be the name",
		"@x": "must be the name", "a@b@c": "must be the name", "ä": "must be the name",
		strings.Repeat("a", 248): "must have at most 255 characters",
	} {
		f, err := load("units:\n  db: {kind: unmanaged, discover: {systemd: '" + text + "'}}\n")
		switch {
		case strings.HasPrefix(want, "must"):
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":2:") {
				t.Errorf("%s: %v, want %q", text, err, want)
			}
		case err != nil:
			t.Errorf("%s: %v", text, err)
		case f.Units[0].Discover.Systemd != want:
			t.Errorf("%s is %s, want %s", text, f.Units[0].Discover.Systemd, want)
		}
	}
}

func TestSubstitution(t *testing.T) {
	files := map[string]string{"/etc/hsu/token": "a{b}$c\r\n", "/run/token": "t\n\n"}
	for text, want := range map[string]string{
		"${HOME}/x":          "/home/me/x",
		"${HOME}${HOME}":     "/home/me/home/me",
		"${UNSET:-a b}":      "a b",
		"${UNSET:-}":         "",
		"${EMPTY}":           "",
		"${EMPTY:-x}":        "x",
		"$$HOME":             "$HOME",
		"$${HOME} {port}":    "${{HOME} {port}",
		"$$$$":               "$$",
		"$1 $? $( $":         "$1 $? $( $",
		"${file:token}":      "a{{b}$c",
		"${file:/run/token}": "t\n",
		"{port}-{{x}":        "{port}-{{x}",
	} {
		files[mainFile] = "units: {a: {command: [a], environment: {V: '" + text + "'}}}"
		f, err := Load(mainFile, fakeHost(files))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := f.Units[0].Program.Environment["V"]; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestDurationsAndSizes(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "7d": 7 * day, "1d12h": 36 * time.Hour,
		"100ms": 100 * time.Millisecond, "0.5s": 500 * time.Millisecond, "106751d": 106751 * day,
	} {
		if got, err := parseDuration(text); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]Size{
		"0": 0, "1B": 1, "1KiB": 1 << 10, "512MiB": 512 << 20, "10MB": 10_000_000, "1.5GiB": 3 << 29, "1kB": 1000,
		"8388607TiB": 8388607 << 40,
	} {
		if got, err := parseSize(text); got != want || err != nil {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
	}
}

func TestIncludedUnits(t *testing.T) {
	f, err := Load(mainFile, fakeHost(map[string]string{
		mainFile: "defaults: {replicas: 3}\n" +
			"include: [conf.d/*.yaml, hsu.yaml, conf.d/a.yaml, none/*]\n" +
			"units: {main: {command: [a]}}",
		"/etc/hsu/conf.d/b.yaml":   "units: {b: {command: [./b], replicas: 1}}",
		"/etc/hsu/conf.d/a.yaml":   "x-note: 1\nunits: {a: {command: [a], working_dir: data}}",
		"/etc/hsu/conf.d/c.yaml":   "",
		"/etc/hsu/conf.d/notes.md": "{",
	}))
	if err != nil {
		t.Fatal(err)
	}
	type brief struct {
		Name, Program, Dir string
		Replicas           int
	}
	var got []brief
	for _, u := range f.Units {
		got = append(got, brief{u.Name, u.Program.Command[0], u.Program.WorkingDir, u.Replicas})
	}
	want := []brief{
		{"main", "a", "/etc/hsu", 3},
		{"a", "a", "/etc/hsu/conf.d/data", 3},
		{"b", "/etc/hsu/conf.d/b", "/etc/hsu/conf.d", 1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
}

// Files that would keep the parser busy for minutes are refused before they are parsed.
func TestHostileFiles(t *testing.T) {
	many := func(n int, text string) string { return strings.Repeat(text, n) }
	for name, test := range map[string]struct{ text, want string }{
		"brackets":       {many(10_000, "["), "nested too deeply"},
		"braces":         {many(10_000, "{"), "nested too deeply"},
		"dashes":         {many(10_000, "- "), "nested too deeply"},
		"question marks": {many(10_000, "? "), "nested too deeply"},
		"keys":           {many(10_000, "a: b\n"), "too many keys"},
		"keys in braces": {"a: {" + many(10_000, "a: b,") + "}", "too many keys"},
		"no values":      {"a: {" + many(10_000, "a,") + "}", "too many keys"},
		"anchored keys":  {many(10_000, "&a k: x\n"), "too many keys"},
		"question keys":  {many(10_000, "? a\n: b\n"), "too many keys"},
		"large":          {many(maxSize, "#") + "\n", "more than 1 MiB: move units"},
		"workers": {
			"defaults: {command: [a], replicas: 1000}\nunits: {" + manyNames(11) + "}", "workers together",
		},
		"values": {
			"defaults: {command: [" + many(4_000, "a,") + "]}\nunits: {" + manyNames(200) + "}", "values together",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %.200v, want %q", err, test.want)
			}
		})
	}
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("u" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + ": , ")
	}
	return b.String()
}

func TestFaultsAreBounded(t *testing.T) {
	_, err := load("units: {a: {command: [a], " + manyNames(600) + "}}")
	faulty, ok := errors.AsType[*FaultError](err)
	if !ok || len(faulty.Faults) != maxFaults+1 {
		t.Errorf("the error is %v, want %d faults and a remark", err, maxFaults)
	}
}

func TestLoadOfAMissingFile(t *testing.T) {
	_, err := Load("/missing", fakeHost(nil))
	if _, faulty := errors.AsType[*FaultError](err); faulty || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the error is %v", err)
	}
}

// A folder of included files that is there and cannot be read is a fault, and one that is missing is not.
func TestIncludedFolderThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	path, host := filepath.Join(dir, "hsu.yaml"), ThisHost()
	host.CheckTrusted = func(string) error { return nil }
	if err := os.WriteFile(path, []byte("include: [conf.d/*.yaml]\nunits: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, host); err != nil {
		t.Errorf("without the folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "conf.d"), nil, 0o600); err != nil { // root can read any folder
		t.Fatal(err)
	}
	if _, err := Load(path, host); err == nil || !strings.Contains(err.Error(), "include: ") {
		t.Errorf("the error is %v, want one about the folder", err)
	}
}

// The output of WriteYAML has the same meaning as the file.
func TestShownFileIsTheSame(t *testing.T) {
	f := loadExample(t)
	f.Include = nil // its units are among the others
	var shown strings.Builder
	if err := f.WriteYAML(&shown); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(shown.String(), "hunter2") {
		t.Errorf("a secret is shown:\n%s", shown.String())
	}
	again, err := Load(mainFile, fakeHost(map[string]string{
		mainFile: shown.String(), "/run/secrets/token": "hunter2\n", "/etc/hsu/search.env": "REGION=eu\n",
	}))
	if err != nil {
		t.Fatalf("%v\n%s", err, shown.String())
	}
	if diff := cmp.Diff(f, again, cmpopts.IgnoreUnexported(File{}), sameZone); diff != "" {
		t.Errorf("the shown file differs (-want +got):\n%s", diff)
	}
}

// A shown unit whose output goes to no file has no keys for the rotation of one, which would be faults.
func TestShownOutputThatIsNoFile(t *testing.T) {
	for _, to := range []string{"journal", "inherit", "file"} {
		f := mustLoad(t, "defaults: {log: {keep: 2}}\n"+
			"units: {a: {command: [a], log: {to: "+to+"}}, b: {command: [b]}}\n")
		var shown strings.Builder
		if err := f.WriteYAML(&shown); err != nil {
			t.Fatal(err)
		}
		if again, err := load(shown.String()); err != nil || string(again.Units[0].Log.To) != to {
			t.Errorf("with %s it is not valid: %v\n%s", to, err, shown.String())
		}
		want := 1 // that of b
		if to == "file" {
			want = 2
		}
		if n := strings.Count(shown.String(), "keep: 2"); n != want {
			t.Errorf("with %s, keep is shown %d times, want %d:\n%s", to, n, want, shown.String())
		}
	}
}

var sameZone = cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })

func TestOrigins(t *testing.T) {
	f := mustLoad(t, `defaults: {log: {keep: 2}}
units:
  a:
    command: [a]
    environment: {HOME: "${HOME}"}
`)
	origins := map[string]string{}
	values := map[string]any{}
	for _, s := range f.Settings() {
		name := strings.Join(s.Path, ".")
		origins[name], values[name] = s.Origin(), s.Value
	}
	for name, want := range map[string]string{
		"listen":                   "default",
		"units.a.log.keep":         "defaults, /etc/hsu/hsu.yaml:1",
		"units.a.command":          "/etc/hsu/hsu.yaml:4",
		"units.a.environment.HOME": "/etc/hsu/hsu.yaml:5",
		"units.a.health.type":      "default",
		"units.a.discover.port":    "",
	} {
		if origins[name] != want {
			t.Errorf("%s is from %q, want %q", name, origins[name], want)
		}
	}
	if values["units.a.environment.HOME"] != "${HOME}" {
		t.Errorf("the value of a variable is shown: %v", values["units.a.environment.HOME"])
	}
}
