package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// Where process 1 does not reap, as in many a container, the dead can be opened
// like the living.
func TestWorkerThatDiedWhileAwayAndWasNotReapedIsNoAdoptedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.crash()
		first := world.of("worker-0")
		first.unreaped = true
		first.die(process.Exit{Signal: syscall.SIGKILL, Source: process.ExitStat})
		settle(time.Hour) // in which it was not ready

		m = startMaster(t, world, dir, 1)
		settle(10 * time.Millisecond)
		w := m.worker("worker-0")
		if w.LastExit == nil || w.LastExit.Signal != int(syscall.SIGKILL) || w.Restarts != 1 {
			t.Errorf("%+v, want its exit known and one restart", w)
		}
		if w.Budget.ReadyClock > time.Minute {
			t.Errorf("it was credited with %s of being ready, most of which it was dead", w.Budget.ReadyClock)
		}
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range snap.Events {
			if e.Type == "adopted" || e.Type == "unhealthy" {
				t.Errorf("the history says of the dead: %+v", e)
			}
		}
		settle(time.Second)
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("started %d times, want 2", n)
		}
		m.stop(nil)
	})
}
