package recovery

import (
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// The commands of hooks belong to their worker's slot, and are no instances of it.
func TestCommandOfAHookBelongsToItsSlot(t *testing.T) {
	rc := Context{MasterID: "master", StateDir: "1:2"}
	of := func(worker, token, master string) process.Holder {
		return process.Holder{PID: 7, SID: 7, WorkerID: worker, Token: token, MasterID: master, StateDir: "1:2"}
	}
	slots := []Slot{{ID: "worker-0"}, {ID: "worker-1"}}
	strays := rc.Assign(slots, []process.Holder{
		of("worker-0/before", "a", "master"), of("worker-0/before", "a", "master"), of("worker-1/after", "b", "master"),
		of("worker-1/stop", "c", "another"), of("worker-2/stop", "d", "master"),
	}, nil)
	if len(strays) != 1 || strays[0].Token != "d" {
		t.Errorf("strays = %+v, want the command without a slot", strays)
	}
	for i, want := range []struct {
		n     int
		token string
	}{{2, "a"}, {1, "b"}} {
		found := slots[i].Found
		if len(found.Holders) != 0 || len(found.Commands) != want.n || found.Commands[0].Token != want.token {
			t.Errorf("slot %d has %+v, want the commands %+v alone", i, found, want)
		}
	}
}

func TestDecideAboutHooks(t *testing.T) {
	of := func(s records.Status) lifecycle.State { return lifecycle.State{Wanted: true, Status: s} }
	alive := &Found{State: FoundAlive, PID: 41}
	commands := []Found{{PID: 51}}
	for name, test := range map[string]struct {
		facts  Facts
		action Action
		reason string
	}{
		"in start.before": {
			Facts{state: of(records.StatusStarting), evidence: Evidence{Recorded: &Recorded{}, Commands: commands}},
			ActionStart,
			"its start was cut off in start.before; its command that a crash has left is stopped first (process 51)",
		},
		"in stop.command": {
			Facts{
				state: of(records.StatusStopping), standing: lives, after: true,
				evidence: Evidence{Recorded: &Recorded{PID: 41}, Found: alive, Commands: commands},
			},
			ActionStop,
			"process 41 lives and is the recorded one, and was being stopped: then it is started again; " +
				"its command that a crash has left is stopped first (process 51)",
		},
		"in stop.after": {
			Facts{
				state: of(records.StatusStopping), standing: gone, after: true, exitReason: "process 41 ended",
				evidence: Evidence{Recorded: &Recorded{PID: 41}},
			},
			ActionRespawn, "process 41 ended; stop.after runs first",
		},
		"cut off, with a stop.after": {
			Facts{
				state: of(records.StatusStarting), standing: cutOff, after: true, recorded: true,
				evidence: Evidence{Recorded: &Recorded{}},
			},
			ActionRespawn, "its start was cut off before a process came to be; stop.after runs first",
		},
		"another boot, with a stop.after": {
			Facts{
				state: of(records.StatusRunning), standing: otherBoot, after: true, recorded: true,
				evidence: Evidence{Recorded: &Recorded{PID: 41}},
			},
			ActionRespawn, "the machine was booted since it ran",
		},
	} {
		f := test.facts
		f.id, f.policy, f.now = "worker-0", defaultPolicy, 3600
		if d := Decide(f); d.Action != test.action || d.Reason != test.reason {
			t.Errorf("%s: decided to %s because %q,\nwant %s because %q",
				name, d.Action, d.Reason, test.action, test.reason)
		}
	}
}
