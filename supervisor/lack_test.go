package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

// A resource that the master lacks for a while costs the worker nothing, neither then nor later, and the history
// keeps room for all other events.
func TestFaultsOfTheMasterCostNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		broken := true
		world.behave = func(p *fakeProcess) {
			if broken {
				p.startErr = syscall.EAGAIN // RLIMIT_NPROC, fork(2)
			}
		}
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Hour)
		w := m.worker("worker-0")
		if w.Status != records.StatusBackoff || len(w.History.Spent) != 0 || w.History.Backoff != 0 ||
			world.starts("worker-0") < 20 {
			t.Errorf("after an hour: %s, budget %+v, %d starts, want it tried on and on at no cost",
				w.Status, w.History, world.starts("worker-0"))
		}
		if snap, err := m.store.Snapshot(); err != nil || len(snap.Events) > 20 {
			t.Errorf("after %d starts the history has %d events, %v", world.starts("worker-0"), len(snap.Events), err)
		}
		world.mu.Lock()
		broken = false
		world.mu.Unlock()
		settle(lifecycle.OwnFaultRetry)
		if w := m.worker("worker-0"); !w.Ready {
			t.Errorf("worker is %s when the fault is gone, want it running", w.Status)
		}
		m.stop(nil)
	})
}
