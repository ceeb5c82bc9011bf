package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

// execution is a decision of package recovery about a worker, while the worker's goroutine executes it. bounded, in
// its methods, is ctx with the time limit of a recovery.
type execution struct {
	w      *owner
	orders recovery.Orders
	inst   launcher.Instance // the process that the decision is about, or nil
}

// execute carries out the decision. If that is not possible, the worker is held.
func (x execution) execute(ctx, bounded context.Context, action recovery.Action) {
	x.w.leftover = nil
	switch action {
	case recovery.ActionHold:
		x.w.hold(ctx, x.orders.Cause)
	case recovery.ActionAdopt, recovery.ActionAdoptUnhealthy, recovery.ActionStop:
		x.keep(ctx, bounded)
	case recovery.ActionStart, recovery.ActionRespawn, recovery.ActionWait, recovery.ActionFail,
		recovery.ActionKeepFailed, recovery.ActionKeepCompleted, recovery.ActionKeepStopped, recovery.ActionForget,
		recovery.ActionKeepScheduled, recovery.ActionRun:
		x.vacate(ctx, bounded)
	case recovery.ActionSweepStray, recovery.ActionWatch: // concern no worker
	}
}

// takeOver makes the process that was found the recorded instance. If the recorded instance is another one that cannot
// be ended, it holds the worker and returns false.
func (x execution) takeOver(ctx, bounded context.Context) bool {
	w, o := x.w, x.orders
	if o.Unrecorded {
		if o.ClearRecorded && !x.clear(ctx, bounded, o.Instance.Token) {
			_ = x.inst.Close()
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
	x.remnants().KillOthers(bounded, w.rec.Instance.Token)
	return true
}

// keep adopts a living process, also to stop it. It pings a worker that was running, and waits for one that was
// starting as for any other start.
func (x execution) keep(ctx, bounded context.Context) {
	w, o := x.w, x.orders
	if !x.takeOver(ctx, bounded) {
		return
	}
	crashpoint.Pass(crashpoint.Adopt, func() { w.setInstance(ctx, x.inst, true) })
	w.limits.limit(x.inst, w.unit.Limits) // the master that started it has told the history
	if w.rec.Instance.Port != 0 && !w.rec.Instance.OwnPort {
		w.env.Ports.Keep(w.id, w.rec.Instance.Port)
	}
	// The recorded services are of this instance, or of one like it, so its routes are available at once.
	w.routes.confirmed = o.Ping
	if !o.Ping {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdoptedSilent})
		return
	}
	err := x.reconnect(ctx, bounded)
	w.unasked = err == nil && o.Proven
	if closed(w.env.Recovered) {
		w.askFirst()
	}
	if err == nil {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdopted})
	} else {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvAdoptedSilent, Reason: err.Error()})
	}
	w.journal.add(w.event(eventAdopted, ""))
}

// vacate ends the remains of the recorded instance and continues with the slot, in which no process lives.
func (x execution) vacate(ctx, bounded context.Context) {
	w, o := x.w, x.orders
	if o.Note != "" {
		w.journal.add(w.event(eventGone, o.Note))
	}
	switch o.Remains {
	case recovery.RemainsProcess:
		if x.takeOver(ctx, bounded) {
			w.inst, w.adopted = x.inst, true
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvFoundDead})
		}
		return
	case recovery.RemainsFamily:
		if !x.clear(ctx, bounded, w.rec.Instance.Token) || x.conclude(ctx) {
			return
		}
	case recovery.RemainsNone:
		x.remnants().KillOthers(bounded, "")
	}
	w.state = o.From
	if o.Event.Kind == lifecycle.EvExited {
		exit, _ := w.env.Recovery.Kept(w.rec.Instance.Token) // otherwise its source is identity.ExitUnknown
		w.exited(ctx, exit, o.Event)
		return
	}
	w.notices.drop(w)
	w.rec.Instance = nil
	w.step(ctx, o.Event)
}

func (x execution) remnants() recovery.Remnants {
	w := x.w
	return recovery.Remnants{Launcher: w.env.Launcher, Worker: w.id, Holders: w.found.Holders, Log: w.log}
}

// clear kills the remaining processes of the recorded instance, and those of other instances except keep. If that
// fails, it holds the worker: never a second copy beside a first that may still act.
func (x execution) clear(ctx, bounded context.Context, keep string) bool {
	r := x.remnants()
	if err := r.Kill(bounded, *x.w.rec.Instance); err != nil {
		x.w.hold(ctx, err)
		return false
	}
	r.KillOthers(bounded, keep)
	return true
}

// reconnect connects to an adopted worker and makes the check that decides about calls, unless the worker gets calls
// before that.
func (x execution) reconnect(ctx, bounded context.Context) error {
	w := x.w
	l, err := w.subject().dial()
	if err != nil {
		return err
	}
	w.connect(ctx, l)
	switch {
	case x.orders.Silent != "":
		return errors.New(x.orders.Silent)
	case x.orders.Proven:
		return nil
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

// absence is the end of an instance that was found gone, which stop.after follows.
type absence struct {
	exit  identity.Exit
	event lifecycle.Event
}

// conclude has stop.after run for an instance that was found gone, before anything follows from its end. It
// reports false if the unit has no such command.
func (x execution) conclude(ctx context.Context) bool {
	w, o := x.w, x.orders
	if len(w.unit.Stop.After) == 0 {
		return false
	}
	end := absence{event: o.Event}
	if o.Event.Kind == lifecycle.EvExited {
		end.exit, _ = w.env.Recovery.Kept(w.rec.Instance.Token) // otherwise its source is identity.ExitUnknown
	} else {
		end.event = lifecycle.Event{Kind: lifecycle.EvExited, Away: true, CutOff: true}
	}
	end.exit.At = time.Now()
	w.absent = &end
	w.state = o.From
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvFoundDead})
	return true
}
