package supervisor

import (
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

// decisions are the actions by worker.
type decisions map[string]recovery.Action

// scenario is a situation that a starting master finds.
type scenario struct {
	count int // wanted at the next start, out of 2
	// meanwhile runs while no master does; edit changes the records.
	meanwhile func(world *fakeOS, first map[string]*fakeProcess)
	edit      func(w *records.Worker) // nil keeps them; an empty ID removes one
	copied    bool                    // the next master is started on a copy of the state directory
	want      decisions
	// Acts on processes within the second after the start, in any order.
	acts []string
}

var scenarios = map[string]scenario{
	"all live": {count: 2, want: decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt}},
	"one died": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{Signal: 9}) },
		want:      decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts:      []string{"start worker-0"},
	},
	"one died, and another process has its PID": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].die(identity.Exit{Signal: 9})
			world.plant(&fakeProcess{pid: first["worker-0"].pid, rec: records.Instance{Token: "a stranger's"}})
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts: []string{"start worker-0"},
	},
	"one died and was not reaped": {
		count: 2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].unreaped = true
			first["worker-0"].die(identity.Exit{Signal: syscall.SIGSEGV, Source: identity.ExitStat})
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts: []string{"start worker-0"},
	},
	"one died and left a descendant": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			dead := first["worker-0"]
			dead.die(identity.Exit{Signal: 9})
			world.plant(&fakeProcess{pid: 1100, worker: "worker-0", rec: dead.rec, child: true})
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts: []string{"kill 1100", "start worker-0"},
	},
	"one died and its lease is held by nobody who can be found": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].die(identity.Exit{Signal: 9})
			world.leaseHeld = true
		},
		want: decisions{"worker-0": recovery.ActionHold, "worker-1": recovery.ActionAdopt},
	},
	"one died and another process listens on its port": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			dead := first["worker-0"]
			dead.die(identity.Exit{Signal: 9})
			world.plant(&fakeProcess{pid: 1100, rec: records.Instance{Token: "a stranger's", Port: dead.rec.Port}})
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts: []string{"start worker-0"},
	},
	"another boot": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			for _, p := range first {
				p.die(identity.Exit{})
			}
			world.bootID = "another"
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionRespawn},
		acts: []string{"start worker-0", "start worker-1"},
	},
	"another boot, and an old record": {
		count: 2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) {
			world.bootID = "another"
			for _, p := range world.processes {
				p.rec.BootID = world.bootID
				p.rec.Token += " of now"
			}
		},
		want: decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"cannot be verified": {
		count:     2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) { world.attachErr = process.ErrUnverifiable },
		want:      decisions{"worker-0": recovery.ActionHold, "worker-1": recovery.ActionHold},
	},
	"a start was cut off after the fork": {
		count: 2,
		edit:  cutOff0,
		want:  decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"a start was cut off before the fork": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit:      cutOff0,
		want:      decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts:      []string{"start worker-0"},
	},
	"a start was cut off before the fork, and another instance lives": {
		count: 2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].rec.Token = "another"
		},
		edit: cutOff0,
		want: decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"a start was cut off, and the scan fails": {
		count:     2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) { world.scanErr = syscall.EMFILE },
		edit:      cutOff0,
		want:      decisions{"worker-0": recovery.ActionHold, "worker-1": recovery.ActionAdopt},
	},
	"the record is lost, and the scan fails": {
		count:     2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) { world.scanErr = syscall.EMFILE },
		edit:      lost0,
		want:      decisions{"worker-0": recovery.ActionHold, "worker-1": recovery.ActionAdopt},
	},
	"was being stopped": {
		count: 2,
		edit:  status0(records.StatusStopping),
		want:  decisions{"worker-0": recovery.ActionStop, "worker-1": recovery.ActionAdopt},
		acts:  []string{"terminate worker-0", "start worker-0"},
	},
	"was being stopped, and is gone": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit:      status0(records.StatusStopping),
		want:      decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts:      []string{"start worker-0"},
	},
	"surplus": {
		count: 1,
		want:  decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionStop},
		acts:  []string{"terminate worker-1"},
	},
	"surplus, and gone": {
		count:     1,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-1"].die(identity.Exit{}) },
		want:      decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionForget},
	},
	"one more is wanted": {
		count: 3,
		want: decisions{
			"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt, "worker-2": recovery.ActionStart,
		},
		acts: []string{"start worker-2"},
	},
	"a process that no record names, its slot is free": {
		count: 2,
		edit:  lost0,
		want:  decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"a process that no record names, and no slot is for": {
		count: 2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) {
			world.plant(&fakeProcess{pid: 1100, worker: "worker-9", rec: records.Instance{Token: "stray"}})
		},
		want: decisions{
			"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt,
			`"worker-9"`: recovery.ActionSweepStray,
		},
		acts: []string{"kill 1100"},
	},
	"two instances of one worker": {
		count: 2,
		meanwhile: func(world *fakeOS, _ map[string]*fakeProcess) {
			world.plant(&fakeProcess{pid: 1100, worker: "worker-0", rec: records.Instance{Token: "twin"}})
		},
		want: decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
		acts: []string{"kill 1100"},
	},
	// This happens after a restore from a backup older than both.
	"the recorded one is dead and not reaped, and a newer one lives": {
		count: 2,
		meanwhile: func(world *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].unreaped = true
			first["worker-0"].die(identity.Exit{})
			world.plant(&fakeProcess{pid: 1100, worker: "worker-0", rec: records.Instance{Token: "newer"}})
		},
		want: decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"another process listens on the port": {
		count: 2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) {
			first["worker-0"].owner = process.PortForeign
		},
		want: decisions{"worker-0": recovery.ActionAdoptUnhealthy, "worker-1": recovery.ActionAdopt},
	},
	"nobody listens on the port": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].owner = process.PortFree },
		want:      decisions{"worker-0": recovery.ActionAdoptUnhealthy, "worker-1": recovery.ActionAdopt},
	},
	"stopped by a signal": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].suspended = true },
		want:      decisions{"worker-0": recovery.ActionAdoptUnhealthy, "worker-1": recovery.ActionAdopt},
	},
	"does not answer, which only the start shows": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].mute = true },
		want:      decisions{"worker-0": recovery.ActionAdopt, "worker-1": recovery.ActionAdopt},
	},
	"failed for good": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit: func(w *records.Worker) {
			if w.ID == "worker-0" {
				w.Status, w.Reason, w.Instance = records.StatusFailed, "of no use", nil
			}
		},
		want: decisions{"worker-0": recovery.ActionKeepFailed, "worker-1": recovery.ActionAdopt},
	},
	"failed, and its wait is not over": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit:      failed0(time.Hour + 20*time.Minute),
		want:      decisions{"worker-0": recovery.ActionKeepFailed, "worker-1": recovery.ActionAdopt},
	},
	"failed, and its wait is over": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit:      failed0(time.Hour),
		want:      decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts:      []string{"start worker-0"},
	},
	"completed": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit: func(w *records.Worker) {
			if w.ID == "worker-0" {
				w.Status, w.Reason, w.Instance = records.StatusCompleted, "exited with code 0", nil
			}
		},
		want: decisions{"worker-0": recovery.ActionKeepCompleted, "worker-1": recovery.ActionAdopt},
	},
	"completed with another executable or other arguments": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit: func(w *records.Worker) {
			if w.ID == "worker-0" {
				w.Status, w.Instance, w.SpecHash = records.StatusCompleted, nil, "another"
			}
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionAdopt},
		acts: []string{"start worker-0"},
	},
	"died with its budget used up": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit: func(w *records.Worker) {
			if w.ID == "worker-0" {
				w.History.ReadyClock = time.Hour
				for range 10 {
					w.History.Spent = append(w.History.Spent, time.Hour-time.Second)
				}
			}
		},
		want: decisions{"worker-0": recovery.ActionFail, "worker-1": recovery.ActionAdopt},
	},
	"waits for its restart": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit: func(w *records.Worker) {
			if w.ID == "worker-0" {
				w.Status, w.Reason, w.Instance = records.StatusBackoff, "exited with code 3", nil
				w.History.RetryAt = time.Hour + 20*time.Second
			}
		},
		want: decisions{"worker-0": recovery.ActionWait, "worker-1": recovery.ActionAdopt},
	},
	"is wanted stopped, and lives": {
		count: 2,
		edit:  unwanted0,
		want:  decisions{"worker-0": recovery.ActionStop, "worker-1": recovery.ActionAdopt},
		acts:  []string{"terminate worker-0"},
	},
	"is wanted stopped, and is gone": {
		count:     2,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) { first["worker-0"].die(identity.Exit{}) },
		edit:      unwanted0,
		want:      decisions{"worker-0": recovery.ActionKeepStopped, "worker-1": recovery.ActionAdopt},
	},
	"the state directory is a copy": {
		count:  2,
		copied: true,
		meanwhile: func(_ *fakeOS, first map[string]*fakeProcess) {
			for _, p := range first {
				p.elsewhere = true
			}
		},
		want: decisions{"worker-0": recovery.ActionRespawn, "worker-1": recovery.ActionRespawn},
		acts: []string{"start worker-0", "start worker-1"},
	},
}

func cutOff0(w *records.Worker) {
	if w.ID == "worker-0" {
		cut := *w.Instance
		cut.PID, cut.Inode, cut.StartTicks = 0, 0, 0
		w.Instance, w.Status = &cut, records.StatusStarting
	}
}

func lost0(w *records.Worker) {
	if w.ID == "worker-0" {
		*w = records.Worker{}
	}
}

func failed0(retryAt time.Duration) func(*records.Worker) {
	return func(w *records.Worker) {
		if w.ID == "worker-0" {
			w.Status, w.Reason, w.Instance = records.StatusFailed, "exited with code 3", nil
			w.History.RetryAt, w.History.FailedWait = retryAt, 30*time.Minute
		}
	}
}

func unwanted0(w *records.Worker) {
	if w.ID == "worker-0" {
		w.Desired = records.DesiredStopped
	}
}

func status0(s records.Status) func(*records.Worker) {
	return func(w *records.Worker) {
		if w.ID == "worker-0" {
			w.Status = s
		}
	}
}
