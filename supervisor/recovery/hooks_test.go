package recovery

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
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
		if d := Decide(&f); d.Action != test.action || d.Reason != test.reason {
			t.Errorf("%s: decided to %s because %q,\nwant %s because %q",
				name, d.Action, d.Reason, test.action, test.reason)
		}
	}
}

// leases is an inspector that knows the processes of runs of hooks, by their ids.
type leases struct {
	launcher.Inspector
	left map[string]left
}

type left struct {
	lease   string
	members []process.Holder
}

func (l leases) Left(
	_ context.Context, id string, _ records.Instance, _ bool,
) (string, []process.Holder, error) {
	return l.left[id].lease, l.left[id].members, nil
}

// A worker of a unit that the file lacks, or that is disabled, is told from one of a unit with fewer replicas.
func TestSlotsThatAreNotWanted(t *testing.T) {
	rc := Context{Now: func() time.Duration { return 0 }}
	recs := []records.Worker{{ID: "a-0", Unit: "a"}, {ID: "a-1", Unit: "a"}, {ID: "b-0", Unit: "b"}}
	recs = append(recs, records.Worker{ID: "c-0", Unit: "c"})
	units := []unit.Spec{{Name: "a", Path: "/bin/sh", Replicas: 1}, {Name: "c", Path: "/bin/sh", Disabled: true}}
	reasons := map[string]string{
		"a-0": "fewer replicas are wanted", // of no meaning, as it is wanted
		"a-1": "fewer replicas are wanted", "b-0": "its unit was removed", "c-0": "its unit was disabled",
	}
	for _, s := range rc.Slots(recs, units, false) {
		if got, want := s.State.Retired, s.ID != "a-0"; got != want {
			t.Errorf("%s: retired %t, want %t", s.ID, got, want)
		}
		if got, want := s.State.RetireReason(), reasons[s.ID]; got != want {
			t.Errorf("%s is not wanted because %q, want %q", s.ID, got, want)
		}
	}
}

// The evidence about a recorded run of a hook decides whether the worker is held.
func TestRecordedRunOfAHook(t *testing.T) {
	member := []process.Holder{{PID: 51}}
	const here, elsewhere = 1, 2
	for name, test := range map[string]struct {
		left  left
		where uint64
		boot  string
		moved bool
		held  string // part of the reason; empty if the worker is not held
		found bool   // a command is to be killed
		again bool   // it is worth a thorough search
	}{
		"free":                   {left: left{lease: launcher.LeaseFree}, where: here},
		"free, of elsewhere":     {left: left{lease: launcher.LeaseFree}, where: elsewhere},
		"visible":                {left: left{launcher.LeaseHeld, member}, where: here, found: true},
		"visible, of elsewhere":  {left: left{launcher.LeaseHeld, member}, where: elsewhere, found: true},
		"visible without a file": {left: left{"unknown", member}, where: elsewhere, found: true},
		"invisible": {
			left: left{lease: launcher.LeaseHeld}, where: here, held: "cannot be found", again: true,
		},
		"invisible, of elsewhere": {
			left: left{lease: launcher.LeaseHeld}, where: elsewhere, held: "start a master where it runs",
		},
		"no file": {left: left{lease: "unknown"}, where: here},
		"no file, of elsewhere": {
			left: left{lease: "unknown"}, where: elsewhere, held: "reboot if it is certainly gone",
		},
		"of another boot":        {left: left{lease: launcher.LeaseHeld}, where: elsewhere, boot: "earlier"},
		"of the original, moved": {left: left{launcher.LeaseHeld, member}, where: here, moved: true},
	} {
		t.Run(name, func(t *testing.T) {
			rc := &Context{
				Inspector:    leases{left: map[string]left{"worker-0/before": test.left}},
				PIDNamespace: here, Moved: test.moved,
			}
			s := &Slot{ID: "worker-0", Rec: records.Worker{Hooks: []records.HookRun{{
				Hook: "before",
				Instance: records.Instance{
					Token: "a", Process: identity.Process{PIDNamespace: test.where, BootID: test.boot},
				},
			}}}}
			f := Facts{standing: unrecorded}
			inspection{rc, s, &f}.hooks(t.Context())
			switch {
			case test.held == "" && f.standing == unknown:
				t.Errorf("the worker is held: %v", f.Cause)
			case test.held != "" && (f.standing != unknown || !strings.HasPrefix(f.Cause.Error(), "start.before ") ||
				!strings.Contains(f.Cause.Error(), test.held)):
				t.Errorf("the worker is held because of %v, want %q", f.Cause, test.held)
			}
			found := slices.ContainsFunc(f.evidence.Commands, func(f Found) bool { return f.PID == 51 })
			if found != test.found || f.HookHeld != test.again {
				t.Errorf("command found: %t, search again: %t; want %t, %t", found, f.HookHeld, test.found, test.again)
			}
		})
	}
}
