package install

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	configfile "github.com/core-tools/hsu-master/config"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/master"
)

// needsOfText returns the needs of a configuration file with these units for a service of the user.
func needsOfText(t *testing.T, dir, units, user string) needs {
	t.Helper()
	path := filepath.Join(dir, "hsu.yaml")
	text := "defaults: {kind: managed, command: [sleep, x]}\nunits:\n" + units
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	host := configfile.ThisHost()
	host.Root, host.CheckTrusted = true, func(string) error { return nil }
	host.User = func(string) error { return nil }
	file, err := configfile.Load(path, host)
	if err != nil {
		t.Fatal(err)
	}
	specs, err := master.FileUnits(file)
	if err != nil {
		t.Fatal(err)
	}
	return needsOf(file, specs, nil, user)
}

func TestRightsThatUnitsNeed(t *testing.T) {
	const pair, nice, caps = "CAP_KILL CAP_SETGID CAP_SETUID CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_CHOWN CAP_SETPCAP"
	tests := []struct {
		keys, user string
		want       deploy.Rights
		missing    bool
	}{
		{"umask: \"0027\"", "root", deploy.Rights{}, false},
		{"user: db", "root", deploy.Rights{Capabilities: strings.Fields(pair), Privileged: true}, false},
		{"user: db", "hsu", deploy.Rights{}, true},
		{
			"user: db, readiness: {type: notify}", "root",
			deploy.Rights{Capabilities: strings.Fields("CAP_CHOWN " + pair), Privileged: true, Enter: true},
			false,
		},
		{"user: db, liveness: {type: notify}", "hsu", deploy.Rights{}, true},
		{"readiness: {type: notify}", "root", deploy.Rights{}, false},
		{"nice: -1", "root", deploy.Rights{Capabilities: []string{nice}, Resources: true}, false},
		{"nice: 1", "root", deploy.Rights{Resources: true}, false},
		{"nice: 1", "hsu", deploy.Rights{Resources: true}, false},
		{"capabilities: [CHOWN]", "root", deploy.Rights{Capabilities: strings.Fields(caps), Privileged: true}, false},
		{"capabilities: [], no_new_privileges: true", "root", deploy.Rights{}, false},
		{"limits: {open_files: 1024}", "hsu", deploy.Rights{}, false},
		{
			"limits: {open_files: 1048576}", "root",
			deploy.Rights{OpenFiles: 1048576},
			false,
		},
		{"limits: {open_files: 1048576}", "hsu", deploy.Rights{OpenFiles: 1048576}, false},
	}
	for _, test := range tests {
		n := needsOfText(t, t.TempDir(), "  a: {"+test.keys+"}\n  b: {"+test.keys+"}\n", test.user)
		if !slices.Equal(n.rights.Capabilities, test.want.Capabilities) ||
			n.rights.Privileged != test.want.Privileged || n.rights.Resources != test.want.Resources ||
			n.rights.OpenFiles != test.want.OpenFiles || n.rights.Enter != test.want.Enter ||
			len(n.missing) > 0 != test.missing {
			t.Errorf("%s for %s: %+v, missing %q", test.keys, test.user, n.rights, n.missing)
		}
	}
}

func TestFoldersOfTheSystemStayReadOnly(t *testing.T) {
	for dir, want := range map[string]bool{
		"/": true, "/etc": true, "/etc/hsu": true, "/usr": true, "/usr/lib/x": true, "/usr/local": true, "/var": true,
		"/var/lib": true, "/home": true, "/srv": true, "/run": true,
		"/usr/local/app/data": false, "/var/lib/app": false, "/home/me": false, "/srv/app": false, "/opt/app": false,
		"/etcetera": false, "/data": false,
	} {
		if isSystem(dir) != want {
			t.Errorf("%s is taken for one of the system: %t", dir, !want)
		}
	}
}

func TestAddressOfAnotherSocket(t *testing.T) {
	for listen, want := range map[string]bool{
		"127.0.0.1:50051": true, "0.0.0.0:50051": true, "[::]:50051": true, "50051": true,
		"127.0.0.1:50052": false, "127.0.0.2:50051": false, "/run/50051": false, "50052": false,
	} {
		path := filepath.Join(t.TempDir(), "other.socket")
		text := "[Socket]\nListenStream=/run/other\nListenStream=" + listen + "\n"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := listenerOf(path, "127.0.0.1:50051"); (got == listen) != want {
			t.Errorf("ListenStream=%s: %q is taken", listen, got)
		}
	}
	if got := listenerOf(filepath.Join(t.TempDir(), "none"), "127.0.0.1:1"); got != "" {
		t.Errorf("a file that does not exist has %q", got)
	}
}

func TestStateFolderOfAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(checkStateFolder(dir), checkStateFolder(filepath.Join(dir, "none"))); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkStateFolder(dir); err == nil || !strings.Contains(err.Error(), "has files of another program") {
		t.Errorf("the folder of another program: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "master-id"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkStateFolder(dir); err != nil {
		t.Error(err)
	}
}
