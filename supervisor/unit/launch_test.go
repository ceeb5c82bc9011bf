package unit

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
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
	} {
		if _, _, err := u.Launch("a-0", 0); err == nil {
			t.Errorf("%+v is launched", u)
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
	for what, other := range map[string]Spec{
		"kind":        {Name: "worker", Path: u.Path, Args: u.Args, Kind: Managed},
		"directory":   {Name: "worker", Path: u.Path, Args: u.Args, Dir: "/"},
		"environment": {Name: "worker", Path: u.Path, Args: u.Args, Env: []string{"A=b"}},
		"port":        {Name: "worker", Path: u.Path, Args: u.Args, Port: 80},
		"no port":     {Name: "worker", Path: u.Path, Args: u.Args, Port: NoPort},
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
