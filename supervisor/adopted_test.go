package supervisor

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// A worker that was ready, is proven and owns its port gets calls before it has answered a check. The first one takes
// it out of rotation.
func TestAdoptedWorkerServesBeforeItsFirstCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 2, offering("pkg.A"))
		settle(time.Minute)
		m.crash()
		hung := world.of("worker-0")
		hung.set(func() { hung.mute = true })
		m = startMaster(t, world, dir, 2, offering("pkg.A"))
		settle(0)
		if got := m.Status(); got != Running {
			t.Errorf("the master is %s at once, want %s", got, Running)
		}
		m.wantReady("pkg.A", "worker-0", "worker-1")
		health := defaults.Health.Readiness
		settle(health.Timeout + 100*time.Millisecond)
		m.wantReady("pkg.A", "worker-1")
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || !w.Adopted {
			t.Errorf("worker = %+v, want it unhealthy", w)
		}
		hung.set(func() { hung.mute = false })
		settle(health.Interval * 2)
		m.wantReady("pkg.A", "worker-0", "worker-1")
		// Later ones are counted.
		hung.set(func() { hung.mute = true })
		settle(health.Interval + health.Timeout)
		m.wantReady("pkg.A", "worker-0", "worker-1")
		m.stop(nil)
	})
}

func TestAdoptedWorkerWithoutProofWaitsForItsCheck(t *testing.T) {
	for name, test := range map[string]struct {
		status records.Status
		owner  process.Ownership
	}{
		"it was unhealthy":              {records.StatusUnhealthy, process.PortOurs},
		"the port's owner is not known": {records.StatusRunning, process.PortUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				m := startMaster(t, world, dir, 1, offering("pkg.A"))
				settle(time.Minute)
				rec := m.recorded("worker-0")
				rec.Status = test.status
				m.crashWith(rec)
				p := world.of("worker-0")
				p.set(func() { p.mute, p.owner = true, test.owner })
				m = startMaster(t, world, dir, 1, offering("pkg.A"))
				health := defaults.Health.Readiness
				for range 3 {
					settle(health.Timeout / 2)
					m.wantReady("pkg.A")
				}
				p.set(func() { p.mute = false })
				settle(2 * health.Interval)
				m.wantReady("pkg.A", "worker-0")
				m.stop(nil)
			})
		})
	}
}

// A worker without a port is proven by its process.
func TestAdoptedWorkerWithoutPortServesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		noPort := func(u *unit.Spec) { u.Port, u.NoServices = unit.NoPort, true }
		m := startMaster(t, world, dir, 1, noPort)
		settle(time.Minute)
		m.crash()
		m = startMaster(t, world, dir, 1, noPort)
		settle(0)
		m.wantStatus("adopted", records.StatusRunning, 1, world)
		m.stop(nil)
	})
}

// What can wait until the master serves is done in turns, so that the first calls do not wait for it: the event of an
// adoption is written in the turn of its worker.
func TestAdoptionsAreWrittenInTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 25)
		settle(time.Minute)
		m.crash()
		m = startMaster(t, world, dir, 25)
		for _, want := range []int{1, 11, 21, 25} {
			settle(time.Millisecond)
			snap, err := m.store.Snapshot()
			if err != nil {
				t.Fatal(err)
			}
			adopted := 0
			for _, e := range snap.Events {
				if e.Type == "adopted" {
					adopted++
				}
			}
			if adopted != want {
				t.Errorf("%d adoptions are written, want %d", adopted, want)
			}
			settle(19 * time.Millisecond)
		}
		m.stop(nil)
	})
}
