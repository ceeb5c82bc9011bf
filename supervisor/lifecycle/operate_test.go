package lifecycle

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// spentHistory is that of a worker whose budget is used up.
var spentHistory = records.RestartHistory{
	Spent: []time.Duration{1, 2, 3}, Backoff: time.Second, RetryAt: time.Hour, FailedWait: time.Minute,
}

func TestHaltAndResumeInEveryState(t *testing.T) {
	for name, test := range map[string]struct {
		from         State
		halt, resume string
	}{
		"running":   {State{Slot: Occupied, Status: records.StatusRunning}, "stopping stop", "running none"},
		"unhealthy": {State{Slot: Occupied, Status: records.StatusUnhealthy}, "stopping stop", "unhealthy none"},
		"starting":  {State{Slot: Occupied, Status: records.StatusStarting}, "stopping stop", "starting none"},
		"before":    {State{Status: records.StatusStarting}, "starting none", "starting none"}, // start.before runs
		"backoff":   {State{Status: records.StatusBackoff}, "stopped none", "starting start"},
		"failed":    {State{Status: records.StatusFailed}, "stopped none", "starting start"},
		"completed": {State{Status: records.StatusCompleted}, "stopped none", "starting start"},
		"waiting":   {State{Status: records.StatusWaiting}, "stopped none", "starting start"},
		"scheduled": {State{Status: records.StatusScheduled}, "stopped none", "starting start"},
		"stopped":   {State{Status: records.StatusStopped}, "stopped none", "starting start"},
		"stopping":  {State{Slot: terminating, Status: records.StatusStopping}, "stopping none", "stopping none"},
		"died":      {State{Slot: terminating, Status: records.StatusRunning}, "stopping none", "stopping none"},
		"remaining": {State{Slot: remaining, Status: records.StatusStopping}, "stopping none", "stopping none"},
		"held":      {State{Slot: unverified, Status: records.StatusRunning}, "running none", "running none"},
		"surplus": {
			State{Retired: true, Slot: Occupied, Status: records.StatusRunning}, "running none", "running none",
		},
		"quitting": {State{quitting: true, Status: records.StatusBackoff}, "backoff none", "backoff none"},
	} {
		test.from.Wanted, test.from.History = !test.from.Retired, spentHistory
		stopped, act := Next(test.from, Event{Kind: EvHalt}, testPolicy, 0)
		if got := string(stopped.Status) + " " + act.String(); got != test.halt {
			t.Errorf("%s: halt: got %q, want %q", name, got, test.halt)
		}
		if ignored := test.from.Retired || test.from.quitting; stopped.Wanted != (ignored && !test.from.Retired) {
			t.Errorf("%s: halt: wanted %t", name, stopped.Wanted)
		}
		started, act := Next(test.from, Event{Kind: EvResume}, testPolicy, 0)
		if got := string(started.Status) + " " + act.String(); got != test.resume {
			t.Errorf("%s: resume: got %q, want %q", name, got, test.resume)
		}
		if h := started.History; !test.from.Retired && !test.from.quitting &&
			(h.Spent != nil || h.Backoff != 0 || h.FailedWait != 0) {
			t.Errorf("%s: resume left the history %+v", name, h)
		}
	}
}

func TestHaltedWorkerStaysStoppedAfterItsEndAndOverAMaster(t *testing.T) {
	s := State{Wanted: true, Slot: Occupied, Ready: true, Status: records.StatusRunning}
	s, act := Next(s, Event{Kind: EvHalt}, testPolicy, 0)
	if act != ActStop || s.Reason != ByOperator {
		t.Fatalf("halt: %s %q", act, s.Reason)
	}
	s, act = Next(s, Event{Kind: EvExited, Reason: "SIGTERM"}, testPolicy, 0)
	if act != ActNone || s.Status != records.StatusStopped || s.Reason != ByOperator {
		t.Fatalf("exit: %s %s %q", act, s.Status, s.Reason)
	}
	for _, status := range []records.Status{
		records.StatusStopped, records.StatusStarting, records.StatusRunning, records.StatusWaiting,
	} {
		next, act := Next(State{Status: status}, Event{Kind: EvBegin}, testPolicy, 0)
		if act != ActNone || next.Status != records.StatusStopped || next.Reason != ByOperator {
			t.Errorf("recovery of %s: %s %s %q", status, act, next.Status, next.Reason)
		}
	}
	found, act := Next(State{Status: records.StatusRunning}, Event{Kind: EvAdopted}, testPolicy, 0)
	if act != ActStop || found.Reason != ByOperator {
		t.Errorf("recovery of a living one: %s %q", act, found.Reason)
	}
}

func TestWorkerThatIsStartedWhileItStopsIsStartedWhenItHasEnded(t *testing.T) {
	s := State{Wanted: true, Slot: Occupied, Status: records.StatusRunning}
	s, _ = Next(s, Event{Kind: EvHalt}, testPolicy, 0)
	s, act := Next(s, Event{Kind: EvResume}, testPolicy, 0)
	if act != ActNone {
		t.Fatalf("resume: %s", act)
	}
	if s, act = Next(s, Event{Kind: EvExited}, testPolicy, 0); act != ActStart || s.Restarts != 0 {
		t.Errorf("exit: %s, %d restarts", act, s.Restarts)
	}
}

func TestCancelledStartEndsStopped(t *testing.T) {
	s, _ := Next(State{Wanted: true, Status: records.StatusStarting}, Event{Kind: EvHalt}, testPolicy, 0)
	s, act := Next(s, Event{Kind: EvStartFailed}, testPolicy, 0)
	if act != ActNone || s.Status != records.StatusStopped || s.Reason != ByOperator {
		t.Errorf("got %s %s %q", act, s.Status, s.Reason)
	}
}
