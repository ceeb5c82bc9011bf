package supervisor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func essential(mode unit.RestartMode) func(*unit.Spec) {
	return func(u *unit.Spec) { u.Essential, u.Restart.Mode = true, mode }
}

// wantEnd waits until Serve has ended by itself because of that worker.
func (m *master) wantEnd(worker, reason string, succeeded bool) {
	m.t.Helper()
	var err error
	select {
	case err = <-m.ended:
	case <-time.After(time.Hour):
		m.t.Fatal("the master runs on")
	}
	e, ok := errors.AsType[*EssentialError](err)
	if !ok || e.Worker != worker || e.Reason != reason || e.Succeeded != succeeded || e.Err != nil {
		m.t.Errorf("Serve = %+v, want the end of %s: %s, with success: %t", err, worker, reason, succeeded)
	}
	m.end(nil)
	if err := m.store.Close(); err != nil {
		m.t.Errorf("store closed with %v", err)
	}
}

// Serve stops all workers when an essential one ends. The next one starts it once, and ends again if it ends again.
func TestEndOfAnEssentialWorkerEndsTheMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, essential(unit.RestartNever))
		settle(time.Second)
		world.of("worker-1").die(identity.Exit{Code: 3, Source: identity.ExitWait})
		m.wantEnd("worker-1", "exited with code 3", false)
		if n := world.living(); n != 0 {
			t.Errorf("%d processes live after the end", n)
		}
		world.behave = func(p *fakeProcess) {
			if p.worker == "worker-1" {
				p.exitsAfter = 2 * time.Second // with code 0
			}
		}
		m = startMaster(t, world, dir, 2, essential(unit.RestartNever))
		<-m.Recovered()
		m.wantEnd("worker-1", "exited with code 0", true)
		if n, others := world.starts("worker-1"), world.starts("worker-0"); n != 2 || others != 2 {
			t.Errorf("%d and %d starts, want one for each master", n, others)
		}
		rewrite(t, dir, func(w *records.Worker) {
			if w.ID == "worker-1" && w.Status != records.StatusCompleted {
				t.Errorf("%+v, want it completed", w)
			}
		})
	})
}

// The one start of the next master is outside of the budget, which is not filled again.
func TestNextMasterStartsAFailedEssentialWorkerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode, p.readyAfter = time.Millisecond, 3, -1 }
		m := startMaster(t, world, dir, 1, essential(unit.RestartAlways))
		m.wantEnd("worker-0", "restart budget 10/5m used up: exited with code 3", false)
		starts := world.starts("worker-0")
		for range 2 {
			m = startMaster(t, world, dir, 1, essential(unit.RestartAlways))
			m.wantEnd("worker-0", "restart budget 10/5m used up: exited with code 3", false)
			if n := world.starts("worker-0"); n != starts+1 {
				t.Errorf("%d more starts, want one", n-starts)
			}
			starts++
		}
		// A master that is killed after the end of the worker and before its own end.
		world.behave = nil
		planned := world.plan(dir, 1, essential(unit.RestartAlways))
		if d := planned[0]; d.Action != recovery.ActionRespawn ||
			!strings.HasSuffix(d.Reason, "so it is started once") {
			t.Errorf("%+v, want it started once", d)
		}
		m = startMaster(t, world, dir, 1, essential(unit.RestartAlways))
		settle(time.Second)
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("%+v, want it ready", w)
		}
		world.of("worker-0").die(identity.Exit{Code: 3, Source: identity.ExitWait})
		m.wantEnd("worker-0", "restart budget 10/5m used up: exited with code 3", false)
	})
}

// An essential worker that ends while no master runs is started by the next one, which does not end.
func TestEssentialWorkerThatEndsWhileNoMasterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, essential(unit.RestartNever))
		settle(time.Second)
		m.crash()
		world.of("worker-0").die(identity.Exit{Source: identity.ExitStat})
		m = startMaster(t, world, dir, 1, essential(unit.RestartNever))
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || w.Incarnation != 2 {
			t.Errorf("%+v, want it started once more", w)
		}
		m.stop(nil)
	})
}

// What an operator or a change of the units wants does not end the master.
func TestWantedEndsOfEssentialWorkersAreNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, essential(unit.RestartNever))
		settle(time.Second)
		changed := unitOf(t, "worker", 2, "--new")
		essential(unit.RestartNever)(&changed)
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		changed.Replicas = 1
		if err := m.Apply(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Scale(t.Context(), "worker", 0); err != nil {
			t.Fatal(err)
		}
		settle(time.Minute)
		if m.Status() != Running || world.living() != 0 {
			t.Errorf("the master is %s with %d processes, want it running without any", m.Status(), world.living())
		}
		m.stop(nil)
	})
}
