package placement

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInService(t *testing.T) {
	for text, want := range map[string]bool{
		"0::/system.slice/hsu-master.service\n":                               true,
		"0::/system.slice/system-hsu.slice/hsu@a.service/main\n":              true,
		"1:name=systemd:/x.scope\n0::/hsu.slice/a.service\n":                  true,
		"0::/user.slice/user-0.slice/session-1.scope\n":                       false,
		"0::/user.slice/user-0.slice/user@0.service/app.slice/master.service": false,
		"0::/system.slice/docker-5f.scope/system.slice/hsu-master.service\n":  false,
		"0::/hsu.slice/hsu-workers-1.scope/worker-0.5f/hsu-master.service\n":  false,
		"1:name=systemd:/system.slice/hsu-master.service\n":                   false,
		"0::/\n":         false,
		"0::/init.scope": false,
		"":               false,
	} {
		if got := inService(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// A worker of an older release is in the service, a new one in the scope.
func TestCgroupsAreFoundWhereTheyAre(t *testing.T) {
	c := &Cgroups{scoped: t.TempDir(), own: t.TempDir()}
	for _, path := range []string{filepath.Join(c.own, "worker-0.a"), filepath.Join(c.scoped, "worker-1.b")} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if got := c.Of(filepath.Base(path)); got != path {
			t.Errorf("found %q, want %s", got, path)
		}
	}
	if got := c.Of("worker-2.c"); got != "" {
		t.Errorf("found %s", got)
	}
	if got := c.Scope(); got != filepath.Base(c.scoped) {
		t.Errorf("the scope is %q, want %s", got, filepath.Base(c.scoped))
	}
	if err := os.RemoveAll(c.scoped); err != nil {
		t.Fatal(err)
	}
	if got := c.Scope(); got != "" {
		t.Errorf("the scope is %s, and does not exist", got)
	}
	if got := (&Cgroups{}).Of("worker-0.a"); got != "" {
		t.Errorf("without cgroups found %s", got)
	}
}

func TestInstanceWithoutAScopeIsInTheOwnCgroup(t *testing.T) {
	w, s, _ := newWorld(t)
	w.service = ""
	c := &Cgroups{scope: s, own: t.TempDir()}
	cgroup, placed, err := c.Make("worker-0.a")
	if err != nil || cgroup != filepath.Join(c.own, "worker-0.a") {
		t.Errorf("made %q, %v", cgroup, err)
	}
	placed()
	c.own = "" // nothing is delegated
	if cgroup, placed, err = c.Make("worker-0.b"); err != nil || cgroup != "" {
		t.Errorf("made %q, %v", cgroup, err)
	}
	placed()
	if Vanished("") || Vanished(t.TempDir()) || !Vanished(filepath.Join(t.TempDir(), "gone")) {
		t.Error("Vanished is wrong")
	}
}
