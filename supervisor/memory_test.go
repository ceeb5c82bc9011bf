package supervisor

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const memoryReason = "memory 512MiB is above memory_restart 480MiB"

func memoryLimited(u *unit.Spec) { u.MemoryRestart = 480 << 20 }

// read returns the number of readings.
func (o *fakeOS) read() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.readings
}

func (p *fakeProcess) grow(resident int64) { p.set(func() { p.resident = resident }) }

// The worker is drained and started again after two readings above its limit, with the reason in its history.
func TestWorkerAboveItsMemoryIsRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1, memoryLimited)
		settle(time.Minute)
		p := world.of("worker-0")
		p.grow(480 << 20)
		settle(time.Minute)
		if p.isDead() {
			t.Fatal("it was restarted at its limit")
		}
		p.grow(512 << 20)
		for before := world.read(); world.read() == before; {
			settle(100 * time.Millisecond)
		}
		p.grow(1 << 20) // a spike, which one reading has seen
		settle(time.Minute)
		if p.isDead() {
			t.Fatal("it was restarted for a spike")
		}
		p.grow(512 << 20)
		settle(11 * time.Second)
		if w := m.worker("worker-0"); world.starts("worker-0") != 2 || w.Restarts != 1 || !w.Ready {
			t.Errorf("after two readings: %+v, %d starts", w, world.starts("worker-0"))
		}
		if !slices.Contains(world.did(), "terminate worker-0") {
			t.Errorf("it was not asked to end: %v", world.did())
		}
		var history []string
		snap, err := world.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range snap.Events {
			if e.Detail == memoryReason {
				history = append(history, e.Type)
			}
		}
		if want := []string{"memory", "stopping", "exited"}; !slices.Equal(history, want) {
			t.Errorf("events with the reason: %q, want %q", history, want)
		}
		m.stop(nil)
	})
}

// A worker that leaks without end costs its budget, and backs off.
func TestEndlessLeakUsesUpTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.behave = func(p *fakeProcess) { p.resident = 512 << 20 }
		m := startMaster(t, world, t.TempDir(), 1, memoryLimited, func(u *unit.Spec) {
			u.Restart.Mode = unit.RestartNever
		})
		m.await("worker-0", records.StatusFailed, 10*time.Minute)
		w := m.worker("worker-0")
		if want := "restart budget 10/5m used up: " + memoryReason; w.Reason != want || world.starts("worker-0") != 11 {
			t.Errorf("reason %q after %d starts, want %q", w.Reason, world.starts("worker-0"), want)
		}
		m.stop(nil)
	})
}

// Replicas that grow alike are restarted one after the other, and a stopped process is left alone.
func TestReplicasAreRestartedForMemoryOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 3, memoryLimited)
		settle(time.Minute)
		for i, id := range []string{"worker-0", "worker-1", "worker-2"} {
			world.of(id).grow(int64(500+i) << 20)
		}
		stopped := world.of("worker-2")
		stopped.set(func() { stopped.suspended = true })
		settle(11 * time.Second)
		if world.starts("worker-1") != 2 || world.starts("worker-0") != 1 || stopped.isDead() {
			t.Errorf("after two readings: %v", world.did())
		}
		settle(5 * time.Second)
		if world.starts("worker-0") != 2 || world.starts("worker-1") != 2 || stopped.isDead() {
			t.Errorf("after three readings: %v", world.did())
		}
		stopped.set(func() { stopped.suspended = false })
		settle(10 * time.Second)
		if world.starts("worker-2") != 2 {
			t.Errorf("after its continuation: %v", world.did())
		}
		m.stop(nil)
	})
}

// Nothing is read unless somebody asks or a unit has a limit, and a limit that a change of the units adds, raises or
// removes applies to the living worker.
func TestLimitOfMemoryChangesWithoutARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Hour)
		if n := world.read(); n != 0 {
			t.Errorf("%d readings without a limit", n)
		}
		p := world.of("worker-0")
		p.grow(512 << 20)
		apply := func(limit int64) {
			t.Helper()
			u := unitOf(t, "worker", 1)
			u.MemoryRestart = limit
			if err := m.Apply(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		apply(1 << 30)
		settle(time.Minute)
		if n := world.read(); p.isDead() || n < 11 || n > 13 {
			t.Errorf("below its limit: %d readings in a minute, %v", n, world.did())
		}
		apply(0)
		settle(5 * time.Second)
		before := world.read()
		settle(time.Minute)
		if n := world.read() - before; n != 0 || p.isDead() {
			t.Errorf("%d readings after the limit was removed", n)
		}
		apply(480 << 20)
		if settle(4 * time.Second); p.isDead() {
			t.Error("the reload restarted it")
		}
		settle(7 * time.Second)
		if world.starts("worker-0") != 2 {
			t.Errorf("above the new limit: %v", world.did())
		}
		m.stop(nil)
	})
}

// A master that is killed during the stop leaves it to the next one, which completes the restart.
func TestRestartForMemorySurvivesTheMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		never := func(u *unit.Spec) { u.Restart.Mode = unit.RestartNever }
		m := startMaster(t, world, dir, 1, memoryLimited, never)
		settle(time.Minute)
		p := world.of("worker-0")
		p.set(func() { p.ignoresTerm = true })
		p.grow(512 << 20)
		m.await("worker-0", records.StatusStopping, 20*time.Second)
		m.crash()
		m = startMaster(t, world, dir, 1, memoryLimited, never)
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 2 {
			t.Errorf("worker = %+v after %d starts, want another instance", w, world.starts("worker-0"))
		}
		m.stop(nil)
	})
}
