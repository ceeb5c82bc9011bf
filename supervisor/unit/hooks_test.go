package unit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestLaunchHook(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"hook": 0o700, "plain": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	u := Spec{
		Name: "shop", Env: []string{"A={worker}", "B=b=c"},
		Start: Start{Before: []string{"hook", "{unit}", "{{port}", "{port}"}},
		Stop:  Stop{Command: []string{filepath.Join(dir, "hook")}, After: []string{filepath.Join(dir, "plain")}},
	}
	p, err := u.LaunchHook(BeforeStart, "shop-3", 8080)
	if want := []string{"shop", "{port}", "8080"}; err != nil || p.Path != filepath.Join(dir, "hook") ||
		!slices.Equal(p.Args, want) {
		t.Errorf("start.before = %+v, %v; want the program in PATH with %q", p, err, want)
	}
	if want := []string{"A=shop-3", "B=b=c", "HSU_WORKER_PORT=8080"}; !slices.Equal(p.Env, want) {
		t.Errorf("environment = %q, want %q", p.Env, want)
	}
	if p, err := u.LaunchHook(AtStop, "shop-3", 0); err != nil || len(p.Args) != 0 || len(p.Env) != 2 {
		t.Errorf("stop.command of a worker without a port = %+v, %v", p, err)
	}
	if _, err := u.LaunchHook(AfterEnd, "shop-3", 0); err == nil || !strings.Contains(err.Error(), "chmod +x") {
		t.Errorf("a program that is not executable: %v", err)
	}
	if _, err := u.LaunchHook(BeforeStart, "shop-3", 0); err == nil || !strings.Contains(err.Error(), "{port}") {
		t.Errorf("{port} of a worker without a port: %v", err)
	}
}

func TestCheckHooks(t *testing.T) {
	for name, c := range map[string]struct {
		unit Spec
		want string // a part of the fault; empty if there is none
	}{
		"none": {Spec{}, ""},
		"a port": {
			Spec{Start: Start{Before: []string{"a", "{port}"}}, Stop: Stop{Command: []string{"b"}}}, "",
		},
		"no program": {
			Spec{Start: Start{Before: []string{""}}}, "start.before: the program must not be empty",
		},
		"unknown placeholder": {Spec{Stop: Stop{Command: []string{"a", "{nothing}"}}}, "stop.command: argument"},
		"announced port": {
			Spec{Port: AnnouncedPort, Stop: Stop{Command: []string{"a", "{port}"}}}, "stop.command: argument",
		},
		"announced port in the arguments": {Spec{Port: AnnouncedPort, Args: []string{"{port}"}}, "argument: "},
		"announced port, and services": {
			Spec{Port: AnnouncedPort, Services: []string{"pkg.A"}, Replicas: 2}, "",
		},
		"a number that stands for nothing": {Spec{Port: -3}, "port -3: must be"},
		"no port": {
			Spec{Port: NoPort, Stop: Stop{After: []string{"a", "{port}"}}}, "stop.after: argument",
		},
	} {
		c.unit.Name = "a"
		err := c.unit.CheckFields()
		if got := err != nil && strings.Contains(err.Error(), c.want); got != (c.want != "") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestHookOf(t *testing.T) {
	for _, h := range []Hook{BeforeStart, AtStop, AfterEnd} {
		if worker, got, ok := HookOf(h.ID("shop-0")); !ok || worker != "shop-0" || got != h {
			t.Errorf("HookOf(%q) = %q, %q, %t", h.ID("shop-0"), worker, got, ok)
		}
	}
	for _, id := range []string{"", "shop-0", "shop-0/", "shop-0/probe", "shop-0/before/", "before"} {
		if worker, h, ok := HookOf(id); ok {
			t.Errorf("HookOf(%q) = %q, %q, want that it is none", id, worker, h)
		}
	}
}

// A change of a hook restarts no worker.
func TestHooksAreLiveSettings(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	u := Spec{Name: "a", Path: self}
	v := u
	v.Start.Before, v.Stop.Command, v.Stop.After = []string{"a"}, []string{"b"}, []string{"c"}
	if start, live := u.Differences(&v); len(start) != 0 || !slices.Equal(live, []string{"start", "stop"}) {
		t.Errorf("Differences = %q, %q, want start and stop live", start, live)
	}
	before, err := u.Hash()
	after, err2 := v.Hash()
	if err != nil || err2 != nil || before != after {
		t.Errorf("hashes %s, %s, %v, %v: want the same", before, after, err, err2)
	}
}

func TestStopTime(t *testing.T) {
	u := Spec{Stop: Stop{Grace: 30 * time.Second}}
	if got := u.StopTime(); got != 30*time.Second {
		t.Errorf("without stop.after: %s", got)
	}
	u.Stop.After = []string{"a"}
	if got := u.StopTime(); got != time.Minute {
		t.Errorf("with stop.after: %s, want its time too", got)
	}
}
