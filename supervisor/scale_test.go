package supervisor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// scale sets the number of replicas and waits until that is done.
func (m *master) scale(name string, n int) {
	m.t.Helper()
	scaling, err := m.Scale(m.t.Context(), name, n)
	if err == nil {
		err = scaling.Wait(m.t.Context())
	}
	if err != nil {
		m.t.Fatalf("scale %s to %d: %v", name, n, err)
	}
}

// units lists the recorded units, each with its configured number of replicas and its scale.
func (m *master) units() string {
	m.t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		m.t.Fatal(err)
	}
	var list []string
	for _, u := range snap.Units {
		text := fmt.Sprint(u.Name, " ", u.Replicas)
		if u.Scale != nil {
			text += fmt.Sprint(" scaled ", *u.Scale)
		}
		if u.Retired {
			text += " retired"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

func TestScaleStartsTheMissingAndStopsTheSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2)
		settle(time.Second)
		first := world.of("worker-0")
		up, err := m.Scale(t.Context(), "worker", 4)
		if err != nil || up.Before != 2 || up.Configured != 2 ||
			!slices.Equal(up.Added(), []string{"worker-2", "worker-3"}) || len(up.Surplus()) != 0 {
			t.Errorf("Scale = %+v, %v", up, err)
		}
		if err := up.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if got := m.ids(); got != "worker-0 running, worker-1 running, worker-2 running, worker-3 running" {
			t.Errorf("workers are %s", got)
		}
		if got := m.units(); got != "worker 2 scaled 4" {
			t.Errorf("recorded are %s", got)
		}
		down, err := m.Scale(t.Context(), "worker", 1)
		surplus := []string{"worker-1", "worker-2", "worker-3"}
		if err != nil || down.Before != 4 || !slices.Equal(down.Surplus(), surplus) {
			t.Errorf("Scale = %+v, %v", down, err)
		}
		if err := down.Wait(t.Context()); err != nil {
			t.Error(err)
		}
		if got := m.ids(); got != "worker-0 running" || first.isDead() || world.living() != 1 {
			t.Errorf("workers are %s, and %d processes live; want worker-0 untouched", got, world.living())
		}
		m.scale("worker", 2)
		if got := m.units(); got != "worker 2" {
			t.Errorf("recorded are %s, want no scale for the configured number", got)
		}
		m.scale("worker", 0)
		if got := m.units(); got != "worker 2 scaled 0" || m.ids() != "" {
			t.Errorf("recorded are %s, workers %s; want none", got, m.ids())
		}
		if n := m.events(eventtype.Scale); n != 4 {
			t.Errorf("%d events, want one for each scale", n)
		}
		m.stop(nil)
	})
}

// The scale outlives the master and each change that leaves the configured number as it is.
func TestScaleIsKeptUntilTheConfiguredNumberChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		m.scale("worker", 3)
		for range 2 { // the scale is as durable the second time
			m.crash()
			m = startMaster(t, world, dir, 2)
			settle(time.Second)
			starts := world.starts("worker-2")
			if got := m.units(); world.living() != 3 || starts != 1 || got != "worker 2 scaled 3" {
				t.Errorf("after a restart %d live, %d starts, recorded %s", world.living(), starts, got)
			}
		}
		m.stop(nil)
		m = startMaster(t, world, dir, 2)
		settle(time.Second)
		if world.living() != 3 {
			t.Errorf("after an orderly stop %d live, want 3", world.living())
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 2, "--new"), unitOf(t, "other", 1)); err != nil {
			t.Fatal(err)
		}
		if got := m.units(); world.living() != 4 || got != "other 1, worker 2 scaled 3" {
			t.Errorf("after a change of other settings %d live, recorded %s", world.living(), got)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Fatal(err)
		}
		if got := m.units(); world.living() != 1 || got != "worker 1" {
			t.Errorf("after a change of the number %d live, recorded %s", world.living(), got)
		}
		m.scale("worker", 2)
		m.crash()
		m = startMaster(t, world, dir, 3)
		settle(time.Second)
		if got := m.units(); world.living() != 3 || got != "worker 3" {
			t.Errorf("after a start with another number %d live, recorded %s", world.living(), got)
		}
		m.stop(nil)
	})
}

// If the master ends after the record and before anything else, the next one executes the record.
func TestScaleCutOffAfterTheRecordIsCompleted(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		synctest.Test(t, func(t *testing.T) {
			world, dir := newFakeOS(t), t.TempDir()
			m := startMaster(t, world, dir, 2)
			settle(time.Second)
			kept := world.of("worker-0")
			recs := recovery.UnitRecords(nil, []unit.Spec{unitOf(t, "worker", 2)}, nil, time.Now())
			recs[0].Scale = &n
			if err := m.changes.recordUnits(t.Context(), recs); err != nil {
				t.Fatal(err)
			}
			m.crash()
			m = startMaster(t, world, dir, 2)
			settle(time.Minute)
			if world.living() != n || kept.isDead() != (n == 0) || world.starts("worker-0") != 1 {
				t.Errorf("scaled to %d: workers are %s, and %d live", n, m.ids(), world.living())
			}
			m.stop(nil)
		})
	}
}

// A caller that gives up does not leave the change half done.
func TestScaleGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		for _, id := range []string{"worker-1", "worker-2"} {
			p := world.of(id)
			p.set(func() { p.ignoresTerm = true })
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		scaling, err := m.Scale(ctx, "worker", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := scaling.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) ||
			!strings.HasPrefix(err.Error(), "worker-1 is still being stopped") {
			t.Errorf("Wait = %v, want the end of its context", err)
		}
		if _, err := m.Scale(t.Context(), "worker", 2); err == nil ||
			err.Error() != "worker-1 is still being stopped: try again" {
			t.Errorf("Scale = %v, want to be asked to try again", err)
		}
		if got := m.units(); got != "worker 3 scaled 1" {
			t.Errorf("recorded are %s, want the refused number not to be", got)
		}
		settle(time.Minute)
		if got := m.ids(); got != "worker-0 running" || world.living() != 1 {
			t.Errorf("workers are %s, and %d live", got, world.living())
		}
		m.stop(nil)
	})
}

func TestScaleNamesTheWorkerThatDoesNotGetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1 }
		})
		scaling, err := m.Scale(t.Context(), "worker", 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := scaling.Wait(t.Context()); err == nil || err.Error() != "worker-1 is not ready: exited with code 3" {
			t.Errorf("Wait = %v, want the reason", err)
		}
		m.stop(nil)
	})
}

func TestScaleRefusesWhatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 1)
		settle(time.Second)
		off := unitOf(t, "off", 0)
		off.Disabled = true
		foreign := unit.Spec{Name: "foreign", Kind: unit.Unmanaged}
		foreign.Discover.PIDFile = filepath.Join(t.TempDir(), "pid")
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1), off, foreign); err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name string
			n    int
			want error
			text string
		}{
			{"worker", -1, ErrReplicas, "wrong number of replicas: -1: must be 0 to 1000"},
			{"worker", 1001, ErrReplicas, "wrong number of replicas: 1001: must be 0 to 1000"},
			{"wroker", 1, ErrNoUnit, `no such unit: "wroker"`},
			{"", 1, ErrNoUnit, `no such unit: ""`},
			{"off", 1, ErrDisabled, `the unit is disabled: "off"`},
			{
				"foreign", 1, ErrNotStarted,
				"an unmanaged unit is not scaled, since another program starts it: unit foreign",
			},
			{"off", 0, ErrDisabled, `the unit is disabled: "off"`},
		} {
			_, err := m.Scale(t.Context(), test.name, test.n)
			if !errors.Is(err, test.want) || err.Error() != test.text {
				t.Errorf("Scale(%q, %d) = %v, want %s", test.name, test.n, err, test.text)
			}
		}
		if got := m.ids(); got != "worker-0 running" || m.units() != "foreign 0, off 0, worker 1" {
			t.Errorf("workers are %s, units %s", got, m.units())
		}
		m.end(nil)
		synctest.Wait()
		if _, err := m.Scale(t.Context(), "worker", 2); err == nil {
			t.Error("Scale succeeds after the end")
		}
		m.stop(nil)
	})
}

func TestUnitsOfTheSetAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		began, _ := m.store.Snapshot()
		if u := began.Units[0]; u.SpecHash != began.Workers[0].SpecHash || u.Kind != records.KindIntegrated ||
			u.Changed.IsZero() {
			t.Errorf("recorded is %+v", u)
		}
		silent := unitOf(t, "silent", 1)
		silent.Kind, silent.Port = unit.Managed, unit.NoPort
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1), silent, unitOf(t, "empty", 0)); err != nil {
			t.Fatal(err)
		}
		snap, _ := m.store.Snapshot()
		if diff := cmp.Diff(began.Units[0], snap.Units[2]); m.units() != "empty 0, silent 1, worker 1" ||
			snap.Units[1].Kind != records.KindManaged || diff != "" {
			t.Errorf("recorded are %s: %s", m.units(), diff)
		}
		p := world.of("silent-0")
		p.set(func() { p.ignoresTerm = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx, unitOf(t, "worker", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want the end of its context", err)
		}
		if got := m.units(); got != "silent 1 retired, worker 1" {
			t.Errorf("recorded are %s, want the unit until its worker is gone", got)
		}
		m.crash()
		m = startMaster(t, world, dir, 1)
		settle(time.Minute)
		if got := m.units(); got != "worker 1" {
			t.Errorf("recorded are %s, want the unit gone with its worker", got)
		}
		m.crash()
		m = startMaster(t, world, dir, 1)
		settle(time.Second)
		if snap, _ := m.store.Snapshot(); !cmp.Equal(snap.Units, began.Units) {
			t.Errorf("recorded are %+v after a start that changes nothing, want %+v", snap.Units, began.Units)
		}
		m.stop(nil)
	})
}

// A unit that is wanted again after it was given up is a new one, even if its last worker still lives.
func TestUnitGivenUpLosesItsScale(t *testing.T) {
	configured := []unit.Spec{unitOf(t, "a", 2), unitOf(t, "b", 2)}
	recs := recovery.UnitRecords(nil, configured, []records.Unit{
		{Name: "a", Replicas: 2, Scale: new(3), Retired: true, Disabled: true},
		{Name: "b", Replicas: 2, Scale: new(3)},
		{Name: "c", Replicas: 2, Scale: new(3)},
	}, time.Now())
	wanted := recovery.Wanted(configured, recs)
	if len(recs) != 2 || recs[0].Scale != nil || recs[0].Disabled ||
		wanted[0].Replicas != 2 || wanted[1].Replicas != 3 {
		t.Errorf("records %+v, replicas %d and %d", recs, wanted[0].Replicas, wanted[1].Replicas)
	}
}

func TestPlanUsesTheScale(t *testing.T) {
	dir := t.TempDir()
	db, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Apply(t.Context(), records.PutUnit(records.Unit{Name: "worker", Replicas: 2, Scale: new(3)}))
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	snap, err := store.ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	for configured, want := range map[int]int{1: 1, 2: 3, 4: 4} {
		decisions, err := recovery.Plan(t.Context(), recovery.PlanOptions{Snapshot: snap, StateDir: dir},
			unitOf(t, "worker", configured))
		if err != nil || len(decisions) != want {
			t.Errorf("configured %d: %d workers, %v, want %d", configured, len(decisions), err, want)
		}
	}
}

// A worker that is removed while another change waits for it ends that wait.
func TestScaleEndsTheWaitForAWorkerThatItRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		world.set(func() { world.behave = func(p *fakeProcess) { p.readyAfter = -1 } })
		up, err := m.Scale(t.Context(), "worker", 2)
		if err != nil {
			t.Fatal(err)
		}
		waited := make(chan error, 1)
		go func() { waited <- up.Wait(t.Context()) }()
		settle(time.Second)
		m.scale("worker", 1)
		if err := <-waited; err == nil || err.Error() != "worker-1 was removed" {
			t.Errorf("Wait = %v, want that the worker was removed", err)
		}
		world.of("worker-0").die(identity.Exit{Source: identity.ExitWait})
		m.stop(nil)
	})
}
