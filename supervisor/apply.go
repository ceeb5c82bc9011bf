package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
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
// once. Workers that have failed are started at once if the change of their unit may have mended the cause, and awaited
// likewise. A number of replicas that [Supervisor.Scale] has set is kept if the unit's own has not changed. Apply
// returns when all of that is done.
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
	return s.ApplyReporting(ctx, func() {}, units...)
}

// ApplyReporting is like Apply, and calls begun when the change is recorded and has begun.
func (s *Supervisor) ApplyReporting(ctx context.Context, begun func(), units ...unit.Spec) error {
	if err := check(units); err != nil {
		return err
	}
	done, err := s.changes.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	recs := s.changes.recordsOf(units)
	planReload(units, recs, s.set.list(), s.changes.due, OperatorOf(ctx))
	wanted := recovery.Wanted(units, recs)
	if err := s.set.awaitWantedAgain(ctx, wanted); err != nil {
		return err
	}
	reloaded := records.Event{
		Time: time.Now(), Type: eventtype.Reload, Operator: OperatorOf(ctx),
		Detail: DescribeChanges(append(changesOf(s.set.specs(), wanted, s.changes.due), blocked(wanted)...)),
	}
	s.set.beginReplacing(wanted, func(u *unit.Spec) []string { return s.changes.due(u).all() })
	defer func() { s.set.endReplacing(); s.services.Changed() }()
	r, err := s.changes.apply(ctx, units, recs, reloaded)
	if err != nil {
		return err
	}
	begun()
	return endRollouts(ctx, s, r.complete(ctx))
}
