package lifecycle

import (
	"slices"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// The time between the end of a process and its event is that of stop.after, and the worker was not ready in it.
func TestTimeAfterTheEndIsNotTimeOfBeingReady(t *testing.T) {
	const since, now = time.Hour, time.Hour + time.Minute
	for name, test := range map[string]struct {
		ended  time.Duration
		ready  time.Duration
		action Action
	}{
		"at the end":       {0, time.Minute, ActStart}, // the first restart after 10 s is immediate
		"long before":      {since + time.Second, time.Second, ActBackOff},
		"by a wrong clock": {now + time.Hour, time.Minute, ActStart},
	} {
		s := State{Wanted: true, Status: records.StatusRunning, Slot: terminating}
		s.History.ReadySince = since
		s, act := Next(s, Event{Kind: EvExited, Ended: test.ended}, testPolicy, now)
		if act != test.action || s.History.ReadyClock != test.ready {
			t.Errorf("%s: action %v, ready for %s, want %v, %s",
				name, act, s.History.ReadyClock, test.action, test.ready)
		}
	}
}

// A start that a crash of the master has cut off is made again, unless the worker is not to be started any more.
func TestStartThatWasCutOffCostsNothing(t *testing.T) {
	for _, mode := range []unit.RestartMode{unit.RestartAlways, unit.RestartOnFailure, unit.RestartNever} {
		p := testPolicy
		p.Mode = mode
		spent := []time.Duration{1, 2}
		s := State{Wanted: true, Status: records.StatusStarting, Restarts: 2}
		s.History.Spent = spent
		s, act := Next(s, Event{Kind: EvFoundDead}, p, time.Hour)
		if act != ActKill {
			t.Fatalf("%s: action %v, want that what is left is ended first", mode, act)
		}
		for what, c := range map[string]struct {
			event  EventKind
			status records.Status
			action Action
		}{
			"nothing":  {EvPong, records.StatusStarting, ActStart},
			"shutdown": {EvShutdown, records.StatusStopped, ActFinish},
			"retired":  {EvRetire, records.StatusStopped, ActFinish},
		} {
			meanwhile, _ := Next(s, Event{Kind: c.event}, p, time.Hour)
			got, act := Next(meanwhile, Event{Kind: EvExited, Away: true, CutOff: true}, p, time.Hour)
			if got.Status != c.status || act != c.action || got.Restarts != 2 ||
				!slices.Equal(got.History.Spent, spent) {
				t.Errorf("%s, %s meanwhile: %+v, action %v; want %s, %v", mode, what, got, act, c.status, c.action)
			}
		}
	}
}
