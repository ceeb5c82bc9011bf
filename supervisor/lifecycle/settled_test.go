package lifecycle

import (
	"reflect"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

func TestSettled(t *testing.T) {
	ready := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning, Restarts: 3}
	ready.History.ReadySince = time.Hour
	p := Policy{missed: 3, unready: 2, passes: 2}
	for _, kind := range []EventKind{EvPong, EvAlive, EvServing} {
		if !ready.Settled() {
			t.Fatal("a ready worker that has missed nothing is not settled")
		}
		after, act := Next(ready, Event{Kind: kind}, p, 2*time.Hour)
		after.passes = ready.passes
		if act != ActNone || !reflect.DeepEqual(after, ready) || len(ready.Earned(p, 2*time.Hour)) != 0 {
			t.Errorf("event %d changes a settled worker: %+v, action %d", kind, after, act)
		}
	}
	for name, change := range map[string]func(*State){
		"unhealthy":            func(s *State) { s.Ready, s.Status = false, records.StatusUnhealthy },
		"not ready":            func(s *State) { s.Ready = false },
		"being stopped":        func(s *State) { s.Slot = terminating },
		"liveness missed":      func(s *State) { s.failures = 1 },
		"readiness missed":     func(s *State) { s.unready = 1 },
		"backoff to earn":      func(s *State) { s.History.Backoff = time.Second },
		"budget to earn":       func(s *State) { s.History.Spent = []time.Duration{1} },
		"shorter wait to earn": func(s *State) { s.History.FailedWait = time.Minute },
	} {
		s := ready
		if change(&s); s.Settled() {
			t.Errorf("%s: settled", name)
		}
	}
}
