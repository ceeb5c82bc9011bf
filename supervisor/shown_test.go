package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// A reader owns the information that it was given: the worker's goroutine continues and must not write to it.
func TestWhatWasShownOfAWorkerDoesNotChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		var shown []worker.Info
		world.behave = func(*fakeProcess) { shown = m.Workers() } // between the intent and the fact
		world.of("worker-0").die(identity.Exit{Signal: syscall.SIGKILL, Source: identity.ExitWait})
		settle(time.Second)
		if len(shown) != 1 || shown[0].Instance == nil || shown[0].Instance.PID != 0 {
			t.Errorf("shown while it was being started: %+v, want an instance that has no pid yet", shown)
		}
		if pid := m.worker("worker-0").Instance.PID; pid == 0 {
			t.Errorf("shown afterwards: no pid")
		}
		m.stop(nil)
	})
}

// Readers are woken by changes. A passed check that changes nothing is none, and the first one after a change is.
func TestPassedChecksWakeNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		world.unrotated = true
		m := startMaster(t, world, t.TempDir(), 1, byHTTP, withoutServices)
		settle(time.Minute)
		changed, stop := m.services.Watch()
		defer stop()
		woken := func() bool {
			select {
			case <-changed:
				return true
			default:
				return false
			}
		}
		woken()
		before := world.checked()
		settle(time.Minute)
		if world.checked() < before+10 || woken() {
			t.Errorf("readers were woken within a minute of %d passed checks", world.checked()-before)
		}
		world.answer(probe.TypeHTTP, errDown)
		m.await("worker-0", records.StatusUnhealthy, time.Minute)
		world.answer(probe.TypeHTTP, nil)
		m.await("worker-0", records.StatusRunning, time.Minute)
		if !woken() {
			t.Error("readers were not woken when the worker became unhealthy, and healthy again")
		}
		settle(time.Minute)
		woken()
		settle(time.Minute)
		if woken() {
			t.Error("readers were woken by passed checks after that")
		}
		m.stop(nil)
	})
}
