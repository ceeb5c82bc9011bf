package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

func startFirst(u *unit.Spec) { u.StartFirst = true }

// restarted restarts the workers and waits until that is over. It returns the progress as text.
func (m *master) restarted(ctx context.Context, req RestartRequest) (progress []string, err error) {
	r, err := m.Restart(ctx, req, func(p Progress) {
		text := p.Worker + " " + string(p.Phase)
		if p.Err != nil {
			text += ": " + p.Err.Error()
		}
		progress = append(progress, text)
	})
	if err == nil {
		err = r.Wait(ctx)
	}
	return progress, err
}

// rollouts returns the recorded rollouts of the units.
func (m *master) rollouts(t *testing.T) map[string]records.Rollout {
	t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	return rolloutsOf(snap.Units)
}

// rolled returns the types and the details of the events whose type begins with the prefix.
func (m *master) rolled(t *testing.T, prefix string) []string {
	t.Helper()
	snap, err := m.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range snap.Events {
		if strings.HasPrefix(e.Type, prefix) {
			list = append(list, e.Type+" "+e.Detail)
		}
	}
	return list
}

// startsAndStops returns the starts and stops of the workers' processes.
func startsAndStops(world *fakeOS) []string {
	return slices.DeleteFunc(world.did(), func(act string) bool {
		return !strings.HasPrefix(act, "start ") && !strings.HasPrefix(act, "terminate ")
	})
}

func TestRestartReplacesOneWorkerAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		kept := world.of("worker-1")
		world.set(func() { world.acts = nil })
		ctx := WithOperator(t.Context(), records.Operator{UID: 7})
		progress, err := m.restarted(ctx, RestartRequest{Workers: []string{"worker-2", "worker-0"}})
		if err != nil {
			t.Fatal(err)
		}
		progress = slices.DeleteFunc(progress, func(p string) bool { return strings.HasSuffix(p, " draining") })
		want := []string{ // without calls, the drain is over at once
			"worker-0 stopping", "worker-0 starting", "worker-0 ready",
			"worker-2 stopping", "worker-2 starting", "worker-2 ready",
		}
		if !slices.Equal(progress, want) {
			t.Errorf("progress was %q, want %q", progress, want)
		}
		if world.starts("worker-0") != 2 || world.starts("worker-2") != 2 || kept.isDead() {
			t.Errorf("it did %q, want worker-1 untouched", world.did())
		}
		if left := m.rollouts(t); len(left) != 0 {
			t.Errorf("%v is still recorded", left)
		}
		wantEvents := []string{"restart worker: worker-0 worker-2", "restart-completed worker"}
		if got := m.rolled(t, "restart"); !slices.Equal(got, wantEvents) {
			t.Errorf("events are %q, want %q", got, wantEvents)
		}
		snap, _ := m.store.Snapshot()
		for _, e := range snap.Events {
			if strings.HasPrefix(e.Type, "restart") &&
				(e.Unit != "worker" || e.Operator == nil || e.Operator.UID != 7) {
				t.Errorf("%+v, want it of the unit and by user 7", e)
			}
		}
		m.stop(nil)
	})
}

func TestRestartStopsAtTheFirstWorkerThatDoesNotGetReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1 }
		})
		all := RestartRequest{Workers: []string{"worker-0", "worker-1", "worker-2"}}
		progress, err := m.restarted(t.Context(), all)
		const want = "replaced 0 of 3 workers: worker-0 is not ready: exited with code 3"
		if err == nil || err.Error() != want {
			t.Errorf("Restart = %v, want %q", err, want)
		}
		last := "worker-0 failed: worker-0 is not ready: exited with code 3"
		if len(progress) == 0 || progress[len(progress)-1] != last {
			t.Errorf("progress was %q, want %q in the end", progress, last)
		}
		for _, id := range []string{"worker-1", "worker-2"} {
			if w := m.worker(id); !w.Ready || w.Incarnation != 1 {
				t.Errorf("%s = %+v, want it untouched", id, w)
			}
		}
		if left := m.rollouts(t); len(left) != 0 {
			t.Errorf("%v is still recorded", left)
		}
		if got := m.rolled(t, "restart-stopped"); len(got) != 1 || got[0] != "restart-stopped worker: "+want {
			t.Errorf("events are %q", got)
		}
		m.stop(nil)
	})
}

func TestRestartOfOutdatedWorkersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) {
				if p.worker == "worker-1" {
					p.exitsAfter, p.readyAfter = time.Second, -1
				}
			}
		})
		changed := unitOf(t, "worker", 2, "--new")
		if err := m.Apply(t.Context(), changed); err == nil {
			t.Fatal("Apply succeeds though worker-1 does not get ready")
		}
		world.set(func() { world.behave = nil })
		settle(time.Minute)
		if m.ids() != "worker-0 running, worker-1 running" {
			t.Fatalf("workers are %s", m.ids())
		}
		both := RestartRequest{Workers: []string{"worker-0", "worker-1"}, Outdated: true}
		progress, err := m.restarted(t.Context(), both)
		if err != nil || len(progress) != 0 {
			t.Errorf("Restart = %v, %q; want nothing done, since none is outdated", err, progress)
		}
		m.stop(nil)
	})
}

func TestRestartRefusesWorkersThatDoNotExist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		_, err := m.Restart(t.Context(), RestartRequest{Workers: []string{"worker-0", "worker-1"}}, nil)
		if !errors.Is(err, ErrNoWorkers) || world.starts("worker-0") != 1 {
			t.Errorf("Restart = %v, and worker-0 was started %d times", err, world.starts("worker-0"))
		}
		if _, err := m.restarted(t.Context(), RestartRequest{Workers: []string{"worker-0"}}); err != nil {
			t.Errorf("Restart after one that was refused = %v", err)
		}
		m.stop(nil)
	})
}

// A restart goes on if nobody waits for it, and another change waits for it.
func TestRestartDoesNotDependOnItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 2)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + 10*time.Second }
		})
		ctx, leave := context.WithCancel(t.Context())
		r, err := m.Restart(ctx, RestartRequest{Workers: []string{"worker-0", "worker-1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		if err := r.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v, want the end of its context", err)
		}
		if err := m.Apply(t.Context(), unitOf(t, "worker", 2)); err != nil {
			t.Error(err)
		}
		if world.starts("worker-0") != 2 || world.starts("worker-1") != 2 {
			t.Errorf("it did %q, want both restarted before the other change", world.did())
		}
		m.stop(nil)
	})
}

// A restart that is cut off at any moment is completed by the next master, behind the same gates.
func TestRestartCutOffByACrashIsCompleted(t *testing.T) {
	for _, order := range []func(*unit.Spec){func(*unit.Spec) {}, startFirst} {
		for moment := range 16 {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + time.Second }
				m := startMaster(t, world, dir, 3, order)
				settle(2 * time.Second)
				all := RestartRequest{Workers: []string{"worker-0", "worker-1", "worker-2"}}
				if _, err := m.Restart(t.Context(), all, nil); err != nil {
					t.Fatal(err)
				}
				settle(time.Duration(moment) * 300 * time.Millisecond)
				m.crash()
				world.set(func() { world.acts = nil })
				m = startMaster(t, world, dir, 3, order)
				settle(time.Minute)
				m.wantReplacedOnce(world, moment)
				m.stop(nil)
			})
		}
	}
}

// The next master does not go on after a failure.
func TestRestartCutOffByACrashStopsAtAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 3)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = 5*time.Second, 3, -1 }
		})
		all := RestartRequest{Workers: []string{"worker-0", "worker-1", "worker-2"}}
		if _, err := m.Restart(t.Context(), all, nil); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		m.crash()
		m = startMaster(t, world, dir, 3)
		settle(time.Minute)
		for _, id := range []string{"worker-1", "worker-2"} {
			if w := m.worker(id); !w.Ready || w.Incarnation != 1 {
				t.Errorf("%s = %+v, want it untouched", id, w)
			}
		}
		got := m.rolled(t, "restart")
		if len(got) != 3 || got[1] != "restart-resumed worker: worker-0 worker-1 worker-2" ||
			got[2] != "restart-stopped worker: replaced 0 of 3 workers: worker-0 is not ready: exited with code 3" {
			t.Errorf("events are %q", got)
		}
		if left := m.rollouts(t); len(left) != 0 {
			t.Errorf("%v is still recorded", left)
		}
		m.stop(nil)
	})
}

// changes are the changes that replace all workers of a unit.
var changes = map[string]func(m *master, t *testing.T, changed unit.Spec) error{
	"reload": func(m *master, t *testing.T, changed unit.Spec) error {
		t.Helper()
		changed.Args = []string{"--new"}
		return m.Apply(t.Context(), changed)
	},
	"restart": func(m *master, t *testing.T, changed unit.Spec) error {
		t.Helper()
		var req RestartRequest
		for i := range changed.Replicas {
			req.Workers = append(req.Workers, changed.WorkerID(i))
		}
		_, err := m.restarted(t.Context(), req)
		return err
	},
}

// With start-first, as many workers as are wanted are ready at any time.
func TestStartFirstKeepsAllReplicasReady(t *testing.T) {
	for name, change := range changes {
		for _, count := range []int{1, 3} {
			synctest.Test(t, func(t *testing.T) {
				world := newFakeOS(t)
				m := startMaster(t, world, t.TempDir(), count, startFirst)
				settle(time.Second)
				world.set(func() {
					world.acts = nil
					world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + time.Second }
				})
				changed := unitOf(t, "worker", count)
				startFirst(&changed)
				if err := change(m, t, changed); err != nil {
					t.Fatal(err)
				}
				spare := changed.WorkerID(count)
				acts := startsAndStops(world)
				if len(acts) != 2+2*count || acts[0] != "start "+spare ||
					!strings.HasPrefix(acts[len(acts)-1], "terminate ") {
					t.Errorf("%s: it did %q, want %s started first, and stopped last", name, acts, spare)
				}
				if len(m.Workers()) != count || world.living() != count {
					t.Errorf("%s: workers are %s, %d processes live", name, m.ids(), world.living())
				}
				for _, w := range m.Workers() {
					if w.Incarnation != 2 || !w.Ready || w.Outdated {
						t.Errorf("%s: %s = %+v, want it replaced", name, w.ID, w)
					}
				}
				m.stop(nil)
			})
		}
	}
}

// A new version that never becomes ready fails as a spare worker, and touches no other.
func TestStartFirstTouchesNoWorkerIfTheSpareDoesNotGetReady(t *testing.T) {
	for name, change := range changes {
		synctest.Test(t, func(t *testing.T) {
			world := newFakeOS(t)
			m := startMaster(t, world, t.TempDir(), 2, startFirst)
			settle(time.Second)
			world.set(func() {
				world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Second, 3, -1 }
			})
			changed := unitOf(t, "worker", 2)
			startFirst(&changed)
			err := change(m, t, changed)
			if err == nil || !strings.Contains(err.Error(), "worker-2 is not ready: exited with code 3") {
				t.Errorf("%s = %v, want the failure of the spare worker", name, err)
			}
			settle(time.Minute)
			if m.ids() != "worker-0 running, worker-1 running" || world.living() != 2 {
				t.Errorf("%s: workers are %s, %d processes live", name, m.ids(), world.living())
			}
			for _, w := range m.Workers() {
				if w.Incarnation != 1 || !w.Ready || w.Outdated != (name == "reload") {
					t.Errorf("%s: %s = %+v, want it untouched", name, w.ID, w)
				}
			}
			m.stop(nil)
		})
	}
}

// A reload that is cut off at any moment is completed by the next master with the same units.
func TestReloadCutOffByACrashReplacesTheRemainingWorkers(t *testing.T) {
	for _, order := range []func(*unit.Spec){func(*unit.Spec) {}, startFirst} {
		for moment := range 16 {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + time.Second }
				m := startMaster(t, world, dir, 3, order)
				settle(2 * time.Second)
				changed := unitOf(t, "worker", 3, "--new")
				order(&changed)
				ended := make(chan error, 1)
				go func() { ended <- m.Apply(t.Context(), changed) }()
				settle(time.Duration(moment) * 300 * time.Millisecond)
				m.crash()
				if err := <-ended; err == nil && moment < 9 {
					t.Errorf("crash %d: Apply succeeds", moment)
				}
				m = startUnits(t, world, openStore(t, world, dir), changed)
				settle(time.Minute)
				m.wantReplacedOnce(world, moment)
				m.stop(nil)
			})
		}
	}
}

// A reload with fewer replicas keeps the worker that is not wanted any more as the spare one.
func TestStartFirstWithFewerReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3, startFirst)
		settle(time.Second)
		world.set(func() { world.acts = nil })
		changed := unitOf(t, "worker", 2, "--new")
		startFirst(&changed)
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		starts := slices.DeleteFunc(world.did(), func(act string) bool { return !strings.HasPrefix(act, "start ") })
		if fmt.Sprint(starts) != "[start worker-2 start worker-0 start worker-1]" {
			t.Errorf("it did %q, want the surplus worker replaced first", world.did())
		}
		if m.ids() != "worker-0 running, worker-1 running" || world.living() != 2 {
			t.Errorf("workers are %s, %d processes live", m.ids(), world.living())
		}
		m.stop(nil)
	})
}

// The next master removes a spare worker that its units do not allow any more.
func TestSpareWorkerGoesIfTheUnitsOfTheNextMasterHaveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, startFirst)
		settle(time.Second)
		world.set(func() {
			world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + 10*time.Second }
		})
		if _, err := m.Restart(t.Context(), RestartRequest{Workers: []string{"worker-0"}}, nil); err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if got := m.ids(); got != "worker-0 running, worker-1 running, worker-2 starting" {
			t.Errorf("workers are %s", got)
		}
		m.crash()
		m = startMaster(t, world, dir, 2)
		settle(time.Minute)
		if m.ids() != "worker-0 running, worker-1 running" || world.living() != 2 {
			t.Errorf("workers are %s, %d processes live", m.ids(), world.living())
		}
		if w := m.worker("worker-0"); w.Incarnation != 2 {
			t.Errorf("worker-0 = %+v, want it restarted", w)
		}
		m.stop(nil)
	})
}

// An orderly stop ends a restart, and the next master begins with all workers, without a spare one in the end.
func TestStopDuringARestart(t *testing.T) {
	for _, order := range []func(*unit.Spec){func(*unit.Spec) {}, startFirst} {
		synctest.Test(t, func(t *testing.T) {
			world, dir := newFakeOS(t), t.TempDir()
			m := startMaster(t, world, dir, 2, order)
			settle(time.Second)
			world.set(func() {
				world.behave = func(p *fakeProcess) { p.readyAfter = time.Since(world.birth) + 10*time.Second }
			})
			both := RestartRequest{Workers: []string{"worker-0", "worker-1"}}
			r, err := m.Restart(t.Context(), both, nil)
			if err != nil {
				t.Fatal(err)
			}
			settle(time.Second)
			m.stop(nil)
			if err := r.Wait(t.Context()); !errors.Is(err, worker.ErrStopping) {
				t.Errorf("Wait = %v, want that the master stops", err)
			}
			m = startMaster(t, world, dir, 2, order)
			settle(time.Minute)
			if m.ids() != "worker-0 running, worker-1 running" || world.living() != 2 {
				t.Errorf("workers are %s, %d processes live", m.ids(), world.living())
			}
			got := m.rolled(t, "restart")
			if len(got) != 3 || got[2] != "restart-completed worker" {
				t.Errorf("events are %q, want the restart resumed and completed", got)
			}
			m.stop(nil)
		})
	}
}

// A worker with a call in flight gets no new one, and is signalled when the call has ended.
func TestRestartDrainsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		call, err := m.TryAcquire(unit.DefaultService, "")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(2 * time.Second)
			if slices.Contains(startsAndStops(world), "terminate worker-0") {
				t.Error("it is signalled during the call")
			}
			if _, err := m.TryAcquire(unit.DefaultService, ""); !errors.Is(err, ErrNoWorker) {
				t.Errorf("another call: %v, want no worker for it", err)
			}
			call.End(nil)
		}()
		progress, err := m.restarted(t.Context(), RestartRequest{Workers: []string{"worker-0"}})
		want := []string{"worker-0 draining", "worker-0 stopping", "worker-0 starting", "worker-0 ready"}
		if err != nil || !slices.Equal(progress, want) {
			t.Errorf("%v, progress was %q, want %q", err, progress, want)
		}
		m.stop(nil)
	})
}

// wantReplacedOnce checks that each of the three workers was replaced once, although a master crashed at a moment of
// the rollout, and that nothing of the rollout is left.
func (m *master) wantReplacedOnce(world *fakeOS, moment int) {
	m.t.Helper()
	if m.ids() != "worker-0 running, worker-1 running, worker-2 running" || world.living() != 3 {
		m.t.Errorf("crash %d: workers are %s, %d processes live", moment, m.ids(), world.living())
	}
	for _, w := range m.Workers() {
		if w.Incarnation != 2 || !w.Ready || w.Outdated {
			m.t.Errorf("crash %d: %s is of incarnation %d, ready %t, outdated %t; want 2", moment, w.ID, w.Incarnation,
				w.Ready, w.Outdated)
		}
	}
	if left := m.rollouts(m.t); len(left) != 0 {
		m.t.Errorf("crash %d: %v is still recorded", moment, left)
	}
}
