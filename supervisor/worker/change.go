package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// errEnded means that the worker's goroutine has ended, because the master stops or the worker was removed.
var errEnded = errors.New("the worker is not supervised any more")

// do runs f in the worker's goroutine and waits for it.
func (w *Worker) do(ctx context.Context, f func(ctx context.Context)) error {
	done := make(chan struct{})
	discarded := errEnded
	w.post(ctx, message{
		incarnation: anyInstance,
		apply:       func(ctx context.Context) { defer close(done); discarded = nil; f(ctx) },
		discard:     func() { close(done) },
	})
	<-done
	if discarded != nil && ctx.Err() != nil {
		return fmt.Errorf("worker %s did not take a command: %w", w.id, ctx.Err())
	}
	return discarded
}

// Update makes u the unit of the worker, for the decisions and starts to come. It reports whether the worker is to be
// replaced, because it was started with another executable or other arguments.
func (w *Worker) Update(ctx context.Context, u unit.Spec) (outdated bool, err error) {
	err = w.do(ctx, func(ctx context.Context) {
		outdated = w.owner.update(ctx, u)
	})
	return outdated, err
}

func (w *owner) update(ctx context.Context, u unit.Spec) (outdated bool) {
	health, served := w.unit.Health, w.routes.served()
	w.unit, w.routes.unit = u, u
	if w.check != nil && u.Health != health {
		w.startChecks()
	}
	w.routes.replace(recalled(u, w.routes.offers))
	w.rec.Outdated = recovery.Outdated(u, w.rec)
	w.record(ctx) // before routing, as for a report of the worker
	w.routes.offer(w.state.Retired)
	w.routes.update(served)
	return w.rec.Outdated && w.state.Wanted
}

// Replace has a new instance take the worker's place, when the present one has ended. It returns the number of the
// present incarnation.
func (w *Worker) Replace(ctx context.Context, reason string) (incarnation uint64, err error) {
	err = w.do(ctx, func(ctx context.Context) {
		incarnation = w.owner.rec.Incarnation
		w.owner.step(ctx, lifecycle.Event{Kind: lifecycle.EvReplace, Reason: reason})
	})
	return incarnation, err
}

// Retire stops the worker and forgets it, for a slot that is no longer wanted. Its goroutine ends.
func (w *Worker) Retire(ctx context.Context) error {
	return w.do(ctx, func(ctx context.Context) {
		w.owner.step(ctx, lifecycle.Event{Kind: lifecycle.EvRetire})
		w.owner.routes.offer(w.owner.state.Retired)
	})
}
