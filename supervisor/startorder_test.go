package supervisor

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// Of many starts the first processes are forked while most of the others are not prepared yet.
func TestForksPrecedeTheLastPreparation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := runtime.GOMAXPROCS(0)
		workers := 4 * places
		world := newFakeOS(t)
		forked := make(chan struct{})
		begun, atFirst := 0, 0
		world.leased = func() {
			var early bool
			world.set(func() {
				begun++
				early = begun <= places
			})
			if !early {
				<-forked
			}
		}
		world.behave = func(*fakeProcess) {
			if atFirst == 0 {
				atFirst = begun
				close(forked)
			}
		}
		m := startMaster(t, world, t.TempDir(), workers)
		settle(time.Second)
		if n := world.living(); n != workers {
			t.Errorf("%d workers live, want %d", n, workers)
		}
		if atFirst > 2*places {
			t.Errorf("%d of %d starts had begun at the first fork, want %d at most", atFirst, workers, 2*places)
		}
		m.stop(nil)
	})
}
