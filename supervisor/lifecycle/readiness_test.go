package lifecycle

import (
	"slices"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
)

// With two checks, readiness decides about calls and liveness about restarts.
func TestTwoChecks(t *testing.T) {
	p := Policy{missed: 2, unready: 3, passes: 2}
	const (
		alive, dead  = EvAlive, EvSilent
		serves, fail = EvServing, EvNotServing
	)
	for name, test := range map[string]struct {
		events []EventKind
		want   []string // the status and the action after each event
	}{
		"readiness is missed for ever": {
			[]EventKind{fail, fail, fail, fail, fail, fail, fail, fail},
			[]string{
				"running none", "running none", "unhealthy unpublish",
				"unhealthy none", "unhealthy none", "unhealthy none", "unhealthy none", "unhealthy none",
			},
		},
		"not in a row": {
			[]EventKind{fail, fail, serves, fail, fail},
			[]string{"running none", "running none", "running none", "running none", "running none"},
		},
		"liveness does not make ready": {
			[]EventKind{fail, fail, fail, alive, alive, serves, alive, serves},
			[]string{
				"running none", "running none", "unhealthy unpublish", "unhealthy none", "unhealthy none",
				"unhealthy none", "unhealthy none", "running serve",
			},
		},
		"liveness is missed": {
			[]EventKind{dead, dead, dead},
			[]string{"running none", "unhealthy unpublish", "stopping stop"},
		},
		"readiness does not make up for liveness": {
			[]EventKind{dead, dead, serves, serves, serves, dead},
			[]string{
				"running none", "unhealthy unpublish", "unhealthy none", "unhealthy none", "unhealthy none",
				"stopping stop",
			},
		},
		"both are back": {
			[]EventKind{dead, dead, alive, serves, serves},
			[]string{
				"running none", "unhealthy unpublish", "unhealthy none", "unhealthy none", "running serve",
			},
		},
		"a connection that is lost": {
			[]EventKind{dead, EvLost, alive, serves},
			[]string{"running none", "running unpublish", "running none", "running serve"},
		},
		"becoming ready does not forget a missed liveness": {
			[]EventKind{dead, EvLost, serves, dead, dead},
			[]string{
				"running none", "running unpublish", "running serve", "unhealthy unpublish", "stopping stop",
			},
		},
	} {
		s := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning}
		var got []string
		for _, kind := range test.events {
			var act Action
			s, act = Next(s, Event{Kind: kind, Reason: "why"}, p, 0)
			got = append(got, string(s.Status)+" "+act.String())
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func TestOneCheckHasToPassSeveralTimes(t *testing.T) {
	p := Policy{missed: 1, passes: 3}
	s := State{Wanted: true, Slot: Occupied, Status: records.StatusUnhealthy}
	for i, kind := range []EventKind{EvPong, EvPong, EvSuspended, EvPong, EvPong, EvPong} {
		s, _ = Next(s, Event{Kind: kind}, p, 0)
		if s.Ready != (i == 5) {
			t.Errorf("ready after event %d: %t", i, s.Ready)
		}
	}
}
