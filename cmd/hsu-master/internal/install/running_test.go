package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/deploy"
)

func TestInstallForAnotherUserThanTheRunningOne(t *testing.T) {
	const service = "0::/system.slice/hsu-master.service"
	tests := []struct {
		name, cgroup string
		uid          int
		refused      bool
	}{
		{"the master", service + "\n", 0, true},
		{"a worker", service + "/worker-0.TOKEN\n", 0, true},
		{"a worker in a slice of its own", "0::/hsu.slice/hsu-more.slice/hsu-master.service/worker-0.TOKEN\n", 0, true},
		{"a worker beside cgroup v1", "1:name=systemd:/system.slice/hsu-master.service\n0::/\n", 0, true},
		{"the same user", service + "\n", 990, false},
		{"a worker in the scope", "0::/hsu.slice/hsu-workers-1.scope/worker-0.TOKEN\n", 0, true},
		{"a worker of another master", "0::/hsu.slice/hsu-workers-2.scope/worker-0.TOKEN\n", 0, false},
		{"a worker of the same user in the scope", "0::/hsu.slice/hsu-workers-1.scope/worker-0.TOKEN\n", 990, false},
		{"another service", "0::/system.slice/hsu-master.service.d\n", 0, false},
		{"a container", "0::/machine.slice/machine-e2e.scope/payload/system.slice/hsu-master.service\n", 0, false},
		{"a user's own service", "0::/user.slice/user-0.slice/user@0.service/app.slice/hsu-master.service\n", 0, false},
		{"no service", "0::/\n", 0, false},
		{"no cgroups", "", 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proc := t.TempDir()
			folder := filepath.Join(proc, "42")
			if err := os.Mkdir(folder, 0o755); err != nil {
				t.Fatal(err)
			}
			status := fmt.Sprintf("Name:\thsu\nUid:\t7\t%d\t7\t7\nGid:\t5\t5\t5\t5\n", test.uid)
			for name, text := range map[string]string{"cgroup": test.cgroup, "status": status} {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			scopes := []string{"hsu-workers-1.scope"}
			err := checkRunning(proc, deploy.Options{}, scopes, Account{name: "hsu", uid: 990})
			if test.refused != (err != nil) {
				t.Fatalf("checkRunning = %v", err)
			}
			if want := "process 42 of hsu-master.service belongs to user 0"; err != nil &&
				!strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

// A service of root that may signal each user's processes is installed over one whose units have users.
func TestInstallOverUnitsWithUsers(t *testing.T) {
	proc := t.TempDir()
	folder := filepath.Join(proc, "42")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cgroup": "0::/system.slice/two.service\n", "status": "Name:\thsu\nUid:\t7\t7\t7\t7\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := deploy.Options{Name: "two"}
	if err := checkRunning(proc, o, nil, Account{name: "root"}); err == nil {
		t.Error("a service without CAP_KILL is installed")
	}
	o.Rights.Capabilities = []string{"CAP_KILL"}
	if err := checkRunning(proc, o, nil, Account{name: "root"}); err != nil {
		t.Error(err)
	}
	if err := checkRunning(proc, o, nil, Account{name: "hsu", uid: 990}); err == nil {
		t.Error("a service of another user is installed")
	}
}

func TestScopesOfAService(t *testing.T) {
	const shown = "Id=hsu-workers-1.scope\nBefore=shutdown.target hsu-master.service\n\n" +
		"Before=two.service shutdown.target\nId=hsu-workers-2.scope\n\nId=hsu-workers-3.scope\nBefore=\n"
	for service, want := range map[string]string{
		"hsu-master.service": "hsu-workers-1.scope", "two.service": "hsu-workers-2.scope", "three.service": "", "": "",
	} {
		if got := strings.Join(orderedBefore(service, shown), " "); got != want {
			t.Errorf("%q: %s, want %s", service, got, want)
		}
	}
	if got := orderedBefore("two.service", ""); got != nil {
		t.Errorf("no scopes: %s", got)
	}
}
