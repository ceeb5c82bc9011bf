package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

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
// stops likewise. If the supervisor ends, one that is started with the same units completes the change.
//
// A unit with StartFirst that has workers to be replaced gets a spare worker first, until the others are replaced or
// one does not get ready.
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
	planReload(units, recs, s.set.list(), s.outdated)
	wanted := recovery.Wanted(units, recs)
	if err := s.set.awaitWantedAgain(ctx, wanted); err != nil {
		return err
	}
	reloaded := records.Event{
		Time: time.Now(), Type: eventtype.Reload, Operator: OperatorOf(ctx),
		Detail: DescribeChanges(append(changesOf(s.set.specs(), wanted, s.outdated), blocked(wanted)...)),
	}
	s.set.beginReplacing(wanted, s.outdated)
	defer func() { s.set.endReplacing(); s.services.Changed() }()
	r, err := s.change(ctx, units, recs, reloaded)
	if err != nil {
		return err
	}
	return endRollouts(ctx, s, r.complete(ctx))
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
) (r rollout, err error) {
	units := recovery.Wanted(configured, recs)
	if e := s.do(ctx, func(context.Context) { err = s.changeable(units) }); e != nil || err != nil {
		return r, errors.Join(e, err)
	}
	if err := s.recordUnits(ctx, recs, events...); err != nil {
		return r, fmt.Errorf("record the units: %w", err)
	}
	s.set.configured = configured
	// Before a worker gets the id of a process that was only watched, and after it has lost it.
	if err := s.watched.Remove(context.WithoutCancel(ctx), units, taken(units)); err != nil {
		return r, err
	}
	defer func() {
		if err == nil {
			s.watched.Put(units, until(r.surplus))
		}
	}()
	// A recorded change is made, even if the caller does not wait for it any more.
	e := s.do(context.WithoutCancel(ctx), func(work context.Context) { r, err = s.install(work, units) })
	err = errors.Join(e, err)
	r.recorded = rolloutsOf(recs)
	return r, err
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

// removedUnits returns the units that are not among the later ones, as units that offer nothing.
func removedUnits(units, later []unit.Spec) (removed []unit.Spec) {
	for _, u := range units {
		if !slices.ContainsFunc(later, func(l unit.Spec) bool { return l.Name == u.Name }) {
			removed = append(removed, unit.Spec{Name: u.Name})
		}
	}
	return removed
}

// install makes units the wanted set, starts the missing workers and retires the surplus ones. It runs in the goroutine
// of Serve.
func (s *Supervisor) install(work context.Context, units []unit.Spec) (r rollout, err error) {
	if err := s.changeable(units); err != nil {
		return r, err
	}
	r = rollout{set: &s.set, services: s.services, watched: s.watched, ended: s.ended}
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
			r.added, ports = append(r.added, w), append(ports, slot.Unit.Port)
		} else {
			r.kept = append(r.kept, updated{w, slot.Unit})
		}
		delete(present, slot.ID)
		workers = append(workers, w)
	}
	for _, w := range s.set.workers {
		if present[w.ID()] != nil {
			r.surplus = append(r.surplus, w)
		}
	}
	before := s.set.graph
	offerDisabled(s.services, removedUnits(s.set.units, units))
	offerDisabled(s.services, units)
	s.set.setUnits(units)
	s.set.setWorkers(append(workers, r.surplus...))
	for i, w := range r.added {
		serveAfter(work, w, holding(ports[i], r.surplus))
	}
	var surplus []*worker.Worker
	for _, w := range r.surplus {
		if !slices.Contains(s.set.retired, w) {
			s.set.retired, surplus = append(s.set.retired, w), append(surplus, w)
		}
	}
	s.helpers.Go(func() { retireInOrder(work, surplus, before, units) })
	s.services.Changed() // workers may wait for less than before
	s.guard.Changed()
	return r, nil
}
