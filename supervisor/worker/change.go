package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// ErrEnded means that the worker's goroutine has ended, because the master stops or the worker was removed.
var ErrEnded = errors.New("the worker is not supervised any more")

// command runs f in the worker's goroutine and returns its result. If ctx ends first, f may still run.
func command[T any](ctx context.Context, w *Worker, f func(ctx context.Context) T) (result T, err error) {
	done, discarded := make(chan T, 1), make(chan struct{})
	w.post(ctx, message{
		incarnation: anyInstance,
		apply:       func(ctx context.Context) { done <- f(ctx) },
		discard:     func() { close(discarded) },
	})
	select {
	case result = <-done:
		return result, nil
	case <-discarded:
		err = ErrEnded
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("worker %s did not take a command: %w", w.id, ctx.Err())
	}
	return result, err
}

// Effect is the effect of a change of its unit on a worker.
type Effect struct {
	// Outdated reports whether the worker is to be replaced: it was started with another executable or other arguments.
	Outdated bool
	// Mended reports whether the worker had failed or completed, and its start has begun, since the change may have
	// mended it.
	Mended bool
}

// Update makes u the unit of the worker, for the decisions and starts to come. promised is set if a recorded rollout
// has promised to start the worker if it has failed or completed.
func (w *Worker) Update(ctx context.Context, u *unit.Spec, promised bool) (Effect, error) {
	return command(ctx, w, func(ctx context.Context) Effect { return w.owner.update(ctx, u, promised) })
}

func (w *owner) update(ctx context.Context, u *unit.Spec, promised bool) (e Effect) {
	before, served := w.unit, w.routes.served()
	w.unit, w.routes.unit = u, u
	if u.Log != before.Log {
		w.output.rotate(w.env.Rotator, u, w.inst, &w.hooks)
	}
	if w.state.Slot == lifecycle.Occupied && u.Limits != before.Limits {
		if news := w.limits.limit(w.inst, u.Limits); news != "" {
			w.journal.add(w.event(eventUnenforced, news))
		}
	}
	is, was := u.Health, before.Health
	if w.checks != nil && (!is.Readiness.Equal(was.Readiness) || !is.Liveness.Equal(was.Liveness)) {
		w.startChecks()
	}
	if w.checks != nil && w.link.GRPC() == nil && w.subject().connects() {
		w.relink(ctx)
	}
	w.routes.replace(recalled(u, w.routes.offers))
	differs := recovery.CompareChange(w.env.Secrets, before, u, w.rec)
	if differs == recovery.Differs && recovery.Compare(w.env.Secrets, u, w.rec) == recovery.Incomparable {
		w.rec.SecretKey, w.rec.EnvironmentMAC = w.env.Secrets.ID(), "" // another one, also for a later change
	}
	w.rec.Outdated = differs != recovery.Same
	w.record(ctx) // before routing, as for a report of the worker
	w.reschedule(ctx, before)
	w.routes.offer(w.state.Retired)
	w.routes.update(served)
	// An outdated worker that was promised a start is replaced in its turn.
	tried, mended := triesAnew(w.rec, before, u, promised && differs != recovery.Differs)
	switch {
	case w.state.Slot != lifecycle.Vacant:
	case tried:
		e.Mended = mended
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvReplace})
	case w.state.Status == records.StatusFailed:
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvBegin}) // the new policy may try it again, or give it up
	}
	if u.NoServices != before.NoServices || u.NoOthers != before.NoOthers ||
		!slices.Equal(u.Services, before.Services) {
		w.routes.asked.incarnation = 0 // whatever it has answered
		w.discover(ctx)
	}
	e.Outdated = differs == recovery.Differs && w.state.Wanted && w.unit.Schedule.Cron == "" // a run goes on
	return e
}

// MendedBy reports whether [Worker.Update] with u starts the worker, which has failed or completed, since that change
// may have mended it.
func (i *Info) MendedBy(u *unit.Spec) bool {
	_, mended := triesAnew(i.Worker, i.Spec, u, false)
	return mended
}

// triesAnew reports whether the worker of a record, which has failed or completed, is started at once if u replaces
// before as its unit: the cause of its failure may be mended, or its work is not done with a successful exit any more,
// or a rollout has promised the start. Unless that is due to a change of the unit, it is not mended: only its
// start.before is tried once more.
func triesAnew(rec records.Worker, before, u *unit.Spec, promised bool) (tried, mended bool) {
	start, live := before.Differences(u)
	switch rec.Status { //nolint:exhaustive // the others have not ended
	case records.StatusFailed:
		tried = promised || failedBefore(rec.Reason) || startsOtherwise(live)
	case records.StatusCompleted:
		tried = u.Restart.Mode == unit.RestartAlways
	}
	return tried, tried && (promised || len(start)+len(live) > 0)
}

// startsOtherwise reports whether one of the keys that differ, and that a running worker follows, can keep a worker
// from getting ready. A wrong address of a health check is the usual one.
func startsOtherwise(live []string) bool {
	return slices.ContainsFunc(live, func(key string) bool {
		return key == "health" || key == "start" || strings.HasPrefix(key, "limits.")
	})
}

// Replace has a new instance take the worker's place, when the present one has ended, because of the command of an
// operator, or nil. It returns the number of the present incarnation.
func (w *Worker) Replace(ctx context.Context, reason string, by *records.Operator) (incarnation uint64, err error) {
	return command(ctx, w, func(ctx context.Context) uint64 {
		present := w.owner.rec.Incarnation
		w.owner.step(ctx, lifecycle.Event{Kind: lifecycle.EvReplace, Reason: reason, By: by})
		return present
	})
}

// Retire has the worker stopped and forgotten, for a slot that is no longer wanted because of the command of an
// operator, or nil. Its goroutine ends then.
func (w *Worker) Retire(ctx context.Context, cause lifecycle.RetireCause, by *records.Operator) error {
	_, err := command(ctx, w, func(ctx context.Context) struct{} {
		w.owner.rec.StoppedBy = by
		w.owner.step(ctx, lifecycle.Event{Kind: lifecycle.EvRetire, Cause: cause})
		w.owner.routes.offer(w.owner.state.Retired)
		return struct{}{}
	})
	return err
}
