package supervisor

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// recordUnits makes the records of the set and the events durable. Units that are not in the set any more are recorded
// as retired. After a failed write, the recorded content is not known, so all units are written. The caller holds
// applying, or is recover.
func (s *Supervisor) recordUnits(ctx context.Context, units []records.Unit, events ...records.Event) error {
	var muts []records.Mutation
	for _, u := range units {
		muts = append(muts, records.PutUnit(u))
	}
	names := namesOf(units)
	for _, u := range s.set.recorded {
		if slices.Contains(names, u.Name) {
			continue
		}
		if !u.Retired {
			u.Retired, u.Scale, u.Rollout, u.Changed = true, nil, nil, time.Now()
		}
		muts = append(muts, records.PutUnit(u))
	}
	for _, e := range events {
		muts = append(muts, records.AppendEvent(e))
	}
	err := crashpoint.Do(crashpoint.UnitRecord, func() error { return s.opts.Store.Apply(ctx, muts...) })
	if err == nil {
		s.set.recorded, s.set.unrecorded = units, false
	}
	return err
}

func namesOf(units []records.Unit) []string {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, u.Name)
	}
	return names
}

// recordStart records the units with which the supervisor has been started. If the state cannot be written now,
// recordStart tries again in the background until ctx ends: living workers need a master meanwhile, and until then the
// next master would decide as this one has done, from the same records.
func (s *Supervisor) recordStart(ctx context.Context, units []records.Unit) error {
	byName := slices.SortedFunc(slices.Values(units), func(a, b records.Unit) int {
		return strings.Compare(a.Name, b.Name)
	})
	if slices.EqualFunc(byName, s.set.recorded, func(a, b records.Unit) bool { return reflect.DeepEqual(a, b) }) {
		return nil
	}
	err := s.recordUnits(context.WithoutCancel(ctx), units) // else Serve would not stop the workers if ctx ends now
	if !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	s.log.Error("units not recorded, retrying", "error", err)
	s.set.unrecorded = true
	s.helpers.Go(func() {
		for s.recordAgain(ctx, units) != nil {
			select {
			case <-time.After(unitRetry):
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// unitRetry is the interval of retries while the units cannot be recorded.
const unitRetry = 250 * time.Millisecond

// recordAgain records the units unless a later change has recorded others.
func (s *Supervisor) recordAgain(ctx context.Context, units []records.Unit) error {
	select {
	case s.applying <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.applying }()
	if !s.set.unrecorded {
		return nil
	}
	return s.recordUnits(ctx, units)
}
