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
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// set is the set of units and their workers. Only the goroutine of Serve adds and removes; any goroutine may read.
type set struct {
	mu      sync.Mutex
	units   []unit.Spec      // with defaults, and with the wanted number of replicas
	workers []*worker.Worker // replaced as a whole: by unit and in order, then the surplus ones
	retired []*worker.Worker // those of them that have been told to stop for good

	// Only recover and the holder of Supervisor.applying use the following.
	configured []unit.Spec    // as they were passed in
	recorded   []records.Unit // the units that are known to be recorded
	unrecorded bool           // those of the start could not be recorded yet
}

func (s *set) list() []*worker.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers
}

func (s *set) put(workers []*worker.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers = workers
}

func (s *set) specs() []unit.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

// want makes units the wanted ones at the start, when those in the list are recorded.
func (s *set) want(units []unit.Spec, recorded []records.Unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units, s.recorded = units, recorded
}

// check returns an error that names each fault of the units.
func check(units []unit.Spec) error {
	names := map[string]bool{}
	var errs []error
	for _, u := range units {
		if err := u.CheckFields(); err != nil {
			errs = append(errs, err)
		}
		if names[u.Name] {
			errs = append(errs, fmt.Errorf("unit name %q: given twice", u.Name))
		}
		names[u.Name] = true
	}
	return errors.Join(errs...)
}

// replaceReason is the reason for the stop of a worker whose unit has changed.
const replaceReason = "its executable or its arguments have changed"

// Apply makes units the wanted set while the supervisor runs. It starts the workers that are missing, stops and
// forgets those that are not wanted any more, and replaces those whose executable or arguments differ, one after the
// other: the next only when the new one is ready. Other settings apply to living workers at once. A number of replicas
// that [Supervisor.Scale] has set is kept if the unit's own has not changed. Apply returns when all of that is done.
//
// Apply fails before it changes anything if the units have a fault, or if they cannot be recorded. It stops at the
// first worker that does not get ready, and the error names that worker; the remaining ones go on as they are and are
// marked outdated. If ctx ends, Apply undoes nothing. A supervisor that is started with the same units completes the
// set.
func (s *Supervisor) Apply(ctx context.Context, units ...unit.Spec) error {
	if err := check(units); err != nil {
		return err
	}
	done, err := s.beginChange(ctx)
	if err != nil {
		return err
	}
	defer done()
	c, err := s.change(ctx, units, recovery.UnitRecords(units, s.set.recorded, time.Now()))
	if err != nil {
		return err
	}
	if err := s.awaitAdded(ctx, c); err != nil {
		return err
	}
	if err := s.replaceOutdated(ctx, c.kept); err != nil {
		return err
	}
	if err := c.awaitSurplus(ctx); err != nil {
		return err
	}
	return awaitSearched(ctx, s)
}

// beginChange waits until the supervisor has recovered and no other change of the set is under way. The caller calls
// done after its own.
func (s *Supervisor) beginChange(ctx context.Context) (done func(), err error) {
	select {
	case s.applying <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("another change is under way: %w", ctx.Err())
	}
	done = func() { <-s.applying }
	if err := s.do(ctx, func(context.Context) {}); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// change makes the configured units with these records the wanted set. They are durable before it starts the missing
// workers and retires the surplus ones; it does not wait for either. The caller holds applying.
func (s *Supervisor) change(
	ctx context.Context, configured []unit.Spec, recs []records.Unit, events ...records.Event,
) (c change, err error) {
	units := recovery.Wanted(configured, recs)
	if e := s.do(ctx, func(context.Context) { err = s.changeable(units) }); e != nil || err != nil {
		return c, errors.Join(e, err)
	}
	if err := s.recordUnits(ctx, recs, events...); err != nil {
		return c, fmt.Errorf("record the units: %w", err)
	}
	s.set.configured = configured
	// Before a worker gets the id of a process that was only watched, and after it has lost it.
	if err := s.watched.Remove(context.WithoutCancel(ctx), units, taken(s.env.Recovery, units)); err != nil {
		return c, err
	}
	defer func() {
		if err == nil {
			s.watched.Put(units, until(c.surplus))
		}
	}()
	// A recorded change is made, even if the caller does not wait for it any more.
	e := s.do(context.WithoutCancel(ctx), func(work context.Context) { c, err = s.install(work, units) })
	err = errors.Join(e, err)
	return c, err
}

// change is the difference between two sets.
type change struct {
	added   []*worker.Worker
	kept    []updated
	surplus []*worker.Worker
}

// updated is a worker of both sets with its unit in the new one.
type updated struct {
	*worker.Worker
	unit unit.Spec
}

// changeable returns an error if units cannot become the wanted set now. It runs in the goroutine of Serve.
func (s *Supervisor) changeable(units []unit.Spec) error {
	if s.Status() == Stopping {
		return worker.ErrStopping
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	s.set.dropFinished()
	wanted := map[string]bool{}
	for _, slot := range s.env.Recovery.Slots(nil, units, false) {
		wanted[slot.ID] = true
	}
	for _, w := range s.set.retired {
		if wanted[w.ID()] {
			return fmt.Errorf("%s is still being stopped: try again", w.ID())
		}
	}
	return nil
}

// install makes units the wanted set, starts the missing workers and retires the surplus ones. It runs in the goroutine
// of Serve.
func (s *Supervisor) install(work context.Context, units []unit.Spec) (c change, err error) {
	if err := s.changeable(units); err != nil {
		return c, err
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	present := map[string]*worker.Worker{}
	for _, w := range s.set.workers {
		present[w.ID()] = w
	}
	slots := s.env.Recovery.Slots(nil, units, false)
	workers := make([]*worker.Worker, 0, len(slots))
	for _, slot := range slots {
		w := present[slot.ID]
		if w == nil {
			w = worker.New(&s.env, slot)
			c.added = append(c.added, w)
		} else {
			c.kept = append(c.kept, updated{w, slot.Unit})
		}
		delete(present, slot.ID)
		workers = append(workers, w)
	}
	for _, w := range s.set.workers {
		if present[w.ID()] != nil {
			c.surplus = append(c.surplus, w)
		}
	}
	s.set.units, s.set.workers = units, append(workers, c.surplus...)
	for _, w := range c.added {
		go w.Serve(work)
	}
	for _, w := range c.surplus {
		if !slices.Contains(s.set.retired, w) {
			s.set.retired = append(s.set.retired, w)
			s.helpers.Go(func() { _ = w.Retire(work) }) // it fails only if the master ends, and the next one retires it
		}
	}
	return c, nil
}

func (s *set) hasRetired(w *worker.Worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.retired, w)
}

// dropFinished removes the surplus workers that have been stopped. The caller holds mu.
func (s *set) dropFinished() {
	finished := func(w *worker.Worker) bool {
		if !slices.Contains(s.retired, w) {
			return false
		}
		select {
		case <-w.Finished():
			return true
		default:
			return false
		}
	}
	s.workers = slices.DeleteFunc(slices.Clone(s.workers), finished)
	s.retired = slices.DeleteFunc(slices.Clone(s.retired), finished)
}

// replaceOutdated passes the workers their units, and then replaces one after the other those that were started
// differently.
func (s *Supervisor) replaceOutdated(ctx context.Context, workers []updated) error {
	var outdated []*worker.Worker
	for _, w := range workers {
		differs, err := w.Update(ctx, w.unit)
		if err != nil {
			return fmt.Errorf("update %s: %w", w.ID(), err)
		}
		if differs {
			outdated = append(outdated, w.Worker)
		}
	}
	for i, w := range outdated {
		if info := w.Info(); info != nil && !info.Outdated {
			continue // it has ended meanwhile, and was started with its new unit
		}
		before, err := w.Replace(ctx, replaceReason)
		if err == nil {
			err = s.awaitReady(ctx, w, before)
		}
		if err != nil {
			return fmt.Errorf("replaced %d of %d workers: %w", i, len(outdated), err)
		}
	}
	return nil
}

// awaitAdded waits until the new workers are ready.
func (s *Supervisor) awaitAdded(ctx context.Context, c change) error {
	for _, w := range c.added {
		if err := s.awaitReady(ctx, w, 0); err != nil {
			return err
		}
	}
	return nil
}

// awaitSurplus waits until the surplus workers have been stopped and forgotten.
func (c change) awaitSurplus(ctx context.Context) error {
	for _, w := range c.surplus {
		select {
		case <-w.Finished():
		case <-ctx.Done():
			return fmt.Errorf("%s is still being stopped: %w", w.ID(), ctx.Err())
		}
	}
	return nil
}

// awaitReady waits until an instance of the worker after the given incarnation is ready, or has ended and is not to be
// restarted because it was successful. It fails as soon as that instance has failed or cannot be started.
func (s *Supervisor) awaitReady(ctx context.Context, w *worker.Worker, before uint64) error {
	changed, stop := s.services.Watch()
	defer stop()
	for {
		info := w.Info()
		switch {
		case info == nil, s.set.hasRetired(w):
			return fmt.Errorf("%s was removed", w.ID())
		case strings.HasPrefix(info.Reason, lifecycle.HeldPrefix):
			return fmt.Errorf("%s is %s", w.ID(), info.Reason)
		case info.Status == records.StatusBackoff, info.Status == records.StatusFailed:
			return fmt.Errorf("%s is not ready: %s", w.ID(), info.Reason)
		case info.Incarnation > before && (info.Ready || info.Status == records.StatusCompleted):
			return nil
		}
		select {
		case <-changed:
		case <-w.Finished():
			return fmt.Errorf("%s: %w", w.ID(), worker.ErrStopping)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", w.ID(), ctx.Err())
		}
	}
}
