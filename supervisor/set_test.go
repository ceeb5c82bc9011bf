package supervisor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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

// unitOf returns a unit of count workers of this test's program.
func unitOf(t *testing.T, name string, count int, args ...string) unit.Spec {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return unit.Spec{Name: name, Path: self, Replicas: count, Args: args}
}

// ids returns the workers' names and statuses, in the order in which they are listed.
func (m *master) ids() string {
	var list []string
	for _, w := range m.Workers() {
		list = append(list, w.ID+" "+string(w.Status))
	}
	return strings.Join(list, ", ")
}

func TestApplyStartsTheMissingAndForgetsTheSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		first := world.of("worker-0")
		if err := m.Apply(t.Context(), unitOf(t, "worker", 3), unitOf(t, "other", 1)); err != nil {
			t.Fatal(err)
		}
		if got := m.ids(); got != "worker-0 running, worker-1 running, worker-2 running, other-0 running" {
			t.Errorf("workers are %s", got)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Fatal(err)
		}
		if got := m.ids(); got != "worker-0 running" || first.isDead() || world.living() != 1 {
			t.Errorf("workers are %s, and %d processes live; want worker-0 untouched", got, world.living())
		}
		snap, err := m.store.Snapshot()
		if err != nil || len(snap.Workers) != 1 {
			t.Errorf("%d workers are recorded, %v, want 1", len(snap.Workers), err)
		}
		reasons := map[string][]string{}
		for _, e := range snap.Events {
			if e.Type == "stopping" || e.Type == "removed" {
				reasons[e.Worker] = append(reasons[e.Worker], e.Detail)
			}
		}
		const fewer, gone = "fewer replicas are wanted", "its unit was removed"
		want := map[string][]string{"worker-1": {fewer, fewer}, "worker-2": {fewer, fewer}, "other-0": {gone, gone}}
		if diff := cmp.Diff(want, reasons); diff != "" {
			t.Errorf("reasons of the stops (-want +got):\n%s", diff)
		}
		// A slot that was given up is a new one when it is wanted again.
		if err := m.Apply(t.Context(), unitOf(t, "worker", 2)); err != nil {
			t.Fatal(err)
		}
		if w := m.worker("worker-1"); !w.Ready || w.Incarnation != 1 || w.Restarts != 0 {
			t.Errorf("worker-1 = %+v, want its first incarnation", w)
		}
		m.stop(nil)
	})
}

func TestApplyReplacesOneWorkerAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		world.set(func() { world.acts = nil })
		if err := m.Apply(t.Context(), unitOf(t, "worker", 3, "--new")); err != nil {
			t.Fatal(err)
		}
		var starts []string
		for _, act := range world.did() {
			if name, found := strings.CutPrefix(act, "start "); found {
				starts = append(starts, name)
			}
		}
		if !slices.Equal(starts, []string{"worker-0", "worker-1", "worker-2"}) {
			t.Errorf("it did %q, want the three started in order", world.did())
		}
		for _, id := range []string{"worker-0", "worker-1", "worker-2"} {
			if w := m.worker(id); !w.Ready || w.Outdated || w.Restarts != 0 || w.Incarnation != 2 {
				t.Errorf("%s = %+v, want its second incarnation at no cost", id, w)
			}
		}
		m.stop(nil)
	})
}

func TestApplyStopsAtTheFirstWorkerThatDoesNotGetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				if p.worker == "worker-1" {
					p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1
				}
			}
		})
		err := m.Apply(t.Context(), unitOf(t, "worker", 3, "--bad"))
		if err == nil || err.Error() != "replaced 1 of 3 workers: worker-1 is not ready: exited with code 3" {
			t.Errorf("Apply = %v, want how far it came and why", err)
		}
		if w := m.worker("worker-2"); !w.Ready || !w.Outdated || w.Incarnation != 1 {
			t.Errorf("worker-2 = %+v, want it untouched and outdated", w)
		}
		world.set(func() { world.behave = nil })
		if err := m.Apply(t.Context(), unitOf(t, "worker", 3, "--good")); err != nil {
			t.Errorf("Apply with better arguments = %v", err)
		}
		for _, w := range m.Workers() {
			if !w.Ready || w.Outdated {
				t.Errorf("%s = %+v, want it ready with the better arguments", w.ID, w)
			}
		}
		m.stop(nil)
	})
}

// A missing program of start.before keeps the living workers, because no start could succeed. One that is needed at the
// end of a worker does not.
func TestApplyWithMissingProgramsOfHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 2)
		missing := []string{filepath.Join(t.TempDir(), "missing")}
		u := unitOf(t, "worker", 2, "--new")
		u.Start.Before = missing
		changes, err := m.Changes(t.Context(), u)
		if err != nil || len(changes) == 0 || changes[len(changes)-1].Action != ActionBlocked ||
			!strings.HasPrefix(changes[len(changes)-1].Reasons[0], "start.before: ") {
			t.Errorf("Changes = %+v, %v, want that the start is blocked", changes, err)
		}
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply = %v", err)
		}
		for _, w := range m.Workers() {
			if !w.Ready || w.Incarnation != 1 {
				t.Errorf("%s = %+v, want it untouched", w.ID, w)
			}
		}
		u.Start.Before, u.Stop.Command, u.Stop.After = nil, missing, missing
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply with commands of the stop = %v", err)
		}
		for _, w := range m.Workers() {
			if !w.Ready || w.Incarnation != 2 {
				t.Errorf("%s = %+v, want it replaced", w.ID, w)
			}
		}
		m.stop(nil)
	})
}

// A worker that has failed is started at once when its unit has changed.
func TestApplyStartsAFailedWorkerWithItsNewUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.readyAfter = time.Second, -1 }
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Hour)
		if got := m.ids(); got != "worker-0 failed" {
			t.Fatalf("workers are %s", got)
		}
		world.set(func() { world.behave = nil })
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1)); err != nil {
			t.Errorf("Apply without a change = %v", err)
		}
		if got := m.ids(); got != "worker-0 failed" {
			t.Errorf("workers are %s after no change", got)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 1, "--mended")); err != nil {
			t.Errorf("Apply = %v", err)
		}
		if got := m.ids(); got != "worker-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}

// A program that was missing and is there now is a new executable, also without a change of the unit.
func TestApplyStartsAFailedWorkerWhoseProgramWasMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.startErr = os.ErrNotExist }
		program := filepath.Join(t.TempDir(), "program")
		missing := func(u *unit.Spec) { u.Path = program }
		m := startMaster(t, world, t.TempDir(), 1, givesUp, missing)
		u := unitOf(t, "worker", 1)
		self := u.Path
		givesUp(&u)
		missing(&u)
		settle(time.Hour)
		if got := m.ids(); got != "worker-0 failed" {
			t.Fatalf("workers are %s", got)
		}
		changes, err := m.Changes(t.Context(), u)
		if err != nil || len(changes) != 1 || changes[0].Action != ActionBlocked {
			t.Errorf("Changes = %+v, %v, want that its program is missing", changes, err)
		}
		if err := os.Symlink(self, program); err != nil {
			t.Fatal(err)
		}
		world.set(func() { world.behave = nil })
		changes, err = m.Changes(t.Context(), u)
		if err != nil || len(changes) != 1 || changes[0].Action != ActionReplace {
			t.Errorf("Changes = %+v, %v, want its replacement", changes, err)
		}
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply = %v", err)
		}
		if got := m.ids(); got != "worker-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}

// A folder that is missing is treated like a missing program.
func TestApplyWithoutTheWorkingFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		u := unitOf(t, "worker", 1)
		u.Dir = filepath.Join(t.TempDir(), "folder")
		wantBlocked := func() {
			t.Helper()
			changes, err := m.Changes(t.Context(), u)
			got := DescribeChanges(changes)
			if err != nil || strings.Contains(got, "replace") ||
				!strings.Contains(got, "blocked worker-0 (working folder: there is no folder "+u.Dir) {
				t.Errorf("Changes = %s, %v, want that the folder is missing", got, err)
			}
		}
		wantBlocked()
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply = %v", err)
		}
		settle(time.Second)
		if got, starts := m.ids(), world.starts("worker-0"); got != "worker-0 running" || starts != 1 {
			t.Errorf("workers are %s after %d starts, want the first process", got, starts)
		}
		wantBlocked()
		if err := os.Mkdir(u.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		changes, err := m.Changes(t.Context(), u)
		if err != nil || len(changes) != 1 || changes[0].Action != ActionReplace {
			t.Errorf("Changes = %+v, %v, want its replacement", changes, err)
		}
		m.stop(nil)
	})
}

// Settings that do not affect a process apply to the living one.
func TestApplyChangesTheHealthOfALivingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		u := unitOf(t, "worker", 1)
		u.Health.Readiness.Interval, u.Health.Readiness.Missed, u.Health.BusyLimit = time.Hour, 1, 3*time.Hour
		if err := m.Apply(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		p := world.of("worker-0")
		p.set(func() { p.mute, p.load = true, 1 })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 1 {
			t.Errorf("worker-0 = %+v after a minute, want it ready", w)
		}
		settle(time.Hour)
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy {
			t.Errorf("worker-0 is %s after one missed Ping, want unhealthy", w.Status)
		}
		m.stop(nil)
	})
}

func TestApplyChangesNothingIfAUnitHasAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		err := m.Apply(t.Context(), unitOf(t, "worker", 0), unitOf(t, "a/b", 1), unitOf(t, "worker", 1))
		if err == nil || !strings.Contains(err.Error(), `"a/b"`) || !strings.Contains(err.Error(), "given twice") {
			t.Errorf("Apply = %v, want both faults", err)
		}
		if got := m.ids(); got != "worker-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
		if err := m.Apply(t.Context()); err == nil {
			t.Error("Apply after the end succeeds")
		}
	})
}

// If the master ends in the middle, a supervisor with the same units completes the set.
func TestApplyCutOffByACrashIsCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		for _, id := range []string{"worker-0", "worker-1"} {
			p := world.of(id)
			p.set(func() { p.ignoresTerm = true })
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx, unitOf(t, "worker", 1, "--new")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want the end of its context", err)
		}
		if got := m.ids(); got != "worker-0 stopping, worker-1 stopping" {
			t.Errorf("workers are %s", got)
		}
		m.crash()
		m = startMaster(t, world, dir, 1, func(u *unit.Spec) { u.Args = []string{"--new"} })
		settle(time.Minute)
		if w := m.worker("worker-0"); m.ids() != "worker-0 running" || w.Outdated || world.living() != 1 {
			t.Errorf("workers are %s, %d processes live; want the new one alone: %+v", m.ids(), world.living(), w)
		}
		m.stop(nil)
	})
}

func TestApplyGivesUpASlotWhoseProcessCannotBeVerified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2)
		settle(time.Second)
		m.crash()
		world.attachErr = errors.New("not permitted")
		m = startMaster(t, world, dir, 2)
		settle(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx, unitOf(t, "worker", 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply = %v, want that it waits", err)
		}
		if world.living() != 2 {
			t.Errorf("%d processes live, want 2: nothing is known of them", world.living())
		}
		world.set(func() { world.attachErr = nil })
		settle(time.Minute)
		if got := m.ids(); got != "worker-0 running" || world.living() != 1 {
			t.Errorf("workers are %s, %d processes live", got, world.living())
		}
		world.of("worker-0").die(identity.Exit{Source: identity.ExitWait})
		m.stop(nil)
	})
}

// The file may be in the middle of being replaced.
func TestApplyKeepsAWorkerWhoseProgramCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := startMaster(t, newFakeOS(t), t.TempDir(), 1)
		settle(time.Second)
		u := unitOf(t, "worker", 1)
		u.Path = filepath.Join(t.TempDir(), "missing")
		if err := m.Apply(t.Context(), u); err != nil {
			t.Errorf("Apply = %v, want the living worker kept", err)
		}
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker-0 = %+v", w)
		}
		m.stop(nil)
	})
}

// The start fails before it has become an incarnation.
func TestApplyFailsIfTheNewInstanceCannotBeStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		world.set(func() { world.leaseErr = errors.New("no space left") })
		err := m.Apply(t.Context(), unitOf(t, "worker", 1, "--new"))
		if err == nil || !strings.Contains(err.Error(), "worker-0 is not ready: ") ||
			!strings.Contains(err.Error(), "no space left") {
			t.Errorf("Apply = %v, want the reason", err)
		}
		world.set(func() { world.leaseErr = nil })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || w.Outdated || world.living() != 1 {
			t.Errorf("worker-0 = %+v, want the new one", w)
		}
		m.stop(nil)
	})
}

// served returns the names of the services that have an endpoint.
func (m *master) served() string {
	var names []string
	for _, s := range m.Services().Snapshot() {
		if len(s.Endpoints) > 0 {
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestApplyChangesTheServicesOfALivingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.NoServices = true })
		settle(time.Second)
		for _, step := range []struct {
			change func(*unit.Spec)
			want   string
		}{
			{func(*unit.Spec) {}, unit.DefaultService},
			{func(u *unit.Spec) { u.Services = []string{"pkg.A", "pkg.B"} }, "pkg.A pkg.B"},
			{func(u *unit.Spec) { u.NoServices = true }, ""},
		} {
			u := unitOf(t, "worker", 1)
			step.change(&u)
			if err := m.Apply(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := m.served(); got != step.want {
				t.Errorf("services %q have an endpoint, want %q", got, step.want)
			}
		}
		if world.starts("worker-0") != 1 {
			t.Errorf("it was started %d times", world.starts("worker-0"))
		}
		m.stop(nil)
	})
}

func TestApplyWaitsForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		p := world.of("worker-0")
		p.set(func() { p.ignoresTerm = true })
		first := make(chan error, 1)
		go func() { first <- m.Apply(t.Context(), unitOf(t, "worker", 1, "--new")) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.Apply(ctx, unitOf(t, "worker", 2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply beside another = %v, want the end of its context", err)
		}
		if err := <-first; err != nil {
			t.Errorf("Apply = %v", err)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 2, "--new")); err != nil || m.ids() !=
			"worker-0 running, worker-1 running" {
			t.Errorf("Apply = %v, workers are %s", err, m.ids())
		}
		m.stop(nil)
	})
}

// A program on a file system that does not answer neither starts nor fails.
func TestApplyGivesUpAWorkerWhoseStartHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, hangs := newFakeOS(t), make(chan struct{})
		world.behave = func(p *fakeProcess) {
			if p.worker == "hung-0" {
				p.hangs = hangs
			}
		}
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		hung := unitOf(t, "hung", 1)
		hung.Start.Timeout = time.Minute
		for _, test := range []struct {
			args []string // of the other unit
			want string
		}{
			{nil, "hung-0 is not ready: its start hangs"},
			{[]string{"--new"}, "update hung-0: worker hung-0 did not take a command: context deadline exceeded"},
		} {
			began := time.Now()
			err := m.Apply(t.Context(), hung, unitOf(t, "worker", 1, test.args...))
			if err == nil || err.Error() != test.want || time.Since(began) != time.Minute {
				t.Errorf("Apply = %v after %s, want %q after the start timeout", err, time.Since(began), test.want)
			}
		}
		close(hangs)
		settle(time.Second)
		if err := m.Apply(t.Context(), hung, unitOf(t, "worker", 1, "--new")); err != nil {
			t.Errorf("Apply = %v when the file system answers again", err)
		}
		if got := m.ids(); got != "hung-0 running, worker-0 running" {
			t.Errorf("workers are %s", got)
		}
		m.stop(nil)
	})
}
