package supervisor

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// untilTerminated returns the time until the silent worker gets SIGTERM, or most if it gets none before.
func untilTerminated(t *testing.T, world *fakeOS, m *master, most time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < most {
		settle(100 * time.Millisecond)
		if slices.Contains(world.did(), "terminate worker-0") {
			return time.Since(began)
		}
		if w := m.worker("worker-0"); w.Ready && time.Since(began) > 15*time.Second {
			t.Fatalf("worker = %+v, want it to get no calls", w)
		}
	}
	return most
}

// silent is a worker that stops to answer, and the expected reaction.
type silent struct {
	because func(*fakeProcess)
	limit   time.Duration // of the unit
	kept    time.Duration // without SIGTERM
	reason  string        // shown a minute before that
}

var silences = map[string]silent{
	"a sleeping deadlock":                        {because: func(p *fakeProcess) { p.load = 0.006 }},
	"a deadlock beside a timer of a millisecond": {because: func(p *fakeProcess) { p.load = 0.035 }},
	"a livelock": {
		because: func(p *fakeProcess) { p.load = 0.93 }, kept: 5 * time.Minute,
		reason: "busy (93% of a core), ended at 5m0s",
	},
	"a process that waits for a disk": {
		because: func(p *fakeProcess) { p.blocked = true }, kept: 5 * time.Minute,
		reason: "busy (0% of a core, waits for a disk), ended at 5m0s",
	},
	"one that cannot be measured": {
		because: func(p *fakeProcess) { p.usageErr = errors.New("no /proc") }, kept: 5 * time.Minute,
		reason: "busy (its processor time is unknown: no /proc), ended at 5m0s",
	},
	"a livelock with a limit": {
		because: func(p *fakeProcess) { p.load = 1 }, limit: 2 * time.Minute, kept: 2 * time.Minute,
		reason: "busy (100% of a core), ended at 2m0s",
	},
	"a livelock without patience": {because: func(p *fakeProcess) { p.load = 1 }, limit: -1},
}

func TestBusyIsNotDead(t *testing.T) {
	for name, test := range silences {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { test.play(t) }) })
	}
}

func (test silent) play(t *testing.T) {
	world := newFakeOS(t)
	m := startMaster(t, world, t.TempDir(), 1, func(u *unit.Spec) { u.Health.BusyLimit = test.limit })
	settle(time.Minute)
	p := world.of("worker-0")
	if p.measured != 0 {
		t.Errorf("a healthy worker was measured %d times", p.measured)
	}
	p.set(func() { p.mute = true; test.because(p) })
	latest := test.kept + 25*time.Second
	if test.kept > 0 {
		settle(test.kept - time.Minute)
		what, use, _ := strings.Cut(m.worker("worker-0").Reason, ": ")
		lasts, err := time.ParseDuration(strings.TrimPrefix(what, "no answer to Ping for "))
		if err != nil || lasts < test.kept-time.Minute-15*time.Second || use != test.reason {
			t.Errorf("reason = %q for %q (%s), want %q", use, what, lasts, test.reason)
		}
		test.kept, latest = time.Minute, latest-(test.kept-time.Minute)
	}
	if got := untilTerminated(t, world, m, latest); got < test.kept || got >= latest {
		t.Errorf("SIGTERM after %s, want it after %s to %s", got, test.kept, latest)
	}
	m.stop(nil)
}

// A worker that compiles for four minutes is back when it is done, and its record was not written at each check.
func TestWorkerThatWorksForFourMinutesSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, dir := newFakeOS(t), t.TempDir()
		m := startMaster(t, world, dir, 1, func(u *unit.Spec) { u.Health.Readiness.Passes = 2 })
		settle(time.Minute)
		p := world.of("worker-0")
		for range 2 {
			p.set(func() { p.mute, p.load = true, 1 })
			m.await("worker-0", records.StatusUnhealthy, 15*time.Second)
			before := contents(t, dir)
			settle(4*time.Minute - 15*time.Second)
			if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || w.Ready {
				t.Errorf("worker = %+v, want it alive and without calls", w)
			}
			if !maps.Equal(before, contents(t, dir)) {
				t.Error("the state was written while it was silent")
			}
			p.set(func() { p.mute, p.load = false, 0 })
			settle(1500 * time.Millisecond)
			if w := m.worker("worker-0"); w.Ready {
				t.Error("ready after one passed check, want two in a row")
			}
			settle(2 * defaults.Health.Readiness.Interval)
			if w := m.worker("worker-0"); !w.Ready || w.Reason != "" || world.starts("worker-0") != 1 {
				t.Errorf("worker = %+v, want it back", w)
			}
		}
		m.stop(nil)
	})
}

// The time of a stop by a signal is no silence.
func TestWorkerThatWasStoppedBySignalIsMeasuredAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := newFakeOS(t)
		m := startMaster(t, world, t.TempDir(), 1)
		settle(time.Minute)
		p := world.of("worker-0")
		p.set(func() { p.suspended = true })
		settle(time.Hour)
		p.set(func() { p.suspended, p.mute, p.load = false, true, 1 })
		settle(4 * time.Minute)
		if w := m.worker("worker-0"); w.Status != records.StatusUnhealthy || p.isDead() {
			t.Errorf("worker = %+v, want it kept as a busy one", w)
		}
		p.set(func() { p.mute = false })
		settle(time.Minute)
		if w := m.worker("worker-0"); !w.Ready || world.starts("worker-0") != 1 {
			t.Errorf("worker = %+v, want it back", w)
		}
		m.stop(nil)
	})
}
