package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
)

// If process 1 does not reap orphans, as in many containers, dead processes can be opened like living ones.
func TestWorkerThatDiedWhileAwayAndWasNotReapedIsNoAdoptedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1)
		settle(time.Second)
		m.crash()
		first := world.of("worker-0")
		first.unreaped = true
		first.die(identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitStat})
		settle(time.Hour) // the worker was not ready during that time

		m = startMaster(t, world, dir, 1)
		settle(10 * time.Millisecond)
		w := m.worker("worker-0")
		if w.LastExit == nil || w.LastExit.Signal != syscall.SIGKILL || w.Restarts != 1 {
			t.Errorf("%+v, want its exit known and one restart", w)
		}
		if w.History.ReadyClock > time.Minute {
			t.Errorf("it was credited with %s of being ready, most of which it was dead", w.History.ReadyClock)
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

// A process without a record is found by its environment. It may die after it was proven and before it is adopted; it
// then has an exit like any other worker, and its family and that of the recorded instance are ended before the next
// start.
func TestProcessWithoutARecordThatDiesWhileItIsInspected(t *testing.T) {
	for name, edit := range map[string]func(*records.Worker){
		"no record": lost0,
		"another record": func(w *records.Worker) {
			other := *w.Instance
			other.PID, other.Token = 4, "other"
			w.Instance = &other
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				world, dir := newFakeOS(t), t.TempDir()
				m := startMaster(t, world, dir, 1)
				settle(time.Second)
				world.masterID, world.stateDir = m.store.MasterID(), m.store.StateDirID().String()
				m.crash()
				first := world.of("worker-0")
				rewrite(t, dir, edit)
				first.diesAtLook = 2 // the first look proves it

				m = startMaster(t, world, dir, 1)
				settle(time.Second)
				w := m.worker("worker-0")
				if w.Status != records.StatusRunning || world.starts("worker-0") != 2 || first.kills == 0 {
					t.Errorf("%+v after %d starts, want it started again after its family was killed (%d)",
						w, world.starts("worker-0"), first.kills)
				}
				if w.LastExit == nil || w.LastExit.Signal != syscall.SIGKILL {
					t.Errorf("last exit %+v, want SIGKILL", w.LastExit)
				}
				m.stop(nil)
			})
		})
	}
}
