package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDefaultsAreTheCommittedUnits(t *testing.T) {
	spelledOut := Options{
		ExecStart:    []string{"/usr/local/bin/hsu-master", "run"},
		ExecReload:   []string{"/usr/local/bin/hsu-master", "reload"},
		ListenStream: "127.0.0.1:50051",
		StopGrace:    10 * time.Second,
		User:         "root",
	}
	for name, o := range map[string]Options{"zero value": {}, "spelled out": spelledOut} {
		t.Run(name, func(t *testing.T) {
			for file, render := range map[string]func(Options) (string, error){
				o.ServiceName(): Service, o.SocketName(): Socket,
			} {
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				got, err := render(o)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got); diff != "" {
					t.Errorf("%s differs from the committed file (-committed +rendered):\n%s", file, diff)
				}
			}
		})
	}
}

// A name changes the names of the units and of the folders, and nothing else.
func TestNameOfAnInstallation(t *testing.T) {
	o := Options{Name: "hsu-two.b"}
	if o.ServiceName() != "hsu-two.b.service" || o.SocketName() != "hsu-two.b.socket" {
		t.Errorf("its units are %s and %s", o.ServiceName(), o.SocketName())
	}
	for render, want := range map[*func(Options) (string, error)][]string{
		new(Service): {
			"Description=HSU master hsu-two.b: starts, watches and routes to worker processes",
			"Requires=hsu-two.b.socket", "After=hsu-two.b.socket network.target hsu.slice",
			"SyslogIdentifier=hsu-two.b",
			"Sockets=hsu-two.b.socket", "EnvironmentFile=-/etc/default/hsu-two.b", "StateDirectory=hsu-two.b",
			"RuntimeDirectory=hsu-two.b", "Also=hsu-two.b.socket",
		},
		new(Socket): {"Description=HSU master hsu-two.b, listener"},
	} {
		plain, err := (*render)(Options{})
		named, namedErr := (*render)(o)
		if err != nil || namedErr != nil {
			t.Fatal(err, namedErr)
		}
		if !IsOurs(named) || !IsOurs(plain) {
			t.Errorf("it is not taken for one of ours:\n%s", named)
		}
		before := strings.Split(plain, "\n")
		var got []string
		for i, line := range strings.Split(named, "\n") {
			if line != before[i] && !strings.HasPrefix(line, "#") {
				got = append(got, line)
			}
			if strings.Contains(line, "hsu-master.service") || strings.Contains(line, "hsu-master.socket") {
				t.Errorf("%q is of the default name", line)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("settings with the name (-want +got):\n%s", diff)
		}
	}
	if IsOurs("[Service]\nExecStart=/usr/bin/db\n") {
		t.Error("the unit of another program is taken for one of ours")
	}
	for _, name := range []string{
		"", ".a", "-a", "a b", "a/b", "a@b", "a:b", "ä", "a.socket", "a.scope", strings.Repeat("a", 65),
	} {
		if err := CheckName(name); err == nil {
			t.Errorf("%q is taken for a name", name)
		}
	}
	if _, err := Service(Options{Name: "a\nb"}); err == nil {
		t.Error("a name with a line break is rendered")
	}
}

func TestRights(t *testing.T) {
	const filter = "\nSystemCallFilter="
	for want, r := range map[string]Rights{
		"~@privileged @resources": {},
		"~@resources":             {Privileged: true, Capabilities: []string{"CAP_SETUID"}},
		"~@privileged":            {Resources: true},
		"":                        {Privileged: true, Resources: true, OpenFiles: 1048576, Enter: true},
	} {
		unit, err := Service(Options{Rights: r})
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(unit, filter+"@system-service")
		got := ""
		if strings.HasPrefix(rest, filter) {
			got = get(rest, "SystemCallFilter")
		}
		if got != want {
			t.Errorf("%+v: the filter is %q, want %q", r, got, want)
		}
		if got := get(unit, "CapabilityBoundingSet"); got != strings.Join(r.Capabilities, " ") {
			t.Errorf("%+v: CapabilityBoundingSet=%s", r, got)
		}
		if got, want := get(unit, "AmbientCapabilities"), strings.Join(r.Capabilities, " "); got != want { // CAP_SETUID
			t.Errorf("%+v: AmbientCapabilities=%s", r, got)
		}
		if limited := strings.Contains(unit, "\nLimitNOFILE=1024:1048576\n"); limited != (r.OpenFiles > 0) {
			t.Errorf("%+v: it has a limit of open files: %t", r, limited)
		}
		if mode := get(unit, "RuntimeDirectoryMode"); (mode == "0711") != r.Enter || (mode == "0700") == r.Enter {
			t.Errorf("%+v: RuntimeDirectoryMode=%s", r, mode)
		}
	}
}

// Each key that set replaces must occur exactly once, and names that other files use must not change unnoticed.
func TestUnitsHoldWhatOthersRelyOn(t *testing.T) {
	for _, key := range []string{
		"ExecStart", "ExecReload", "TimeoutStopSec", "ReadWritePaths", "User", "ProtectHome", "StateDirectory",
		"RuntimeDirectory", "SyslogIdentifier", "EnvironmentFile", "Description", "CapabilityBoundingSet",
	} {
		if n := strings.Count(service, "\n"+key+"="); n != 1 {
			t.Errorf("%s= is in the service %d times, want once", key, n)
		}
	}
	if n := strings.Count(socket, "\nListenStream="); n != 1 {
		t.Errorf("ListenStream= is in the socket %d times, want once", n)
	}
	if got := get(socket, "FileDescriptorName"); got != ListenerName {
		t.Errorf("FileDescriptorName=%s, want %s", got, ListenerName)
	}
	for _, reference := range []string{
		"\nRequires=hsu-master.socket", "\nSockets=hsu-master.socket", "\nAlso=hsu-master.socket",
	} {
		if !strings.Contains(service, reference+"\n") {
			t.Errorf("the service lacks %q", strings.TrimSpace(reference))
		}
	}
	if got, want := get(service, "TimeoutStopSec"), "30s"; got != want {
		t.Errorf("TimeoutStopSec=%s, want %s: the default grace and its margin", got, want)
	}
	// It must come before the administrator's own settings, which override it.
	policy := strings.Index(service, "\nEnvironment=HSU_MASTER_ON_DAMAGE=recover\n")
	if settings := strings.Index(service, "\nEnvironmentFile="); policy < 0 || policy > settings {
		t.Errorf("the service's answer to a damaged state is at %d, the administrator's settings at %d",
			policy, settings)
	}
	for _, harmful := range []string{
		"PrivateTmp", "PrivatePIDs", "ExitType", "DynamicUser", "ProtectProc", "ProcSubset", "MemoryDenyWriteExecute",
		"PrivateUsers", "RemoveIPC",
	} {
		if strings.Contains(service, "\n"+harmful+"=") {
			t.Errorf("the service sets %s=, which harms the workers", harmful)
		}
	}
}

// A plain systemctl kill sends the signal to every worker that is in the service, as are those of other users than
// root. So a document may recommend it only where it says that the service is one of root.
func TestDocumentsKillTheMasterOnly(t *testing.T) {
	documents := []string{"../README.md", "../CHANGELOG.md", "../ARCHITECTURE.md", "../CONTRIBUTING.md"}
	for _, pattern := range []string{"../docs/*", "../scripts/*", "*.service", "*.socket"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v found, %v", pattern, found, err)
		}
		documents = append(documents, found...)
	}
	kill := regexp.MustCompile("systemctl kill [^`\n]*")
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, command := range kill.FindAllString(line, -1) {
				if !strings.Contains(command, "--kill-whom=main") && !strings.Contains(line, "service of root") {
					t.Errorf("%s: %q kills the workers too", document, command)
				}
			}
		}
	}
}

func TestServiceQuotesArgumentsForSystemd(t *testing.T) {
	tests := []struct {
		name string
		argv []string
		want string
	}{
		{
			"plain",
			[]string{"/usr/bin/hsu-master", "run", "--port", "1", "--worker-arg=a,b"},
			"/usr/bin/hsu-master run --port 1 --worker-arg=a,b",
		},
		{"empty", []string{"/b", ""}, `/b ""`},
		{"space", []string{"/opt/my app/b", "a b"}, `"/opt/my app/b" "a b"`},
		{"double quote", []string{"/b", `say "hi"`}, `/b "say \"hi\""`},
		{"single quote", []string{"/b", "it's"}, `/b "it's"`},
		{"backslash", []string{"/b", `a\nb`, `\`}, `/b "a\\nb" "\\"`},
		{"specifier", []string{"/b", "%n", "100% of it"}, `/b %%n "100%% of it"`},
		{"variable", []string{"/b", "$HOME", "${X}", "$$"}, `:/b "$HOME" "${X}" "$$"`},
		{"variable in a path with a space", []string{"/a $b", "x"}, `":/a $b" x`},
		{"semicolon", []string{"/b", ";", `\;`, "a;b"}, `/b ";" "\\;" "a;b"`},
		{"comment", []string{"/b", "#", "a#b"}, `/b "#" "a#b"`},
		{"tab and escape", []string{"/b", "a\tb\x1b"}, `/b "a\x09b\x1b"`},
		{"other letters", []string{"/b", "größe"}, `/b "größe"`},
		{"prefixes are for the program only", []string{"/b", "-x", "@y", "!z", "|w"}, `/b -x @y "!z" "|w"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			unit, err := Service(Options{ExecStart: test.argv})
			if err != nil {
				t.Fatal(err)
			}
			if got := get(unit, "ExecStart"); got != test.want {
				t.Errorf("ExecStart=%s, want %s", got, test.want)
			}
			if strings.Count(unit, "\n") != strings.Count(service, "\n") {
				t.Error("the unit has another number of lines")
			}
		})
	}
}

func TestServiceFollowsTheOtherOptions(t *testing.T) {
	unit, err := Service(Options{
		StopGrace:      90*time.Second + time.Millisecond,
		User:           "hsu",
		ReadWritePaths: []string{"/srv/state", `/srv/a "b" 5%`},
		Writable:       []string{"/srv/c d"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := get(unit, "TimeoutStopSec"), "111s"; got != want {
		t.Errorf("TimeoutStopSec=%s, want %s", got, want)
	}
	if got, want := get(unit, "User"), "hsu"; got != want {
		t.Errorf("User=%s, want %s", got, want)
	}
	if got, want := get(unit, "ReadWritePaths"),
		get(service, "ReadWritePaths")+` /srv/state "/srv/a \"b\" 5%%" "-/srv/c d"`; got != want {
		t.Errorf("ReadWritePaths=%s, want %s", got, want)
	}
	if got, want := get(unit, "ProtectHome"), "yes"; got != want {
		t.Errorf("ProtectHome=%s, want %s", got, want)
	}
	for _, address := range []string{"127.0.0.1:1", "[::1]:50051"} {
		unit, err := Socket(Options{ListenStream: address})
		if err != nil {
			t.Fatal(err)
		}
		if got := get(unit, "ListenStream"); got != address {
			t.Errorf("ListenStream=%s, want %s", got, address)
		}
	}
}

func TestServiceReadsHomeFoldersIfItMust(t *testing.T) {
	run := func(args ...string) Options {
		return Options{ExecStart: append([]string{"/usr/bin/hsu-master"}, args...)}
	}
	tests := []struct {
		o    Options
		want string
	}{
		{run("--worker-path=/usr/bin/worker", "--worker-arg=/srv/home/x", "/homes", "./root/x", "-/home"), "yes"},
		{run("--worker-path=/home/me/worker"), "read-only"},
		{run("--worker-arg=--config=/root/worker.conf"), "read-only"},
		{run("--worker-arg", "/run/user/1000/bus"), "read-only"},
		{run("--worker-arg=unix://home/x:/home"), "read-only"},
		{Options{ExecStart: []string{"/root/bin/hsu-master"}}, "read-only"},
		{Options{ReadWritePaths: []string{"/home/me/state"}}, "read-only"},
		{Options{Writable: []string{"/home/me/data"}}, "read-only"},
		{Options{ReadPaths: []string{"/opt/worker", "/home/me/worker"}}, "read-only"},
		{Options{ReadPaths: []string{"/opt/worker"}}, "yes"},
	}
	for _, test := range tests {
		unit, err := Service(test.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := get(unit, "ProtectHome"); got != test.want {
			t.Errorf("%+v: ProtectHome=%s, want %s", test.o, got, test.want)
		}
	}
}

func TestWhatAUnitCannotHoldIsRefused(t *testing.T) {
	command := func(argv ...string) Options { return Options{ExecStart: argv} }
	tests := []struct {
		name   string
		o      Options
		render func(Options) (string, error)
		want   string
	}{
		{"newline", command("/b", "a\nExecStartPre=/bin/rm"), Service, "line break"},
		{"carriage return", command("/b", "a\rb"), Service, "line break"},
		{"NUL", command("/b", "a\x00b"), Service, "NUL"},
		{"not UTF-8", command("/b", "a\xff"), Service, "UTF-8"},
		{"relative program", command("hsu-master", "run"), Service, `"hsu-master": not an absolute path`},
		{"empty program", command("", "run"), Service, "not an absolute path"},
		{"quote in the program", command(`/a"b`), Service, "quotes"},
		{"backslash in the program", command(`/a\b`), Service, "backslashes"},
		{"newline in the program", command("/a\nb"), Service, "control characters"},
		{"negative grace", Options{StopGrace: -1}, Service, "negative"},
		{"user with a line break", Options{User: "hsu\nExecStartPre=/bin/rm"}, Service, "not a name of a user"},
		{"user with a blank", Options{User: "a b"}, Service, "not a name of a user"},
		{"relative path", Options{ReadWritePaths: []string{"state"}}, Service, `"state": not an absolute path`},
		{"newline in a path", Options{ReadWritePaths: []string{"/a\nb"}}, Service, "line break"},
		{"tab in a path", Options{ReadWritePaths: []string{"/a\tb"}}, Service, "control character"},
		{"host name", Options{ListenStream: "localhost:50051"}, Socket, `"localhost:50051"`},
		{"no port", Options{ListenStream: "127.0.0.1"}, Socket, `"127.0.0.1"`},
		{"port 0", Options{ListenStream: "127.0.0.1:0"}, Socket, "port 0"},
		{"newline in the address", Options{ListenStream: "127.0.0.1:1\nListenStream=/x"}, Socket, "ListenStream"},
		{"zone", Options{ListenStream: "[fe80::1%eth0]:1"}, Socket, "zone"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			unit, err := test.render(test.o)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want one with %q", err, test.want)
			}
			if unit != "" {
				t.Error("a unit came with the error")
			}
		})
	}
}
