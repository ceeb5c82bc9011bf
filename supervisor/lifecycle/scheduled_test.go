package lifecycle

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

var scheduledPolicy = PolicyOf(unit.Spec{
	Kind: unit.Managed, Port: unit.NoPort, Schedule: unit.Schedule{Cron: "0 3 * * *"},
}.WithDefaults())

// TestNextOfScheduledWorker covers every pair for a unit with a schedule. A pair that is not listed must do the same as
// for other units.
func TestNextOfScheduledWorker(t *testing.T) {
	now := time.Hour
	waiting := records.RestartHistory{RetryAt: now + time.Second}
	states := map[string]State{
		"new":       {Wanted: true},
		"scheduled": {Wanted: true, Status: records.StatusScheduled},
		"bad":       {Wanted: true, Status: records.StatusScheduled, Reason: "exited with code 3"},
		"unwanted":  {Status: records.StatusScheduled},
		"quitting":  {Wanted: true, Status: records.StatusScheduled, quitting: true},
		"intended":  {Wanted: true, Status: records.StatusStarting}, // the intent is recorded, no process yet
		"started":   {Wanted: true, Status: records.StatusStarting, Slot: Occupied},
		"running":   {Wanted: true, Status: records.StatusRunning, Slot: Occupied, Ready: true},
		"silent":    {Wanted: true, Status: records.StatusStopping, Slot: terminating, Reason: "why"},
		"replaced":  {Wanted: true, Status: records.StatusStopping, Slot: terminating, Planned: true},
		"leaving":   {Wanted: true, Status: records.StatusStopping, Slot: terminating, quitting: true},
		"dying":     {Wanted: true, Status: records.StatusRunning, Slot: terminating},
		"held":      {Wanted: true, Status: records.StatusScheduled, Slot: unverified},
		"lacking":   {Wanted: true, Status: records.StatusBackoff, Reason: "no memory", History: waiting},
		"stopped":   {Wanted: true, Status: records.StatusStopped},
		"waiting":   {Wanted: true, Status: records.StatusWaiting, Reason: "db: db-0 is starting"},
		"completed": {Wanted: true, Status: records.StatusCompleted, Reason: "exited with code 0"},
		"failed":    {Wanted: true, Status: records.StatusFailed, Reason: "exited with code 3"},
	}
	// state, event → status, action, reason
	want := map[string]string{
		"scheduled due": "starting start ",
		"bad due":       "starting start ",
		"new due":       "starting start ",
		"lacking due":   "starting start ",
		"stopped due":   "starting start ",
		"completed due": "starting start ",
		"failed due":    "starting start ",
		"waiting due":   "starting start ",

		"new begin":       "scheduled none ",
		"scheduled begin": "scheduled none ",
		"bad begin":       "scheduled none exited with code 3",
		"quitting begin":  "scheduled none ",
		"intended begin":  "scheduled none " + cutOff,
		"held begin":      "scheduled none ",
		"lacking begin":   "scheduled none no memory",
		"stopped begin":   "scheduled none ",
		"completed begin": "scheduled none ",
		"failed begin":    "scheduled none exited with code 3",
		"unwanted begin":  "stopped none " + ByOperator,

		"intended start failed": "scheduled none why",

		"new exited":       "scheduled none why",
		"scheduled exited": "scheduled none why",
		"bad exited":       "scheduled none why",
		"waiting exited":   "scheduled none why",
		"intended exited":  "scheduled none why",
		"started exited":   "scheduled none why",
		"running exited":   "scheduled none why",
		"silent exited":    "scheduled none why",
		"dying exited":     "scheduled none why",
		"held exited":      "scheduled none why",
		"lacking exited":   "scheduled none why",
		"stopped exited":   "scheduled none why",
		"completed exited": "scheduled none why",
		"failed exited":    "scheduled none why",
		"replaced exited":  "scheduled none ", // the stop was an operator's, or is finished after a crash
		"leaving exited":   "stopped finish ",
		"unwanted exited":  "stopped none " + ByOperator,
		"quitting exited":  "scheduled finish why",

		"running memory": "running none ", // its unit has no such limit
	}
	always := scheduledPolicy
	always.scheduled = false
	for name, s := range states {
		for kind := range EvMemory + 1 {
			pair := name + " " + kind.String()
			e := Event{Kind: kind, Reason: "why"}
			got, act := Next(s, e, scheduledPolicy, now)
			expected, listed := want[pair]
			if !listed {
				other, act := Next(s, e, always, now)
				expected = string(other.Status) + " " + act.String() + " " + other.Reason
			}
			if result := string(got.Status) + " " + act.String() + " " + got.Reason; result != expected {
				t.Errorf("%s: got %q, want %q", pair, result, expected)
			}
			delete(want, pair)
		}
	}
	for pair := range want {
		t.Errorf("%q is expected, but there is no such pair", pair)
	}
}

func TestEndOfARun(t *testing.T) {
	running := State{Wanted: true, Slot: Occupied, Status: records.StatusRunning}
	starting := State{Wanted: true, Status: records.StatusStarting}
	for name, test := range map[string]struct {
		state  State
		event  Event
		status records.Status
		reason string
		act    Action
	}{
		"good": {
			running,
			Event{Kind: EvExited, Clean: true, Reason: "exited with code 0"},
			records.StatusScheduled, "", ActNone,
		},
		"bad": {
			running,
			Event{Kind: EvExited, Reason: "exited with code 3"},
			records.StatusScheduled, "exited with code 3", ActNone,
		},
		"bad for a fault of the master": {
			running,
			Event{Kind: EvExited, Ours: true, Reason: "exited with code 3"},
			records.StatusScheduled, "exited with code 3", ActNone,
		},
		"not begun for a fault of the master": {
			starting,
			Event{Kind: EvStartFailed, Ours: true, Reason: "no memory"},
			records.StatusBackoff, "no memory", ActBackOff,
		},
	} {
		s, act := Next(test.state, test.event, scheduledPolicy, time.Hour)
		if s.Status != test.status || s.Reason != test.reason || act != test.act || s.Slot != Vacant {
			t.Errorf("%s: %s %q, %v, want %s %q, %v", name, s.Status, s.Reason, act, test.status, test.reason, test.act)
		}
	}
}
