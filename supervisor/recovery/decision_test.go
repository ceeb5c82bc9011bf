package recovery

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

var defaultPolicy = lifecycle.PolicyOf(unit.Spec{}.WithDefaults())

// TestDecideEveryRowOfRecovery covers each row of DESIGN's table, keyed by the recorded and the found state.
func TestDecideEveryRowOfRecovery(t *testing.T) {
	const now = time.Hour
	alive := &Found{State: FoundAlive, PID: 41, TokenSeen: true, SessionLeader: true}
	recorded := func(s records.Status) *Recorded { return &Recorded{Status: s, PID: 41, Port: 40001} }
	of := func(s records.Status) lifecycle.State { return lifecycle.State{Wanted: true, Status: s} }
	unwanted, retired := of(records.StatusRunning), of(records.StatusRunning)
	unwanted.Wanted = false
	retired.Wanted, retired.Retired = false, true
	spent := of(records.StatusRunning)
	spent.History.Spent = make([]time.Duration, defaultPolicy.Budget.Restarts)
	for i := range spent.History.Spent {
		spent.History.Spent[i] = time.Duration(i + 1)
	}
	spent.History.ReadyClock = time.Minute
	waiting := of(records.StatusBackoff)
	waiting.Reason, waiting.History.RetryAt = "exited with code 3", now+12*time.Second
	again := of(records.StatusRunning)
	again.History.Backoff = 400 * time.Millisecond
	failed := of(records.StatusFailed)
	failed.Reason = "restart budget 10/5m used up: exited with code 3"
	retrying := func(at time.Duration) lifecycle.State {
		s := failed
		s.History.RetryAt, s.History.FailedWait = at, 20*time.Minute
		return s
	}
	completed := of(records.StatusCompleted)
	completed.Reason = "exited with code 0"

	for name, test := range map[string]struct {
		facts  Facts
		action Action
		reason string
	}{
		"recorded, alive, proven, Ping may answer": {
			Facts{
				state: of(records.StatusRunning), standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one",
		},
		"unhealthy when last seen": {
			Facts{
				state: of(records.StatusUnhealthy), standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusUnhealthy), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one",
		},
		"alive and ours, silent": {
			Facts{
				state: of(records.StatusRunning), standing: lives, silent: "nobody listens on port 40001",
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive},
			},
			ActionAdoptUnhealthy,
			"process 41 lives and is the recorded one, but cannot answer: nobody listens on port 40001",
		},
		"alive, its port now held by a stranger": {
			Facts{
				state: of(records.StatusRunning), standing: lives, silent: launcher.ForeignPort(40001).Error(),
				evidence: Evidence{
					Recorded: recorded(records.StatusRunning), Found: alive, Port: &PortOwner{40001, "foreign"},
				},
			},
			ActionAdoptUnhealthy,
			"process 41 lives and is the recorded one, but cannot answer: port 40001 is held by another process",
		},
		"starting with PID": {
			Facts{
				state: of(records.StatusStarting), standing: lives, silent: "nobody listens on port 40001",
				evidence: Evidence{Recorded: recorded(records.StatusStarting), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one, and is still starting",
		},
		"starting without PID, found": {
			Facts{
				state: of(records.StatusStarting), standing: lives, instance: &records.Instance{},
				evidence: Evidence{Recorded: &Recorded{}, Found: alive},
			},
			ActionAdopt, "process 41 has the token of the start that was cut off, and is still starting",
		},
		"starting without PID, not found": {
			Facts{
				state: of(records.StatusStarting), standing: cutOff, ran: true,
				evidence: Evidence{Recorded: &Recorded{}},
			},
			ActionRespawn, "its start was cut off before a process came to be",
		},
		"other boot": {
			Facts{
				state: of(records.StatusRunning), standing: otherBoot, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), OtherBoot: true},
			},
			ActionRespawn, "the machine was booted since it ran",
		},
		"other boot, unwanted": {
			Facts{
				state: unwanted, standing: otherBoot, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), OtherBoot: true},
			},
			ActionKeepStopped, "the machine was booted since it ran; it is wanted stopped",
		},
		"PID gone": {
			Facts{
				state: of(records.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionRespawn, "process 41 ended; within 100ms",
		},
		"PID gone, not for the first time": {
			Facts{
				state: again, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionRespawn, "process 41 ended; within 400ms",
		},
		"ended, not reaped": {
			Facts{
				state: of(records.StatusRunning), standing: dead, ran: true,
				exitReason: "process 41 ended, killed by SIGKILL",
				evidence:   Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionRespawn, "process 41 ended, killed by SIGKILL; within 100ms",
		},
		"PID gone, budget used up": {
			Facts{
				state: spent, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionFail, "restart budget 10/5m used up: process 41 ended, tried again in 5m0s",
		},
		"PID gone while it was being stopped": {
			Facts{
				state: of(records.StatusStopping), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusStopping)},
			},
			ActionRespawn, "process 41 ended",
		},
		"PID gone, unwanted": {
			Facts{
				state: unwanted, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionKeepStopped, "process 41 ended; it is wanted stopped",
		},
		"PID gone, with descendants": {
			Facts{
				state: of(records.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Left: []Found{{PID: 42}, {PID: 43}}},
			},
			ActionRespawn,
			"process 41 ended; within 100ms; what is left of it is stopped first (2 processes, the first is 42)",
		},
		"PID gone, its port now held by a stranger": {
			Facts{
				state: of(records.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Port: &PortOwner{40001, "foreign"}},
			},
			ActionRespawn, "process 41 ended; within 100ms; port 40001 is held by another process, a new one is chosen",
		},
		"cannot verify": {
			Facts{
				state: of(records.StatusRunning), standing: unknown, Cause: process.ErrUnverifiable,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionHold, "the process cannot be verified",
		},
		"lease held by nobody who can be found": {
			Facts{
				state: of(records.StatusRunning), standing: unknown, Cause: process.ErrLeaseHeld,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Lease: launcher.LeaseHeld},
			},
			ActionHold, "the lease is held by a process that cannot be found",
		},
		"stopping": {
			Facts{
				state: of(records.StatusStopping), standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusStopping), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and was being stopped: then it is started again",
		},
		"unwanted": {
			Facts{
				state: unwanted, standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and the worker is wanted stopped",
		},
		"surplus": {
			Facts{
				state: retired, standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and fewer replicas are wanted",
		},
		"of a unit that was removed": {
			Facts{
				state: lifecycle.State{
					Retired: true, Cause: lifecycle.UnitRemoved, Status: records.StatusRunning,
				},
				standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and its unit was removed",
		},
		"surplus, gone": {
			Facts{
				state: retired, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning)},
			},
			ActionForget, "process 41 ended, and fewer replicas are wanted",
		},
		"surplus, never ran": {
			Facts{
				state: lifecycle.State{Retired: true}, standing: unrecorded,
				evidence: Evidence{Recorded: &Recorded{}},
			},
			ActionForget, "it never ran, and fewer replicas are wanted",
		},
		"no record, slot free, process of ours": {
			Facts{
				state: lifecycle.State{Wanted: true}, standing: lives, stray: true, instance: &records.Instance{},
				evidence: Evidence{Found: alive},
			},
			ActionAdopt,
			"process 41 is this worker by its environment, though no record names it, and is still starting",
		},
		"a process newer than a record that says it is being stopped": {
			Facts{
				state: of(records.StatusStopping), standing: lives, stray: true, instance: &records.Instance{},
				evidence: Evidence{Recorded: recorded(records.StatusStopping), Found: alive},
			},
			ActionAdopt,
			"process 41 is this worker by its environment, though no record names it, and is still starting",
		},
		"two instances of one worker": {
			Facts{
				state: of(records.StatusRunning), standing: lives,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Found: alive, Others: []Found{{PID: 44}}},
			},
			ActionAdopt, "process 41 lives and is the recorded one; another instance is stopped (process 44)",
		},
		"copied state directory": {
			Facts{
				state: of(records.StatusRunning), standing: otherStateDir, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusRunning), Moved: true},
			},
			ActionRespawn, "the state directory was copied or moved, and the recorded process belongs to the original",
		},
		"never ran": {Facts{state: lifecycle.State{Wanted: true}}, ActionStart, "it never ran"},
		"waiting": {
			Facts{
				state: waiting, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusBackoff)},
			},
			ActionWait, "it waits for its restart, started in 12s: exited with code 3",
		},
		"failed": {
			Facts{
				state: failed, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusFailed)},
			},
			ActionKeepFailed, "it has failed, tried again in 5m0s: restart budget 10/5m used up: exited with code 3",
		},
		"failed, and its wait goes on": {
			Facts{
				state: retrying(now + 12*time.Minute), ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusFailed)},
			},
			ActionKeepFailed, "it has failed, tried again in 12m0s: restart budget 10/5m used up: exited with code 3",
		},
		"failed, and its wait is over": {
			Facts{
				state: retrying(now - time.Second), ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusFailed)},
			},
			ActionRespawn,
			"it had failed, and is to be tried again: restart budget 10/5m used up: exited with code 3",
		},
		"completed": {
			Facts{
				state: completed, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusCompleted)},
			},
			ActionKeepCompleted, "it has completed: exited with code 0; its policy does not restart it",
		},
		"stopped": {
			Facts{
				state: of(records.StatusStopped), ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusStopped)},
			},
			ActionRespawn, "no process of it is recorded",
		},
		"stopped for good": {
			Facts{
				state: unwanted, ran: true,
				evidence: Evidence{Recorded: recorded(records.StatusStopped)},
			},
			ActionKeepStopped, "no process of it is recorded; it is wanted stopped",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := test.facts
			f.id, f.policy, f.now = "worker-0", defaultPolicy, now
			d := Decide(&f)
			if d.ID != "worker-0" || d.Action != test.action || d.Reason != test.reason {
				t.Errorf("decided to %s because %q,\nwant %s because %q", d.Action, d.Reason, test.action, test.reason)
			}
			if again := Decide(&f); again.Action != d.Action || again.Reason != d.Reason {
				t.Errorf("decided otherwise the second time: %+v, %+v", d, again)
			}
		})
	}
}

func TestDecideAfterACleanExitAsksThePolicy(t *testing.T) {
	for name, test := range map[string]struct {
		mode   unit.RestartMode
		clean  bool
		action Action
	}{
		"on failure, clean":   {unit.RestartOnFailure, true, ActionKeepCompleted},
		"on failure, unknown": {unit.RestartOnFailure, false, ActionRespawn},
		"never, clean":        {unit.RestartNever, true, ActionKeepCompleted},
		"never, unknown":      {unit.RestartNever, false, ActionFail},
		"always, clean":       {unit.RestartAlways, true, ActionRespawn},
	} {
		t.Run(name, func(t *testing.T) {
			policy := defaultPolicy
			policy.Mode = test.mode
			d := Decide(&Facts{
				state:  lifecycle.State{Wanted: true, Status: records.StatusRunning},
				policy: policy, now: time.Hour, ran: true,
				standing: gone, exitReason: "process 41 ended", clean: test.clean,
				evidence: Evidence{Recorded: &Recorded{PID: 41}},
			})
			if d.Action != test.action {
				t.Errorf("decided to %s because %q, want %s", d.Action, d.Reason, test.action)
			}
		})
	}
}

func TestStraysAreOneDecisionAnInstance(t *testing.T) {
	got := DecideStrays([]process.Holder{
		{PID: 51, SID: 51, Token: "a", WorkerID: "worker-7"},
		{PID: 52, SID: 51, Token: "a", WorkerID: "worker-7"},
		{PID: 53, SID: 53, Token: "b", WorkerID: "worker-8"},
	})
	if len(got) != 2 || got[0].Token != "a" || got[1].Token != "b" {
		t.Fatalf("%+v, want one for each token", got)
	}
	d := got[0].Decision
	if d.ID != "worker-7" || d.Action != ActionSweepStray || d.Evidence.Found.PID != 51 ||
		len(d.Evidence.Others) != 1 || !strings.Contains(d.Reason, "process 51") {
		t.Errorf("%+v, want process 51 and what it has started swept", d)
	}
}

// The command of a check carries the id of its worker with a suffix that no slot has.
func TestCommandOfACheckIsAStray(t *testing.T) {
	rc := Context{MasterID: "master", StateDir: "1:2"}
	of := func(pid int, worker, token string) process.Holder {
		return process.Holder{PID: pid, SID: pid, WorkerID: worker, Token: token, MasterID: "master", StateDir: "1:2"}
	}
	slots := []Slot{{ID: "worker-0"}, {ID: "worker-1"}}
	strays := rc.Assign(slots, []process.Holder{
		of(1, "worker-0", "a"), of(2, "worker-0/probe", "b"), of(3, "worker-1", "c"),
	}, nil)
	if got := DecideStrays(strays); len(got) != 1 || got[0].Token != "b" || got[0].Decision.ID != "worker-0/probe" {
		t.Errorf("strays = %+v, want the command", got)
	}
	for i, s := range slots {
		if len(s.Found.Holders) != 1 || s.Found.Shows("b") {
			t.Errorf("slot %d has %+v, want its worker alone", i, s.Found.Holders)
		}
	}
}

// An unknown standing overrides all other facts: no living process is kept or stopped on incomplete evidence.
func TestNothingIsDecidedOnHalfOfTheEvidence(t *testing.T) {
	for _, s := range []lifecycle.State{
		{Wanted: true, Status: records.StatusRunning},
		{Wanted: true, Status: records.StatusStopping},
		{Status: records.StatusRunning},
		{Retired: true, Status: records.StatusRunning},
		{Wanted: true, Status: records.StatusFailed},
	} {
		d := Decide(&Facts{
			state: s, policy: defaultPolicy, standing: unknown, Cause: errors.New("who knows"), stray: true,
			instance: &records.Instance{},
		})
		if d.Action != ActionHold || d.Reason != "who knows" {
			t.Errorf("%+v: decided to %s because %q, want it held", s, d.Action, d.Reason)
		}
	}
}
