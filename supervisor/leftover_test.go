package supervisor

import (
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
)

func TestDescendantThatDoesNotDieIsTriedAgainAtIntervalsAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Second)
		first := world.of("worker-0")
		first.mu.Lock()
		first.immortalUntil = time.Now().Add(time.Minute)
		first.mu.Unlock()
		first.die(identity.Exit{Signal: syscall.SIGSEGV, Source: identity.ExitWait})
		settle(30 * time.Second)
		first.mu.Lock()
		if first.kills < 10 || first.kills > 40 {
			t.Errorf("tried %d times in 30 s, want about once a second", first.kills)
		}
		first.mu.Unlock()
		if n := world.starts("worker-0"); n != 1 {
			t.Errorf("started %d times beside what is left of the first, want 1", n)
		}
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || w.Ready ||
			!strings.HasPrefix(w.Reason, "held: 1 processes of it could not be killed") {
			t.Errorf("%+v, want people to be told what it waits for", w)
		}
		snap, err := m.store.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, e := range snap.Events {
			if e.Type == "leftover" {
				told++
			}
		}
		if told != 1 {
			t.Errorf("told %d times, want once", told)
		}
		settle(time.Minute)
		if w := m.worker("worker-0"); w.Status != records.StatusRunning || w.Reason != "" || w.LastExit == nil ||
			w.LastExit.Signal != syscall.SIGSEGV {
			t.Errorf("%+v, want it running, and how the first ended", w)
		}
		if n := world.starts("worker-0"); n != 2 {
			t.Errorf("started %d times after the rest was gone, want 2", n)
		}
		m.stop(nil)
	})
}
