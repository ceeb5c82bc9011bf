package lifecycle

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

func TestEndOfAnEssentialWorker(t *testing.T) {
	now := time.Hour
	policy := func(mode unit.RestartMode, restarts int) Policy {
		u := unit.Spec{Essential: true}
		u.Restart.Mode, u.Restart.Budget = mode, unit.RestartBudget{Restarts: restarts, Window: time.Minute}
		return PolicyOf(u.WithDefaults())
	}
	never, always := policy(unit.RestartNever, 1), policy(unit.RestartAlways, 1)
	onFailure := policy(unit.RestartOnFailure, 1)
	plain := never
	plain.essential = false
	spent := records.RestartHistory{ReadyClock: time.Hour, Spent: []time.Duration{time.Hour - time.Second}}
	running := State{Wanted: true, Status: records.StatusRunning, Slot: terminating}
	starting := State{Wanted: true, Status: records.StatusStarting, Slot: terminating}
	recorded := State{Wanted: true, Status: records.StatusRunning} // not found yet
	with := func(s State, change func(*State)) State {
		change(&s)
		return s
	}
	bad := Event{Kind: EvExited, Reason: "exited with code 3"}
	good := Event{Kind: EvExited, Reason: "exited with code 0", Clean: true}
	away := func(e Event) Event {
		e.Away = true
		return e
	}
	for name, c := range map[string]struct {
		state  State
		event  Event
		policy Policy
		status records.Status
		act    Action
		ends   bool // the master
		once   bool // it is started once
	}{
		"never, bad":      {running, bad, never, records.StatusFailed, ActNone, true, false},
		"never, good":     {running, good, never, records.StatusCompleted, ActNone, true, false},
		"not essential":   {running, bad, plain, records.StatusFailed, ActNone, false, false},
		"on failure, bad": {running, bad, onFailure, records.StatusBackoff, ActBackOff, false, false},
		"on failure, budget used up": {
			with(running, func(s *State) { s.History = spent }), bad, onFailure,
			records.StatusFailed, ActBackOff, true, false,
		},
		"on failure, good": {running, good, onFailure, records.StatusCompleted, ActNone, true, false},
		"always, good":     {running, good, always, records.StatusBackoff, ActBackOff, false, false},
		"always, budget used up": {
			with(running, func(s *State) { s.History = spent }), good, always,
			records.StatusFailed, ActBackOff, true, false,
		},
		"the master is the cause": {
			starting, Event{Kind: EvExited, Ours: true}, never, records.StatusBackoff, ActBackOff, false, false,
		},

		// Wanted ends.
		"stopped by an operator": {
			with(running, func(s *State) { s.Wanted, s.Status = false, records.StatusStopping }), bad, never,
			records.StatusStopped, ActNone, false, false,
		},
		"surplus": {
			with(running, func(s *State) { s.Wanted, s.Retired = false, true }), good, never,
			records.StatusStopped, ActFinish, false, false,
		},
		"replaced": {
			with(running, func(s *State) { s.Planned, s.Status = true, records.StatusStopping }), good, never,
			records.StatusStarting, ActStart, false, false,
		},
		"the master stops": {
			with(running, func(s *State) { s.quitting, s.Status = true, records.StatusStopping }), bad, never,
			records.StatusStopped, ActFinish, false, false,
		},
		"it ends by itself while the master stops": {
			with(running, func(s *State) { s.quitting = true }), good, never,
			records.StatusCompleted, ActFinish, false, false,
		},

		// The next master.
		"failed, next master": {
			State{Wanted: true, Status: records.StatusFailed, History: spent},
			Event{Kind: EvBegin},
			always,
			records.StatusStarting, ActStart, false, true,
		},
		"completed, next master": {
			State{Wanted: true, Status: records.StatusCompleted},
			Event{Kind: EvBegin},
			never,
			records.StatusStarting, ActStart, false, true,
		},
		"failed, next master, not essential": {
			State{Wanted: true, Status: records.StatusFailed},
			Event{Kind: EvBegin},
			plain,
			records.StatusFailed, ActNone, false, false,
		},
		"completed, stopped by an operator": {
			State{Status: records.StatusCompleted},
			Event{Kind: EvBegin},
			never,
			records.StatusStopped, ActNone, false, false,
		},
		"ended while no master ran": {recorded, away(good), never, records.StatusStarting, ActStart, false, true},
		"failed while no master ran": {
			with(recorded, func(s *State) { s.History = spent }), away(bad), always,
			records.StatusStarting, ActStart, false, true,
		},
		"exited while no master ran, within its budget": {
			recorded, away(bad), always, records.StatusBackoff, ActBackOff, false, false,
		},
		"found dead": {
			with(running, func(s *State) { s.away = true }), bad, never, records.StatusStarting, ActStart, false, true,
		},
		"fails again": {
			with(starting, func(s *State) { s.History = spent }), bad, always,
			records.StatusFailed, ActBackOff, true, false,
		},
	} {
		after, act := Next(c.state, c.event, c.policy, now)
		if after.Status != c.status || act != c.act {
			t.Errorf("%s: %s and action %d, want %s and %d", name, after.Status, act, c.status, c.act)
		}
		if got := c.policy.EndsMaster(c.state, after); got != c.ends {
			t.Errorf("%s: the master ends: %t, want %t", name, got, c.ends)
		}
		if got := c.policy.StartsOnce(c.state, c.event, now); got != c.once {
			t.Errorf("%s: it is started once: %t, want %t", name, got, c.once)
		}
		if c.once && len(after.History.Spent) != len(c.state.History.Spent) {
			t.Errorf("%s: the start changes the budget: %v", name, after.History.Spent)
		}
	}
}
