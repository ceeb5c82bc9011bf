package supervisor

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// inspect returns the inspection of one worker.
func (m *master) inspect(t *testing.T, id string) Inspection {
	t.Helper()
	list, err := Inspect(t.Context(), m.Supervisor, true, id)
	if err != nil || len(list) != 1 {
		t.Fatalf("Inspect(%s) = %v, %v", id, list, err)
	}
	return list[0]
}

// The record keeps the last exits with their causes, over a restart of the master too.
func TestInspectHasTheLastExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, memoryLimited)
		settle(time.Minute)
		for code := range 6 {
			world.of("worker-0").die(identity.Exit{Code: code + 1, Source: identity.ExitWait})
			settle(time.Minute)
		}
		world.of("worker-0").grow(512 << 20)
		settle(time.Minute)
		m.stop(ErrDetach)
		m = startMaster(t, world, dir, 1, memoryLimited)
		settle(time.Second)
		in := m.inspect(t, "worker-0")
		var reasons []string
		for _, e := range in.Exits {
			reasons = append(reasons, e.Reason)
		}
		want := []string{
			"exited with code 3", "exited with code 4", "exited with code 5", "exited with code 6", memoryReason,
		}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("exits (-want +got):\n%s", diff)
		}
		if in.LastExit == nil || *in.LastExit != in.Exits[4].Exit {
			t.Errorf("the last exit is %v, not that of %v", in.LastExit, in.Exits)
		}
		m.stop(nil)
		m = startMaster(t, world, dir, 1, memoryLimited)
		settle(time.Minute)
		if in := m.inspect(t, "worker-0"); in.Exits[4].Reason != "hsu-master stopped it" {
			t.Errorf("after a stop of the master the last exit is %+v", in.Exits[4])
		}
		m.stop(nil)
	})
}

func TestInspectSaysWhatIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2, func(u *unit.Spec) {
			u.Args, u.Env = []string{"--name", "{worker}"}, []string{"TOKEN=secret"}
		})
		settle(time.Minute)
		world.of("worker-0").die(identity.Exit{Code: 3, Source: identity.ExitWait})
		settle(time.Second)
		in := m.inspect(t, "worker-0")
		if in.Spent != 1 || !in.Since.Equal(in.Events[0].Time) || in.Retired || in.Hidden != nil {
			t.Errorf("%d restarts spent, since %s, retired %t, hidden %v", in.Spent, in.Since, in.Retired, in.Hidden)
		}
		if got := in.CommandLine(); !slices.Contains(got, "worker-0") {
			t.Errorf("command line %q", got)
		}
		if len(in.PIDs) != 1 || in.PIDs[0] != in.Instance.PID || in.Listens[0] != in.Instance.Port || in.Cgroup == "" {
			t.Errorf("look %+v, instance %+v", in.Look, in.Instance)
		}
		var types []string
		for _, e := range in.Events[:4] {
			types = append(types, e.Type)
		}
		if want := []string{"running", "started", "exited", "running"}; !slices.Equal(types, want) {
			t.Errorf("events %q, want %q", types, want)
		}
		for _, s := range in.Settings.Settings() {
			if strings.Contains(s.Value, "secret") {
				t.Errorf("setting %s is %q", s.Key, s.Value)
			}
		}
		all, err := Inspect(t.Context(), m.Supervisor, false)
		if err != nil || len(all) != 2 || all[1].PIDs != nil {
			t.Errorf("of all: %v, %v", all, err)
		}
		_, err = Inspect(t.Context(), m.Supervisor, false, "wroker-0")
		if _, unknown := errors.AsType[*UnknownError](err); !unknown || !strings.Contains(err.Error(), `"worker-0"`) {
			t.Errorf("of an unknown one: %v", err)
		}
		m.stop(nil)
	})
}

// What differs from the start of an outdated worker is named.
func TestInspectOfAnOutdatedWorker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write := func(content string) {
		if err := os.WriteFile(path, []byte(content), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	write("#!/bin/sh\n")
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.Path = path })
		settle(time.Minute)
		write("#!/bin/sh\nexit\n")
		want := []Change{{"worker", ActionOutdated, []string{"worker-0"}, []string{"executable"}}}
		for _, dryRun := range []bool{true, false} {
			got, err := m.MarkOutdated(t.Context(), dryRun)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("dry run %t: %v, %v, want %v", dryRun, got, err, want)
			}
			if in := m.inspect(t, "worker-0"); in.Outdated == dryRun {
				t.Errorf("dry run %t: outdated %t", dryRun, in.Outdated)
			}
		}
		if in := m.inspect(t, "worker-0"); !in.Outdated || !slices.Equal(in.Changed, []string{"executable"}) {
			t.Errorf("outdated %t because of %q", in.Outdated, in.Changed)
		}
		m.stop(nil)
	})
}

// Without a master, the records and the history are used.
func TestInspectRecords(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	snap := records.Snapshot{
		Units: []records.Unit{{Name: "web"}},
		Workers: []records.Worker{
			{ID: "web-0", Unit: "web", Status: records.StatusFailed, LastExit: &identity.Exit{At: at}},
			{ID: "db-0", Unit: "db", Status: records.StatusRunning},
		},
	}
	entries := []records.Entry{
		{Seq: 1, Event: records.Event{Time: at.Add(time.Second), Worker: "db-0", Type: "running"}},
		{Seq: 2, Event: records.Event{Worker: "web-0", Type: "exited"}},
	}
	for _, test := range []struct {
		name, id string
		since    time.Time
	}{{"web", "web-0", at}, {"db-0", "db-0", at.Add(time.Second)}, {"db", "db-0", at.Add(time.Second)}} {
		list, err := InspectRecords(snap, entries, t.TempDir(), test.name)
		if err != nil || len(list) != 1 || list[0].ID != test.id || !list[0].Since.Equal(test.since) {
			t.Errorf("%s: %+v, %v", test.name, list, err)
		}
	}
	_, err := InspectRecords(snap, entries, t.TempDir(), "wbe-0")
	if err == nil || !strings.Contains(err.Error(), `"web-0"`) {
		t.Errorf("an unknown name: %v", err)
	}
}
