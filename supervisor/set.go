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

	graph *dependencies.Graph       // of units
	byID  map[string]*worker.Worker // workers; not changed, but replaced with workers
	// replacing are the ids of outdated workers that others depend on and that an Apply is about to replace.
	replacing map[string]bool
	strangers func() []worker.Info // the processes of unmanaged units

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
	s.setWorkers(workers)
}

// setWorkers replaces the workers. The caller holds mu.
func (s *set) setWorkers(workers []*worker.Worker) {
	s.workers, s.byID = workers, make(map[string]*worker.Worker, len(workers))
	for _, w := range workers {
		s.byID[w.ID()] = w
	}
}

// setUnits replaces the units. The caller holds mu.
func (s *set) setUnits(units []unit.Spec) {
	s.units, s.graph = units, dependencies.NewGraph(units)
}

// dependencies returns the graph of the wanted units.
func (s *set) dependencies() *dependencies.Graph {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.graph
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
	s.setUnits(units)
	s.recorded = recorded
}

// FaultError is the error of units that have a fault: they can never be the wanted set.
type FaultError struct{ Err error }

func (e *FaultError) Error() string { return e.Err.Error() }

// Unwrap returns the faults.
func (e *FaultError) Unwrap() error { return e.Err }

// check returns a [*FaultError] that names each fault of the units.
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
	errs = append(errs, dependencies.Check(units))
	if err := errors.Join(errs...); err != nil {
		return &FaultError{err}
	}
	return nil
}

// Apply makes units the wanted set while the supervisor runs. It starts the workers that are missing, stops and
// forgets those that are not wanted any more, and replaces those whose executable, arguments or environment differ, one
// after the other, or as many at once as their unit allows: the next only when a new one is ready. Workers that others
// depend on come before these, and new workers wait for the replacement. Other settings apply to living workers at
// once. A number of replicas that [Supervisor.Scale] has set is kept if the unit's own has not changed. Apply returns
// when all of that is done.
//
// A worker whose slot is wanted again while it is being stopped is waited for, and so is one that holds the fixed port
// of another.
//
// Apply fails before it changes anything if the units have a fault ([*FaultError]), or if they cannot be recorded. It
// stops at the first worker that does not get ready, and the error names that worker; those that are being replaced at
// the same time are awaited, and the remaining ones go on as they are and are marked outdated. If ctx ends, Apply
// undoes nothing. A supervisor that is started with the same units completes the set.
func (s *Supervisor) Apply(ctx context.Context, units ...unit.Spec) error {
	if err := check(units); err != nil {
		return err
	}
	done, err := s.beginChange(ctx)
	if err != nil {
		return err
	}
	defer done()
	recs := recovery.UnitRecords(s.env.Secrets, units, s.set.recorded, time.Now())
	if err := s.set.awaitWantedAgain(ctx, recovery.Wanted(units, recs)); err != nil {
		return err
	}
	s.set.beginReplacing(recovery.Wanted(units, recs), s.outdated)
	defer func() { s.set.endReplacing(); s.services.Changed() }()
	c, err := s.change(ctx, units, recs)
	if err != nil {
		return err
	}
	first, kept := s.set.splitReplacing(c.kept)
	if err := s.replaceOutdated(ctx, first, c.surplus); err != nil {
		return err
	}
	if err := s.awaitAdded(ctx, c); err != nil {
		return err
	}
	if err := s.replaceOutdated(ctx, kept, c.surplus); err != nil {
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
	if w := s.set.stillStopping(units); w != nil {
		return fmt.Errorf("%s is still being stopped: try again", w.ID())
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
	var ports []unit.Port // of the added ones
	for _, slot := range slots {
		w := present[slot.ID]
		if w == nil {
			w = worker.New(&s.env, slot)
			c.added, ports = append(c.added, w), append(ports, slot.Unit.Port)
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
	before := s.set.graph
	s.set.setUnits(units)
	s.set.setWorkers(append(workers, c.surplus...))
	for i, w := range c.added {
		serveAfter(work, w, holding(ports[i], c.surplus))
	}
	var surplus []*worker.Worker
	for _, w := range c.surplus {
		if !slices.Contains(s.set.retired, w) {
			s.set.retired, surplus = append(s.set.retired, w), append(surplus, w)
		}
	}
	s.helpers.Go(func() { retireInOrder(work, surplus, before) })
	s.services.Changed() // workers may wait for less than before
	return c, nil
}

func (s *set) hasRetired(w *worker.Worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.retired, w)
}

// dropFinished removes the surplus workers that have been stopped. The caller holds mu.
func (s *set) dropFinished() {
	ended := slices.DeleteFunc(slices.Clone(s.retired), func(w *worker.Worker) bool { return !finished(w) })
	drop := func(w *worker.Worker) bool { return slices.Contains(ended, w) }
	s.setWorkers(slices.DeleteFunc(slices.Clone(s.workers), drop))
	s.retired = slices.DeleteFunc(slices.Clone(s.retired), drop)
}

// awaitAdded waits until the new workers are ready, those that others depend on first: so the error names the worker
// that is the cause.
func (s *Supervisor) awaitAdded(ctx context.Context, c change) error {
	inOrder(c.added, unitName, s.set.dependencies())
	for _, w := range c.added {
		if err := s.awaitReady(ctx, w, 0); err != nil {
			return err
		}
	}
	return nil
}

// awaitSurplus waits until the surplus workers have been stopped and forgotten.
func (c change) awaitSurplus(ctx context.Context) error {
	return awaitEnds(ctx, c.surplus)
}

// awaitReady waits until an instance of the worker after the given incarnation is ready, or has ended and is not to be
// restarted because it was successful. It fails as soon as that instance has failed or cannot be started, and also if
// the start makes no process within the start timeout, as with an executable on a file system that does not answer. The
// same time limits the wait for a stalled dependency.
func (s *Supervisor) awaitReady(ctx context.Context, w *worker.Worker, before uint64) error {
	changed, stop := s.services.Watch()
	defer stop()
	patience := s.set.patience(unitName(w))
	for {
		info, block := w.Info(), dependencies.Block{}
		if info != nil && info.Status == records.StatusWaiting {
			block = s.set.resolve().Of(info.Unit)
		}
		switch {
		case info == nil, s.set.hasRetired(w):
			return fmt.Errorf("%s was removed", w.ID())
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
