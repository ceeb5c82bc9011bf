package unit

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/supervisor/process"
)

func TestLaunch(t *testing.T) {
	for name, c := range map[string]struct {
		unit      Spec
		port      int
		args, env []string
	}{
		"integrated": {
			Spec{Name: "a", Args: []string{"-v"}},
			8080,
			[]string{"-v", "--port", "8080"},
			[]string{"HSU_WORKER_PORT=8080"},
		},
		"integrated with its own form of the port": {
			Spec{Name: "a", Args: []string{"-p={port}"}}, 8080, []string{"-p=8080"}, []string{"HSU_WORKER_PORT=8080"},
		},
		"managed with a port": {
			Spec{Name: "a", Kind: Managed, Args: []string{"serve"}, Env: []string{"PORT={port}", "A=b=c"}},
			8080,
			[]string{"serve"},
			[]string{"PORT=8080", "A=b=c", "HSU_WORKER_PORT=8080"},
		},
		"managed without a port": {
			Spec{Name: "a-b", Kind: Managed, Args: []string{"{unit} {worker} {replica}", "{{port}"}},
			0,
			[]string{"a-b a-b-12 12", "{port}"},
			nil,
		},
	} {
		args, env, err := c.unit.Launch(c.unit.WorkerID(12), c.port)
		if err != nil || !slices.Equal(args, c.args) || !slices.Equal(env, c.env) {
			t.Errorf("%s: %q, %q, %v", name, args, env, err)
		}
	}
	for _, u := range []Spec{
		{Name: "a", Args: []string{"{nothing}"}},
		{Name: "a", Env: []string{"TOKEN={x"}},
		{Name: "a", Kind: Managed, Port: NoPort, Args: []string{"{port}"}},
		{Name: "a", Port: AnnouncedPort, Args: []string{"{port}"}},
		{Name: "a", Port: AnnouncedPort, Env: []string{"PORT={port}"}},
	} {
		if _, _, err := u.Launch("a-0", 0); err == nil {
			t.Errorf("%+v is launched", u)
		}
	}
}

func with(u Spec, a process.Attributes) *Spec {
	u.Attributes = a
	return &u
}

// Each attribute is of the start, so a change restarts the workers, and is named.
func TestDifferencesOfAttributes(t *testing.T) {
	for key, a := range map[string]process.Attributes{
		"user":              {User: "a"},
		"group":             {Group: "a"},
		"umask":             {Umask: new(uint32(0))},
		"nice":              {Nice: 1},
		"capabilities":      {Capabilities: []string{}},
		"no_new_privileges": {NoNewPrivileges: true},
		"limits.open_files": {OpenFiles: new(uint64(1))},
		"limits.core":       {Core: new(uint64(0))},
	} {
		u := Spec{Name: "a"}
		start, live := u.Differences(with(u, a))
		if !slices.Equal(start, []string{key}) || len(live) > 0 {
			t.Errorf("%s: %v, %v", key, start, live)
		}
		again, _ := with(u, a).Differences(with(u, a))
		if len(again) > 0 {
			t.Errorf("%s differs from itself: %v", key, again)
		}
	}
}

// A unit that only earlier versions could describe keeps its hash, so that an upgrade marks no worker as outdated.
func TestHashOfAnEarlierVersion(t *testing.T) {
	u := Spec{Name: "worker", Path: "/nonexistent", Args: []string{"-v"}}
	if _, err := u.Hash(); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing executable: %v", err)
	}
	u.Path = "/proc/self/exe"
	before, exe, err := u.Version()
	if err != nil {
		t.Fatal(err)
	}
	former := sha256.Sum256([]byte(`["worker","` + exe + `",["-v"]]`))
	if before != hex.EncodeToString(former[:]) {
		t.Errorf("the hash is not that of an earlier version: %s", before)
	}
	hashes := map[string]string{before: "the former form"}
	for what, other := range map[string]*Spec{
		"kind":        {Name: "worker", Path: u.Path, Args: u.Args, Kind: Managed},
		"directory":   {Name: "worker", Path: u.Path, Args: u.Args, Dir: "/"},
		"environment": {Name: "worker", Path: u.Path, Args: u.Args, Env: []string{"A=b"}},
		"port":        {Name: "worker", Path: u.Path, Args: u.Args, Port: 80},
		"no port":     {Name: "worker", Path: u.Path, Args: u.Args, Port: NoPort},
		"announced":   {Name: "worker", Path: u.Path, Args: u.Args, Port: AnnouncedPort},
		"user":        with(u, process.Attributes{User: "nobody"}),
		"group":       with(u, process.Attributes{Group: "nobody"}),
		"umask":       with(u, process.Attributes{Umask: new(uint32(0))}),
		"nice":        with(u, process.Attributes{Nice: 1}),
		"files":       with(u, process.Attributes{OpenFiles: new(uint64(0))}),
		"core":        with(u, process.Attributes{Core: new(uint64(0))}),
		"none":        with(u, process.Attributes{Capabilities: []string{}}),
		"one":         with(u, process.Attributes{Capabilities: []string{"CHOWN"}}),
		"no new":      with(u, process.Attributes{NoNewPrivileges: true}),
	} {
		hash, err := other.Hash()
		if err != nil || hashes[hash] != "" {
			t.Errorf("%s: the hash is that of %q: %v", what, hashes[hash], err)
		}
		hashes[hash] = what
	}
	if same, err := u.WithDefaults().Hash(); same != before || err != nil {
		t.Errorf("the defaults change the hash: %v", err)
	}
}
