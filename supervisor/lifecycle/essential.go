package lifecycle

import (
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// over reports whether the worker has ended for good: it has failed, or completed.
func (s State) over() bool {
	return s.Wanted && !s.Retired && !s.quitting &&
		(s.Status == records.StatusFailed || s.Status == records.StatusCompleted)
}

// EndsMaster reports whether the step between the states is the end of an essential worker, with which the master stops
// everything. An end that an operator or a change of the units wanted is none.
func (p Policy) EndsMaster(before, after State) bool {
	return p.essential && after.over() && before.Status != after.Status
}

// StartsOnce reports whether the event leads to the one start of an essential worker that ended for good under an
// earlier master, or while none ran. That start is outside of the budget of restarts: if the worker fails again, the
// master ends again.
func (p Policy) StartsOnce(s State, e Event, now time.Duration) bool {
	if e.Kind == EvExited {
		away := e.Away || s.away
		s, _ = ended(s, e, p, now)
		return p.startsOnce(s, away)
	}
	return p.startsOnce(s, true)
}

// startsOnce reports whether a worker is started that has come to the state s, while no master ran if away is true.
func (p Policy) startsOnce(s State, away bool) bool { return p.essential && away && s.over() }

// endedOrOnceMore is ended, but it starts an essential worker that has ended for good while no master ran.
func endedOrOnceMore(s State, e Event, p Policy, now time.Duration) (State, Action) {
	after, act := ended(s, e, p, now)
	if p.startsOnce(after, e.Away || s.away) {
		return after.start()
	}
	return after, act
}
