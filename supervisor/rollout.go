package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/unmanaged"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// replaceReason is the reason for the stop of a worker whose unit has changed.
const replaceReason = "its executable or its unit has changed"

// rollout is a change of the set that is recorded and has begun. It is completed worker by worker, behind readiness.
type rollout struct {
	set      *set
	services *services.Registry
	watched  *unmanaged.Set
	ended    <-chan struct{} // closed when the supervisor has ended

	added   []*worker.Worker
	kept    []updated // the workers of both sets
	surplus []*worker.Worker

	recorded map[string]records.Rollout // of the units that have one
	tell     func(w *worker.Worker, p Phase, err error)
}

// updated is a worker with its unit in the new set.
type updated struct {
	*worker.Worker
	unit      *unit.Spec
	startable bool // nothing that its start needs is missing on this host; only set if a start is due
	again     bool // it had failed or completed, and its start has begun: it is awaited
	// missing is the reason why a start that a reload has recorded cannot be made, nil if there is none.
	missing error
}

// complete replaces the outdated workers and waits for the new, the surplus and the unmanaged ones. It stops at the
// first error.
func (r rollout) complete(ctx context.Context) error {
	first, rest := r.set.splitReplacing(r.kept)
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { return r.update(ctx, first) },
		r.awaitAdded,
		func(ctx context.Context) error { return r.update(ctx, rest) },
		r.awaitSurplus,
		r.awaitSearched,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// update passes the workers their units, and then replaces those that are due: unit by unit, and of each as many at the
// same time as the unit allows.
func (r rollout) update(ctx context.Context, workers []updated) error {
	inOrder(workers, func(w updated) string { return w.unit.Name }, r.set.dependencies())
	var due []updated
	for _, w := range workers {
		outdated, err := r.pass(ctx, &w)
		if err != nil {
			return err
		}
		switch {
		case r.restarts(w.Worker), r.hasBegun(w.Worker), w.again, w.missing != nil, outdated && w.startable:
			due = append(due, w)
		case !outdated:
			r.noteReplaced(w.Worker)
		}
	}
	what, replaced, total := "replaced", 0, len(due)
	if slices.ContainsFunc(due, func(w updated) bool { return w.again }) {
		what = "replaced or tried"
	}
	for len(due) > 0 {
		n := 1
		for n < len(due) && due[n].unit.Name == due[0].unit.Name {
			n++
		}
		done, err := r.replaceUnit(ctx, due[:n])
		replaced += done
		if err != nil {
			return fmt.Errorf("%s %d of %d workers: %w", what, replaced, total, err)
		}
		due = due[n:]
	}
	return nil
}

// pass passes the worker its unit, which may begin a start, and notes what follows from that. It reports whether the
// worker is outdated.
func (r rollout) pass(ctx context.Context, w *updated) (outdated bool, err error) {
	promised := r.promises(w.Worker)
	bounded, cancel := context.WithTimeout(ctx, w.unit.Start.Timeout) // the start of a worker may hang
	defer cancel()
	effect, err := w.Update(bounded, w.unit, promised)
	if err != nil {
		return false, fmt.Errorf("update %s: %w", w.ID(), err)
	}
	if effect.Outdated || effect.Mended {
		missing := w.unit.StartErrors()
		w.startable = len(missing) == 0
		if promised && !w.startable {
			w.missing = missing[0]
		}
	}
	w.again = effect.Mended && w.startable
	return effect.Outdated, nil
}

// replaceUnit replaces workers of one unit when its spare one is ready. It returns how many it has replaced.
func (r rollout) replaceUnit(ctx context.Context, workers []updated) (done int, err error) {
	name := workers[0].unit.Name
	if spare := r.spare(name); spare != nil {
		i := slices.IndexFunc(workers, func(w updated) bool { return w.Worker == spare })
		if i >= 0 { // a surplus worker becomes the spare one
			err = r.replace(ctx, workers[i])
			workers = slices.Delete(slices.Clone(workers), i, i+1)
			done++
		} else {
			err = r.awaitReady(ctx, spare, 0)
		}
		if err != nil {
			r.told(spare, PhaseFailed, err)
			return 0, err
		}
	}
	n, err := atMost(r.set.unit(name).MaxUnavailable, workers, func(w updated) error {
		if err := awaitEnds(ctx, holding(w.unit.Port, r.surplus)); err != nil {
			return err
		}
		return r.replace(ctx, w)
	})
	return done + n, err
}

// replace replaces one worker, unless that has been done, and waits until its new instance is ready.
func (r rollout) replace(ctx context.Context, of updated) (err error) {
	w := of.Worker
	defer func() {
		if err != nil {
			r.told(w, PhaseFailed, err)
		}
	}()
	if of.missing != nil {
		return fmt.Errorf("%s cannot be started: %w", w.ID(), of.missing)
	}
	info, before := w.Info(), r.before(w)
	reason, due := replaceReason, info == nil || info.Outdated // else it has ended, and was started with its new unit
	if r.restarts(w) {
		reason, due = restartReason, info == nil || info.Incarnation <= before
	}
	if due {
		if err := r.awaitMet(ctx, w); err != nil {
			return err
		}
		if before, err = w.Replace(ctx, reason, r.recorded[unitName(w)].Operator); err != nil {
			return err
		}
	}
	if due || of.again || r.hasBegun(w) {
		if err := r.awaitReady(ctx, w, before); err != nil {
			return err
		}
	}
	r.noteReplaced(w)
	r.told(w, PhaseReady, nil)
	return nil
}

// noteReplaced notes that a worker has been replaced, or need not be. Its dependents may wait for that.
func (r rollout) noteReplaced(w *worker.Worker) {
	if r.set.replaced(w) {
		r.services.Changed()
	}
}

// awaitAdded waits until the new workers are ready, but for the spare ones, those that others depend on first: so the
// error names the worker that is the cause.
func (r rollout) awaitAdded(ctx context.Context) error {
	inOrder(r.added, unitName, r.set.dependencies())
	for _, w := range r.added {
		if w == r.spare(unitName(w)) {
			continue
		}
		if err := r.awaitReady(ctx, w, 0); err != nil {
			return err
		}
	}
	return nil
}

// awaitSurplus waits until the surplus workers have been stopped and forgotten.
func (r rollout) awaitSurplus(ctx context.Context) error {
	return awaitEnds(ctx, r.surplus)
}

// awaitReady waits until an instance of the worker after the given incarnation is ready, or has ended and is not to be
// restarted because it was successful. It fails as soon as that instance has failed or cannot be started, and also if
// the start makes no process within the start timeout, as with an executable on a file system that does not answer. The
// same time limits the wait for a stalled dependency.
func (r rollout) awaitReady(ctx context.Context, w *worker.Worker, before uint64) error {
	changed, stop := r.services.Watch()
	defer stop()
	patience := r.set.patience(unitName(w))
	for {
		info, block := w.Info(), dependencies.Block{}
		r.told(w, phaseOf(w, before), nil)
		if info != nil && info.Status == records.StatusWaiting {
			block = r.set.resolve().Of(info.Unit)
		}
		switch {
		case info == nil, r.set.hasRetired(w):
			return fmt.Errorf("%s was removed", w.ID())
		case info.Desired == records.DesiredStopped:
			return nil // by an operator meanwhile
		case strings.HasPrefix(info.Reason, lifecycle.HeldPrefix):
			return fmt.Errorf("%s is %s", w.ID(), info.Reason)
		case info.Status == records.StatusBackoff, info.Status == records.StatusFailed:
			return fmt.Errorf("%s is not ready: %s", w.ID(), info.Reason)
		case patience.note(block), block.Hopeless:
			return fmt.Errorf("%s is waiting: %s", w.ID(), block.Reason)
		case info.Status == records.StatusScheduled:
			return nil // it is run when it is due
		case info.Incarnation > before && (info.Ready || info.Status == records.StatusCompleted):
			return nil
		}
		var overdue <-chan time.Time
		if !info.StartBy.IsZero() {
			overdue = time.After(time.Until(info.StartBy))
		}
		select {
		case <-overdue:
			return fmt.Errorf("%s is not ready: its start hangs", w.ID())
		case <-patience.over():
		case <-changed:
		case <-w.Finished():
			return fmt.Errorf("%s: %w", w.ID(), worker.ErrStopping)
		case <-ctx.Done():
			if block.Blocked() {
				return fmt.Errorf("%s is waiting: %s: %w", w.ID(), block.Reason, ctx.Err())
			}
			return fmt.Errorf("%s is not ready: %w", w.ID(), ctx.Err())
		}
	}
}

// awaitSearched waits until each new unmanaged unit has been searched for once. It does not wait for a process.
func (r rollout) awaitSearched(ctx context.Context) error {
	changed, stop := r.services.Watch()
	defer stop()
	for !r.watched.Searched() {
		select {
		case <-changed:
		case <-r.ended:
			return worker.ErrStopping
		case <-ctx.Done():
			return fmt.Errorf("the processes of unmanaged units have not been searched for: %w", ctx.Err())
		}
	}
	return nil
}

// atMost calls do for each item, in their order and for limit of them at the same time. After an error it begins no
// more, and waits for those that it has begun. It returns the number of successful calls, and the errors of the others.
func atMost[T any](limit int, items []T, do func(T) error) (done int, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, max(limit, 1))
	for _, item := range items {
		places <- struct{}{}
		mu.Lock()
		failed := err != nil
		mu.Unlock()
		if failed {
			break
		}
		wg.Go(func() {
			defer func() { <-places }()
			failure := do(item)
			mu.Lock()
			defer mu.Unlock()
			if failure == nil {
				done++
			}
			err = errors.Join(err, failure)
		})
	}
	wg.Wait()
	return done, err
}
