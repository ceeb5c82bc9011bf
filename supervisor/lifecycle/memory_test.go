package lifecycle

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

const tooMuch = "memory 512MiB is above memory_restart 480MiB"

// outgrow returns a worker that has been ready for up and is stopped for its memory.
func outgrow(t *testing.T, s State, p Policy, now, up time.Duration) State {
	t.Helper()
	s.Slot, s.Status, s.Ready, s.History.ReadySince = Occupied, records.StatusRunning, true, now-up
	s, act := Next(s, Event{Kind: EvMemory, Reason: tooMuch}, p, now)
	if act != ActStop || s.Status != records.StatusStopping || s.Reason != tooMuch || s.Ready {
		t.Fatalf("memory: action %v, state %+v, want an orderly stop with the reason", act, s)
	}
	return s
}

// A restart for memory is one by policy, whatever the policy says about exits: it costs the budget and backs off.
func TestRestartForMemoryByEveryPolicy(t *testing.T) {
	for _, mode := range []unit.RestartMode{unit.RestartAlways, unit.RestartOnFailure, unit.RestartNever} {
		p := PolicyOf(unit.Spec{Restart: unit.RestartPolicy{Mode: mode}}.WithDefaults())
		now := time.Hour
		s := State{Wanted: true}
		var act Action
		for n := range p.Budget.Restarts {
			s = outgrow(t, s, p, now, 20*time.Second)
			// Asked to end, it may well succeed.
			s, act = Next(s, Event{Kind: EvExited, Reason: tooMuch, Clean: true}, p, now)
			if n == 0 && act != ActStart || n > 0 && act != ActBackOff || int(s.Restarts) != n+1 {
				t.Fatalf("%s: end %d: action %v, state %+v", mode, n, act, s)
			}
			if n > 0 && s.Reason != tooMuch {
				t.Errorf("%s: the reason of the backoff is %q", mode, s.Reason)
			}
			now += time.Minute
		}
		s = outgrow(t, s, p, now, 20*time.Second)
		s, _ = Next(s, Event{Kind: EvExited, Reason: tooMuch}, p, now)
		want := "restart budget 10/5m used up: " + tooMuch
		if s.Status != records.StatusFailed || s.Reason != want {
			t.Errorf("%s: %s %q, want it failed: %q", mode, s.Status, s.Reason, want)
		}
	}
}

// The restart for memory is that of one instance: an exit of the next one is again as the policy says.
func TestNeverRestartsAnExitAfterARestartForMemory(t *testing.T) {
	p := PolicyOf(unit.Spec{Restart: unit.RestartPolicy{Mode: unit.RestartNever}}.WithDefaults())
	s, act := Next(outgrow(t, State{Wanted: true}, p, time.Hour, time.Minute), Event{Kind: EvExited}, p, time.Hour)
	if act != ActStart {
		t.Fatalf("action %v", act)
	}
	s, _ = Next(s, Event{Kind: EvForked}, p, time.Hour)
	s, _ = Next(s, Event{Kind: EvReady}, p, time.Hour)
	s, _ = Next(s, Event{Kind: EvDied}, p, time.Hour)
	if s, act = Next(s, Event{Kind: EvExited, Reason: "code 3"}, p, time.Hour); s.Status != records.StatusFailed {
		t.Errorf("action %v, state %+v, want it failed", act, s)
	}
}

// Killed in the middle of the stop, the master leaves the status "stopping" in the record.
func TestNextMasterCompletesARestartForMemory(t *testing.T) {
	for _, mode := range []unit.RestartMode{unit.RestartAlways, unit.RestartNever} {
		p := PolicyOf(unit.Spec{Restart: unit.RestartPolicy{Mode: mode}}.WithDefaults())
		left := outgrow(t, State{Wanted: true}, p, time.Hour, time.Minute)
		s := State{Wanted: true, Status: left.Status, Reason: left.Reason, History: left.History} // as recorded
		s, act := Next(s, Event{Kind: EvAdoptedSilent}, p, time.Hour)
		if act != ActStop || s.Reason != tooMuch {
			t.Errorf("%s: adopted: action %v, state %+v, want it stopped", mode, act, s)
		}
		if s, act = Next(s, Event{Kind: EvExited, Reason: tooMuch}, p, time.Hour); act != ActStart {
			t.Errorf("%s: ended: action %v, state %+v, want it started", mode, act, s)
		}
	}
}

func TestWorkerOfAMasterThatStopsIsNotRestartedForMemory(t *testing.T) {
	running := State{Wanted: true, Status: records.StatusRunning, Slot: Occupied, Ready: true}
	s, _ := Next(running, Event{Kind: EvClosing}, testPolicy, time.Hour)
	if s, act := Next(s, Event{Kind: EvMemory, Reason: tooMuch}, testPolicy, time.Hour); act != ActNone || !s.Ready {
		t.Errorf("action %v, state %+v, want it left until its shutdown", act, s)
	}
	s = outgrow(t, State{Wanted: true}, testPolicy, time.Hour, time.Minute)
	s, _ = Next(s, Event{Kind: EvShutdown}, testPolicy, time.Hour)
	if s, act := Next(s, Event{Kind: EvExited}, testPolicy, time.Hour); act != ActFinish {
		t.Errorf("action %v, state %+v, want it stopped", act, s)
	}
}
