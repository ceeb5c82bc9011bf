package worker

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

// errHalted cancels a start.before because an operator stops the worker.
var errHalted = errors.New(lifecycle.ByOperator)

// ErrNoProcess means that the worker has no process that can get a signal.
var ErrNoProcess = errors.New("it has no process")

// Resume has the worker started for an operator, who may have stopped it. It gets its whole budget. When it returns,
// that is durable, and a start has begun unless the worker lives, or waits for its dependencies.
func (w *Worker) Resume(ctx context.Context, by *records.Operator) error {
	_, err := command(ctx, w, func(ctx context.Context) struct{} {
		w.owner.journal.add(of(by, w.owner.event(eventStart, "")))
		w.owner.step(ctx, lifecycle.Event{Kind: lifecycle.EvResume})
		return struct{}{}
	})
	return err
}

// Halt has the worker stopped for an operator, until Resume. When it returns, that is durable, and the stop has begun.
func (w *Worker) Halt(ctx context.Context, by *records.Operator) error {
	_, err := command(ctx, w, func(ctx context.Context) struct{} {
		o := w.owner
		if o.state.Wanted {
			o.rec.StoppedBy = by
		}
		o.journal.add(of(by, o.event(eventStop, "")))
		o.step(ctx, lifecycle.Event{Kind: lifecycle.EvHalt})
		if o.state.Slot == lifecycle.Vacant {
			o.startup.endBefore()
		}
		return struct{}{}
	})
	return err
}

// Signal sends a signal to the worker's process for an operator, when the history has it.
func (w *Worker) Signal(ctx context.Context, sig syscall.Signal, by *records.Operator) error {
	failed, err := command(ctx, w, func(ctx context.Context) error {
		o := w.owner
		if o.inst == nil || o.state.Slot == lifecycle.Vacant {
			return ErrNoProcess
		}
		detail := fmt.Sprintf("%s to process %d", identity.SignalName(sig), o.rec.Instance.PID)
		o.journal.add(of(by, o.event(eventSignal, detail)))
		if !o.record(ctx) {
			return errors.New("the signal could not be recorded")
		}
		return o.inst.Signal(sig)
	})
	return errors.Join(err, failed)
}

// haltedBy returns the operator whose command ends the worker, for the events of the end, which the next master may be
// the one to record. It returns nil if none does.
func haltedBy(s lifecycle.State, rec records.Worker) *records.Operator {
	if s.Wanted || s.Status != records.StatusStopping && s.Status != records.StatusStopped {
		return nil
	}
	return rec.StoppedBy
}

// of returns the event with the operator whose command is its cause.
func of(by *records.Operator, e records.Event) records.Event {
	e.Operator = by
	return e
}
