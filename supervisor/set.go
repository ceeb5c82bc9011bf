package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// set is the set of units and their workers. Only the goroutine of Serve adds and removes; any goroutine may read.
type set struct {
	mu      sync.Mutex
	units   []unit.Spec
	workers []*worker.Worker // replaced as a whole: by unit and in order, then the surplus ones
	retired []*worker.Worker // those of them that have been told to stop for good
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

// checked returns the units with their defaults, or an error that names each fault.
func checked(units []unit.Spec) ([]unit.Spec, error) {
	names := map[string]bool{}
	var errs []error
	complete := make([]unit.Spec, 0, len(units))
	for _, u := range units {
		if err := u.CheckFields(); err != nil {
			errs = append(errs, err)
		}
		if names[u.Name] {
			errs = append(errs, fmt.Errorf("unit name %q: given twice", u.Name))
		}
		names[u.Name] = true
		complete = append(complete, u.WithDefaults())
	}
	return complete, errors.Join(errs...)
}

// replaceReason is the reason for the stop of a worker whose unit has changed.
const replaceReason = "its executable or its arguments have changed"

// Apply makes units the wanted set while the supervisor runs. It starts the workers that are missing, stops and
// forgets those that are not wanted any more, and replaces those whose executable or arguments differ, one after the
// other: the next only when the new one is ready. Other settings apply to living workers at once. It returns when all
// of that is done.
//
// Apply fails before it changes anything if the units have a fault. It stops at the first worker that does not get
// ready, and the error names that worker; the remaining ones go on as they are and are marked outdated. If ctx ends,
// Apply undoes nothing. A supervisor that is started with the same units completes the set.
func (s *Supervisor) Apply(ctx context.Context, units ...unit.Spec) error {
	complete, err := checked(units)
	if err != nil {
		return err
	}
	select {
	case s.applying <- struct{}{}:
		defer func() { <-s.applying }()
	case <-ctx.Done():
		return fmt.Errorf("another change is under way: %w", ctx.Err())
	}
	var c change
	if e := s.do(ctx, func(work context.Context) { c, err = s.install(work, complete) }); e != nil || err != nil {
		return errors.Join(e, err)
	}
	for _, w := range c.surplus {
		if err := w.Retire(ctx); err != nil && !errors.Is(err, worker.ErrEnded) {
			return fmt.Errorf("stop %s: %w", w.ID(), err)
		}
		s.set.retire(w)
	}
	for _, w := range c.added {
		if err := s.awaitReady(ctx, w, 0); err != nil {
			return err
		}
	}
	if err := s.replaceOutdated(ctx, c.kept); err != nil {
		return err
	}
	for _, w := range c.surplus {
		select {
		case <-w.Finished():
		case <-ctx.Done():
			return fmt.Errorf("%s is still being stopped: %w", w.ID(), ctx.Err())
		}
	}
	return nil
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

// install makes units the wanted set and starts the missing workers. It runs in the goroutine of Serve.
func (s *Supervisor) install(work context.Context, units []unit.Spec) (c change, err error) {
	if s.Status() == Stopping {
		return c, worker.ErrStopping
	}
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	s.set.dropFinished()
	present := map[string]*worker.Worker{}
	for _, w := range s.set.workers {
		present[w.ID()] = w
	}
	slots := s.env.Recovery.Slots(nil, units, false)
	for _, slot := range slots {
		if w := present[slot.ID]; w != nil && slices.Contains(s.set.retired, w) {
			return c, fmt.Errorf("%s is still being stopped: try again", slot.ID)
		}
	}
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
	return c, nil
}

// retire marks a worker as one that ends.
func (s *set) retire(w *worker.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.retired, w) {
		s.retired = append(s.retired, w)
	}
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

// awaitReady waits until an instance of the worker after the given incarnation is ready, or has ended and is not to be
// restarted because it was successful. It fails as soon as that instance has failed or cannot be started.
func (s *Supervisor) awaitReady(ctx context.Context, w *worker.Worker, before uint64) error {
	changed, stop := s.services.Watch()
	defer stop()
	for {
		info := w.Info()
		switch {
		case info == nil:
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
