package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
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
	inspect := func() (recovery.Facts, launcher.Instance) {
		s := recovery.Slot{
			ID: w.id, Unit: w.unit, Recorded: w.journal.saved.ID != "", Rec: w.rec, State: w.state, Found: w.found,
		}
		f, inst := w.env.Recovery.Inspect(bounded, &s)
		w.found = s.Found
		return f, inst
	}
	f, inst := inspect()
	if errors.Is(f.Cause, process.ErrLeaseHeld) {
		// The holder may be too short-lived to be found by an inspection.
		if err := w.remnants().Kill(bounded, *w.rec.Instance); err == nil {
			f, inst = inspect()
		}
	}
	if ctx.Err() != nil { // the master has ended meanwhile
		if inst != nil {
			_ = inst.Close()
		}
		return
	}
	d := recovery.Decide(f)
	if w.decided.Action != d.Action || w.decided.Reason != d.Reason {
		w.decided = d
		d.Log(w.log)
	}
	w.hooks.found(w.found)
	w.found.Commands = nil
	if err := newHook(w, unit.AfterEnd, 0).sweep(bounded); err != nil && !w.found.Unknown() {
		// A second one must not run beside it, nor a worker that is started or stopped by another.
		if inst != nil {
			_ = inst.Close()
		}
		d = recovery.Decision{Action: recovery.ActionHold, Orders: recovery.Orders{Cause: err}}
	}
	w.execute(ctx, bounded, d, inst)
}

// execute carries out a decision. inst is the process that it is about, or nil. If the decision cannot be carried
// out, the worker is held.
func (w *owner) execute(ctx, bounded context.Context, d recovery.Decision, inst launcher.Instance) {
	w.leftover = nil
	switch d.Action {
	case recovery.ActionHold:
		w.hold(ctx, d.Orders.Cause)
	case recovery.ActionAdopt, recovery.ActionAdoptUnhealthy, recovery.ActionStop:
		w.keep(ctx, bounded, d.Orders, inst)
	case recovery.ActionStart, recovery.ActionRespawn, recovery.ActionWait, recovery.ActionFail,
		recovery.ActionKeepFailed, recovery.ActionKeepCompleted, recovery.ActionKeepStopped, recovery.ActionForget,
		recovery.ActionKeepScheduled, recovery.ActionRun:
		w.vacate(ctx, bounded, d.Orders, inst)
	case recovery.ActionSweepStray, recovery.ActionWatch: // concern no worker
	}
}

// takeOver makes the process that was found the recorded instance. If the recorded instance is another one that cannot
// be ended, it holds the worker and returns false.
func (w *owner) takeOver(ctx, bounded context.Context, o recovery.Orders, inst launcher.Instance) bool {
	if o.Unrecorded {
		if o.ClearRecorded && !w.clear(ctx, bounded, o.Instance.Token) {
			_ = inst.Close()
			return false
		}
		w.rec.Incarnation++
		w.rec.Port = o.Instance.Port
		w.journal.add(w.event(eventUnrecorded,
			fmt.Sprintf("process %d is newer than what is recorded", o.Instance.PID)))
	}
	if o.Instance != nil {
		w.rec.Instance = o.Instance
	}
	w.state = o.From
	w.remnants().KillOthers(bounded, w.rec.Instance.Token)
	return true
}

// keep adopts a living process, also to stop it. It pings a worker that was running, and waits for one that was
// starting as for any other start.
func (w *owner) keep(ctx, bounded context.Context, o recovery.Orders, inst launcher.Instance) {
	if !w.takeOver(ctx, bounded, o, inst) {
		return
	}
	crashpoint.Pass(crashpoint.Adopt, func() { w.setInstance(inst, true) })
	if w.rec.Instance.Port != 0 {
		w.env.Ports.Keep(w.id, w.rec.Instance.Port)
	}
	// The recorded services are of this instance, or of one like it, so its routes are available at once.
	w.routes.confirmed = o.Ping
	if !o.Ping {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdoptedSilent})
		return
	}
	err := w.reconnect(ctx, bounded, o.Silent)
	if err == nil {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdopted})
	} else {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdoptedSilent, Reason: err.Error()})
	}
	w.journal.add(w.event(eventAdopted, ""))
}

// vacate ends the remains of the recorded instance and continues with the slot, in which no process lives. inst is
// the dead process if it remains.
func (w *owner) vacate(ctx, bounded context.Context, o recovery.Orders, inst launcher.Instance) {
	if o.Note != "" {
		w.journal.add(w.event(eventGone, o.Note))
	}
	switch o.Remains {
	case recovery.RemainsProcess:
		if w.takeOver(ctx, bounded, o, inst) {
			w.inst, w.adopted = inst, true
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvFoundDead})
		}
		return
	case recovery.RemainsFamily:
		if !w.clear(ctx, bounded, w.rec.Instance.Token) || concludeAbsent(ctx, w, o) {
			return
		}
	case recovery.RemainsNone:
		w.remnants().KillOthers(bounded, "")
	}
	w.state = o.From
	if o.Event.Kind == lifecycle.EvExited {
		exit, _ := w.env.Recovery.Kept(w.rec.Instance.Token) // otherwise its source is identity.ExitUnknown
		w.exited(ctx, exit, o.Event)
		return
	}
	w.rec.Instance = nil
	w.step(ctx, o.Event)
}

// clear kills the remaining processes of the recorded instance, and those of other instances except keep. If that
// fails, it holds the worker: never a second copy beside a first that may still act.
func (w *owner) clear(ctx, bounded context.Context, keep string) bool {
	r := w.remnants()
	if err := r.Kill(bounded, *w.rec.Instance); err != nil {
		w.hold(ctx, err)
		return false
	}
	r.KillOthers(bounded, keep)
	return true
}

// afterwards does the work that can wait until the master serves calls: querying the offered services and, for an
// adopted worker, reading the executable to see whether it was replaced, and writing the history, for which all
// workers share one commit.
func (w *owner) afterwards(ctx context.Context) {
	if w.adopted && w.inst != nil {
		w.rec.Outdated = recovery.Compare(w.env.Secrets, w.unit, w.rec) != recovery.Same
		w.record(ctx)
	}
	w.discover(ctx)
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvUnblocked}) // the state of its dependencies is known now
}

func (w *owner) remnants() recovery.Remnants {
	return recovery.Remnants{Launcher: w.env.Launcher, Worker: w.id, Holders: w.found.Holders, Log: w.log}
}

// hold leaves the slot as it is until it can be recovered.
func (w *owner) hold(ctx context.Context, err error) {
	if w.state.Reason != lifecycle.HeldPrefix+err.Error() {
		w.journal.add(w.event(eventHeld, err.Error()))
	}
	w.leftover = err
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvUnverifiable, Reason: err.Error()})
}

// reconnect connects to an adopted worker and makes the check that decides about calls. If silent is not empty, it is
// the known reason why the worker cannot pass it.
func (w *owner) reconnect(ctx, bounded context.Context, silent string) error {
	l, err := w.subject().dial()
	if err != nil {
		return err
	}
	w.connect(ctx, l)
	if silent != "" {
		return errors.New(silent)
	}
	deciding := w.checks[0]
	wait, cancel := context.WithTimeout(bounded, deciding.spec.Timeout)
	defer cancel()
	err = deciding.prober.Ping(wait)
	deciding.Note(err)
	if err != nil {
		return errors.New(deciding.failure(err, silence{}, 0))
	}
	return nil
}
