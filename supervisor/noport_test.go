package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func withoutPort(u *unit.Spec) { u.Port = unit.NoPort }

func TestWorkerWithoutPortIsReadyAfterItsSettlingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, withoutPort)
		settle(defaults.Start.Settle / 2)
		w := m.worker("worker-0")
		if w.Status != records.StatusStarting || w.Ready || w.WaitingFor != "running for 1s: not yet" {
			t.Errorf("worker = %+v, want it starting and the settling time named", w)
		}
		settle(defaults.Start.Settle)
		w = m.worker("worker-0")
		if !w.Ready || w.Port != 0 || w.Instance.Port != 0 || w.Probe != "process" {
			t.Errorf("worker = %+v, want it ready without a port", w)
		}
		if list := m.Services().Snapshot(); len(list) != 0 {
			t.Errorf("services = %+v, want none", list)
		}
		m.stop(nil)
	})
}

func TestWorkerWithoutPortThatEndsBeforeItSettlesCostsItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.exitsAfter, p.exitCode = defaults.Start.Settle/2, 3 }
		m := startMaster(t, world, t.TempDir(), 1, withoutPort, givesUp)
		settle(time.Hour)
		w := m.worker("worker-0")
		if w.Status != records.StatusFailed || world.starts("worker-0") != 1+defaults.Restart.Budget.Restarts {
			t.Errorf("worker is %s after %d starts, want it failed when its budget is used up",
				w.Status, world.starts("worker-0"))
		}
		m.stop(nil)
	})
}

func TestWorkerWithoutPortIsAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, withoutPort)
		settle(time.Minute)
		m.crash()
		world.of("worker-1").die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		m = startMaster(t, world, dir, 2, withoutPort)
		settle(time.Minute)
		for id, starts := range map[string]int{"worker-0": 1, "worker-1": 2} {
			if w := m.worker(id); !w.Ready || world.starts(id) != starts || w.Adopted != (starts == 1) {
				t.Errorf("%s = %+v after %d starts, want it ready after %d", id, w, world.starts(id), starts)
			}
		}
		m.stop(nil)
	})
}

func TestSuspendedWorkerWithoutPortIsReportedNotKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, withoutPort)
		settle(time.Minute)
		p := world.of("worker-0")
		p.set(func() { p.suspended = true })
		settle(time.Hour)
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || p.isDead() {
			t.Errorf("worker = %+v, want it unhealthy and alive", w)
		}
		p.set(func() { p.suspended = false })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 1 {
			t.Errorf("worker = %+v, want it back", w)
		}
		m.stop(nil)
	})
}

// A unit may get a port, or lose it, between two masters.
func TestUnitThatLosesItsPortKeepsItsProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Minute)
		port := m.worker("worker-0").Port
		m.crash()
		m = startMaster(t, world, dir, 1, withoutPort)
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || w.Instance.Port != port || world.starts("worker-0") != 1 {
			t.Errorf("worker = %+v after %d starts, want the adopted one with port %d",
				w, world.starts("worker-0"), port)
		}
		world.of("worker-0").die(identity.Exit{Signal: 9, Source: identity.ExitWait})
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || w.Port != 0 || w.Instance.Port != 0 {
			t.Errorf("worker = %+v, want its next instance without a port", w)
		}
		m.stop(nil)
	})
}
