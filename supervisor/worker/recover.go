package worker

import (
	"context"
	"errors"
	"time"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// HoldInterval is the interval at which a worker that cannot be verified is checked again.
const HoldInterval = time.Second

// recover determines what became of the recorded instance, decides what to do and executes it. If that is not
// possible now, the worker is held and recovers again later.
func (w *owner) recover(ctx context.Context) {
	defer w.endRecovery()
	bounded, cancel := context.WithTimeout(ctx, recovery.Timeout)
	defer cancel()
	x := execution{w: w}
	if action, decided := x.decide(ctx, bounded); decided {
		x.execute(ctx, bounded, action)
	}
}

// told is what the log says of a decision. A worker that is held decides again and again.
type told struct {
	action recovery.Action
	reason string
}

// decide determines what became of the recorded instance, and decides what to do. It returns false if the master has
// ended meanwhile. It is no part of recover because its variables take 10 KiB of the stack. A start, which goes deep,
// would double the stack of each worker once more on top of them.
func (x *execution) decide(ctx, bounded context.Context) (action recovery.Action, decided bool) {
	w := x.w
	inspect := func() (*recovery.Facts, launcher.Instance) {
		s := recovery.Slot{
			ID: w.id, Unit: w.unit, Recorded: w.journal.saved.ID != "", Rec: w.rec, State: w.state, Found: w.found,
		}
		f, inst := w.env.Recovery.Inspect(bounded, &s)
		w.found = s.Found
		return f, inst
	}
	f, inst := inspect()
	command := w.hooks.of(w.unit, unit.AfterEnd, 0)
	if errors.Is(f.Cause, process.ErrLeaseHeld) {
		// The holder may be too short-lived to be found by an inspection.
		kill := func(ctx context.Context) error { return x.remnants().Kill(ctx, *w.rec.Instance) }
		if f.HookHeld {
			kill = command.sweep
		}
		if err := kill(bounded); err == nil {
			f, inst = inspect()
		}
	}
	if ctx.Err() != nil { // the master has ended meanwhile
		if inst != nil {
			_ = inst.Close()
		}
		return action, false
	}
	d := recovery.Decide(f)
	if now := (told{d.Action, d.Reason}); w.told != now {
		w.told = now
		d.Log(w.log)
	}
	w.hooks.found(w.found)
	w.found.Commands = nil
	err := command.sweep(bounded)
	w.rec.Hooks = w.hooks.runs.recorded()
	if err != nil && !w.found.Unknown() && d.Action != recovery.ActionHold {
		// A second one must not run beside it, nor a worker that is started or stopped by another.
		if inst != nil {
			_ = inst.Close()
		}
		d = recovery.Decision{Action: recovery.ActionHold, Orders: recovery.Orders{Cause: err}}
	}
	x.orders, x.inst = d.Orders, inst
	return d.Action, true
}

// afterwards does the work that can wait until the master serves calls: querying the offered services and, for an
// adopted worker, the first check if it serves without, reading the executable to see whether it was replaced, and
// writing the history, for which the workers of a turn share one commit.
func (w *owner) afterwards(ctx context.Context) {
	w.askFirst()
	if w.adopted && w.inst != nil {
		w.rec.Outdated = recovery.Compare(w.env.Secrets, w.unit, w.rec) != recovery.Same
		w.record(ctx)
	}
	w.discover(ctx)
}

// hold leaves the slot as it is until it can be recovered.
func (w *owner) hold(ctx context.Context, err error) {
	if w.state.Reason != lifecycle.HeldPrefix+err.Error() {
		w.journal.add(w.event(eventHeld, err.Error()))
	}
	w.leftover = err
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvUnverifiable, Reason: err.Error()})
}
