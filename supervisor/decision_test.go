package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// TestDecideEveryRowOfRecovery covers each row of DESIGN's table, keyed by the recorded and the found state.
func TestDecideEveryRowOfRecovery(t *testing.T) {
	const now = time.Hour
	alive := &Found{State: FoundAlive, PID: 41, TokenSeen: true, SessionLeader: true}
	recorded := func(s store.Status) *Recorded { return &Recorded{Status: s, PID: 41, Port: 40001} }
	of := func(s store.Status) state { return state{wanted: true, status: s} }
	unwanted, retired := of(store.StatusRunning), of(store.StatusRunning)
	unwanted.wanted = false
	retired.wanted, retired.retired = false, true
	spent := of(store.StatusRunning)
	spent.history.Spent = make([]time.Duration, testPolicy.Budget.Restarts)
	for i := range spent.history.Spent {
		spent.history.Spent[i] = time.Duration(i + 1)
	}
	spent.history.ReadyClock = time.Minute
	waiting := of(store.StatusBackoff)
	waiting.reason, waiting.history.RetryAt = "exited with code 3", now+12*time.Second
	again := of(store.StatusRunning)
	again.history.Backoff = 400 * time.Millisecond
	failed := of(store.StatusFailed)
	failed.reason = "restart budget 10/5m used up: exited with code 3"

	for name, test := range map[string]struct {
		facts  facts
		action Action
		reason string
	}{
		"recorded, alive, proven, Ping may answer": {
			facts{
				state: of(store.StatusRunning), standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one",
		},
		"unhealthy when last seen": {
			facts{
				state: of(store.StatusUnhealthy), standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusUnhealthy), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one",
		},
		"alive and ours, silent": {
			facts{
				state: of(store.StatusRunning), standing: lives, silent: "nobody listens on port 40001",
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Found: alive},
			},
			ActionAdoptUnhealthy,
			"process 41 lives and is the recorded one, but cannot answer: nobody listens on port 40001",
		},
		"alive, its port now held by a stranger": {
			facts{
				state: of(store.StatusRunning), standing: lives, silent: foreignPort(40001).Error(),
				evidence: Evidence{
					Recorded: recorded(store.StatusRunning), Found: alive, Port: &PortOwner{40001, "foreign"},
				},
			},
			ActionAdoptUnhealthy,
			"process 41 lives and is the recorded one, but cannot answer: port 40001 is held by another process",
		},
		"starting with PID": {
			facts{
				state: of(store.StatusStarting), standing: lives, silent: "nobody listens on port 40001",
				evidence: Evidence{Recorded: recorded(store.StatusStarting), Found: alive},
			},
			ActionAdopt, "process 41 lives and is the recorded one, and is still starting",
		},
		"starting without PID, found": {
			facts{
				state: of(store.StatusStarting), standing: lives, instance: &store.Instance{},
				evidence: Evidence{Recorded: &Recorded{}, Found: alive},
			},
			ActionAdopt, "process 41 has the token of the start that was cut off, and is still starting",
		},
		"starting without PID, not found": {
			facts{
				state: of(store.StatusStarting), standing: cutOff, ran: true,
				evidence: Evidence{Recorded: &Recorded{}},
			},
			ActionRespawn, "its start was cut off before a process came to be",
		},
		"other boot": {
			facts{
				state: of(store.StatusRunning), standing: otherBoot, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), OtherBoot: true},
			},
			ActionRespawn, "the machine was booted since it ran",
		},
		"other boot, unwanted": {
			facts{
				state: unwanted, standing: otherBoot, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), OtherBoot: true},
			},
			ActionKeepStopped, "the machine was booted since it ran; it is wanted stopped",
		},
		"PID gone": {
			facts{
				state: of(store.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionRespawn, "process 41 ended; within 100ms",
		},
		"PID gone, not for the first time": {
			facts{
				state: again, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionRespawn, "process 41 ended; within 400ms",
		},
		"ended, not reaped": {
			facts{
				state: of(store.StatusRunning), standing: dead, ran: true,
				exitReason: "process 41 ended, killed by SIGKILL",
				evidence:   Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionRespawn, "process 41 ended, killed by SIGKILL; within 100ms",
		},
		"PID gone, budget used up": {
			facts{
				state: spent, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionFail, "restart budget 10/5m used up: process 41 ended",
		},
		"PID gone while it was being stopped": {
			facts{
				state: of(store.StatusStopping), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusStopping)},
			},
			ActionRespawn, "process 41 ended",
		},
		"PID gone, unwanted": {
			facts{
				state: unwanted, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionKeepStopped, "process 41 ended; it is wanted stopped",
		},
		"PID gone, with descendants": {
			facts{
				state: of(store.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Left: []Found{{PID: 42}, {PID: 43}}},
			},
			ActionRespawn,
			"process 41 ended; within 100ms; what is left of it is stopped first (2 processes, the first is 42)",
		},
		"PID gone, its port now held by a stranger": {
			facts{
				state: of(store.StatusRunning), standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Port: &PortOwner{40001, "foreign"}},
			},
			ActionRespawn, "process 41 ended; within 100ms; port 40001 is held by another process, a new one is chosen",
		},
		"cannot verify": {
			facts{
				state: of(store.StatusRunning), standing: unknown, cause: process.ErrUnverifiable,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionHold, "the process cannot be verified",
		},
		"lease held by nobody who can be found": {
			facts{
				state: of(store.StatusRunning), standing: unknown, cause: process.ErrLeaseHeld,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Lease: leaseHeld},
			},
			ActionHold, "the lease is held by a process that cannot be found",
		},
		"stopping": {
			facts{
				state: of(store.StatusStopping), standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusStopping), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and was being stopped: then it is started again",
		},
		"unwanted": {
			facts{
				state: unwanted, standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and the worker is wanted stopped",
		},
		"surplus": {
			facts{
				state: retired, standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Found: alive},
			},
			ActionStop, "process 41 lives and is the recorded one, and fewer replicas are wanted",
		},
		"surplus, gone": {
			facts{
				state: retired, standing: gone, exitReason: "process 41 ended", ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning)},
			},
			ActionForget, "process 41 ended, and fewer replicas are wanted",
		},
		"surplus, never ran": {
			facts{
				state: state{retired: true}, standing: unrecorded,
				evidence: Evidence{Recorded: &Recorded{}},
			},
			ActionForget, "it never ran, and fewer replicas are wanted",
		},
		"no record, slot free, process of ours": {
			facts{
				state: state{wanted: true}, standing: lives, stray: true, instance: &store.Instance{},
				evidence: Evidence{Found: alive},
			},
			ActionAdopt,
			"process 41 is this worker by its environment, though no record names it, and is still starting",
		},
		"a process newer than a record that says it is being stopped": {
			facts{
				state: of(store.StatusStopping), standing: lives, stray: true, instance: &store.Instance{},
				evidence: Evidence{Recorded: recorded(store.StatusStopping), Found: alive},
			},
			ActionAdopt,
			"process 41 is this worker by its environment, though no record names it, and is still starting",
		},
		"two instances of one worker": {
			facts{
				state: of(store.StatusRunning), standing: lives,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Found: alive, Others: []Found{{PID: 44}}},
			},
			ActionAdopt, "process 41 lives and is the recorded one; another instance is stopped (process 44)",
		},
		"copied state directory": {
			facts{
				state: of(store.StatusRunning), standing: otherStateDir, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusRunning), Moved: true},
			},
			ActionRespawn, "the state directory was copied or moved, and the recorded process belongs to the original",
		},
		"never ran": {facts{state: state{wanted: true}}, ActionStart, "it never ran"},
		"waiting": {
			facts{
				state: waiting, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusBackoff)},
			},
			ActionWait, "it waits for its restart, started in 12s: exited with code 3",
		},
		"failed": {
			facts{
				state: failed, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusFailed)},
			},
			ActionKeepFailed, "it has failed: restart budget 10/5m used up: exited with code 3",
		},
		"stopped": {
			facts{
				state: of(store.StatusStopped), ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusStopped)},
			},
			ActionRespawn, "no process of it is recorded",
		},
		"stopped for good": {
			facts{
				state: unwanted, ran: true,
				evidence: Evidence{Recorded: recorded(store.StatusStopped)},
			},
			ActionKeepStopped, "no process of it is recorded; it is wanted stopped",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := test.facts
			f.id, f.policy, f.now = "worker-0", testPolicy, now
			d := decide(f)
			if d.ID != "worker-0" || d.Action != test.action || d.Reason != test.reason {
				t.Errorf("decided to %s because %q,\nwant %s because %q", d.Action, d.Reason, test.action, test.reason)
			}
			if again := decide(f); again.Action != d.Action || again.Reason != d.Reason {
				t.Errorf("decided otherwise the second time: %+v, %+v", d, again)
			}
		})
	}
}

func TestDecideAfterACleanExitAsksThePolicy(t *testing.T) {
	for name, test := range map[string]struct {
		mode   RestartMode
		clean  bool
		action Action
	}{
		"on failure, clean":   {RestartOnFailure, true, ActionKeepStopped},
		"on failure, unknown": {RestartOnFailure, false, ActionRespawn},
		"never, clean":        {RestartNever, true, ActionKeepStopped},
		"never, unknown":      {RestartNever, false, ActionFail},
		"always, clean":       {RestartAlways, true, ActionRespawn},
	} {
		t.Run(name, func(t *testing.T) {
			policy := testPolicy
			policy.Mode = test.mode
			d := decide(facts{
				state: state{wanted: true, status: store.StatusRunning}, policy: policy, now: time.Hour, ran: true,
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
	got := decideStrays([]process.Holder{
		{PID: 51, SID: 51, Token: "a", WorkerID: "worker-7"},
		{PID: 52, SID: 51, Token: "a", WorkerID: "worker-7"},
		{PID: 53, SID: 53, Token: "b", WorkerID: "worker-8"},
	})
	if len(got) != 2 || got[0].token != "a" || got[1].token != "b" {
		t.Fatalf("%+v, want one for each token", got)
	}
	d := got[0].decision
	if d.ID != "worker-7" || d.Action != ActionSweepStray || d.Evidence.Found.PID != 51 ||
		len(d.Evidence.Others) != 1 || !strings.Contains(d.Reason, "process 51") {
		t.Errorf("%+v, want process 51 and what it has started swept", d)
	}
}

// An unknown standing overrides all other facts: no living process is kept or stopped on incomplete evidence.
func TestNothingIsDecidedOnHalfOfTheEvidence(t *testing.T) {
	for _, s := range []state{
		{wanted: true, status: store.StatusRunning},
		{wanted: true, status: store.StatusStopping},
		{status: store.StatusRunning},
		{retired: true, status: store.StatusRunning},
		{wanted: true, status: store.StatusFailed},
	} {
		d := decide(facts{
			state: s, policy: testPolicy, standing: unknown, cause: errors.New("who knows"), stray: true,
			instance: &store.Instance{},
		})
		if d.Action != ActionHold || d.Reason != "who knows" {
			t.Errorf("%+v: decided to %s because %q, want it held", s, d.Action, d.Reason)
		}
	}
}
