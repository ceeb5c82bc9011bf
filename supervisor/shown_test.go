package supervisor

import (
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
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
