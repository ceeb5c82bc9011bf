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
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

// recordUnits makes the records of the set and the events durable. Units that are not in the set any more are recorded
// as retired. After a failed write, the recorded content is not known, so all units are written. The caller holds
// applying, or is recover.
func (c *changer) recordUnits(ctx context.Context, units []records.Unit, events ...records.Event) error {
	var muts []records.Mutation
	units = changedBy(OperatorOf(ctx), units, c.recorded)
	for _, u := range units {
		muts = append(muts, records.PutUnit(u))
	}
	names := namesOf(units)
	for _, u := range c.recorded {
		if slices.Contains(names, u.Name) {
			continue
		}
		if !u.Retired {
			u.Retired, u.Scale, u.Rollout, u.Changed = true, nil, nil, time.Now()
			u.ChangedBy = OperatorOf(ctx)
		}
		muts = append(muts, records.PutUnit(u))
	}
	for _, e := range events {
		muts = append(muts, records.AppendEvent(e))
	}
	err := crashpoint.Do(crashpoint.UnitRecord, func() error { return c.s.opts.Store.Apply(ctx, muts...) })
	if err == nil {
		c.recorded, c.unrecorded = units, false
	}
	return err
}

// changedBy returns the units with the operator in those that differ from the recorded ones.
func changedBy(by *records.Operator, units, recorded []records.Unit) []records.Unit {
	units = slices.Clone(units)
	for i, u := range units {
		if !slices.ContainsFunc(recorded, func(r records.Unit) bool { return reflect.DeepEqual(r, u) }) {
			units[i].ChangedBy = by
		}
	}
	return units
}

// blameRetired names in the surplus slots the operators whose commands an earlier master has recorded: with the end of
// the worker if that had begun, otherwise with its unit. None has removed a unit that is recorded as wanted.
func blameRetired(slots []recovery.Slot, units, recorded []records.Unit) {
	by := map[string]*records.Operator{}
	for _, u := range recorded {
		if u.Retired {
			by[u.Name] = u.ChangedBy
		}
	}
	for _, u := range units {
		by[u.Name] = u.ChangedBy
	}
	for i := range slots {
		rec := &slots[i].Rec
		begun := rec.StoppedBy != nil && rec.Desired != records.DesiredStopped // otherwise "worker stop" was before
		if slots[i].State.Retired && !begun {
			rec.StoppedBy = by[rec.Unit]
		}
	}
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
func (c *changer) recordStart(ctx context.Context, units []records.Unit) error {
	byName := slices.SortedFunc(slices.Values(units), func(a, b records.Unit) int {
		return strings.Compare(a.Name, b.Name)
	})
	if slices.EqualFunc(byName, c.recorded, func(a, b records.Unit) bool { return reflect.DeepEqual(a, b) }) {
		return nil
	}
	err := c.recordUnits(context.WithoutCancel(ctx), units) // else Serve would not stop the workers if ctx ends now
	if !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	c.s.log.Error("units not recorded, retrying", "error", err)
	c.unrecorded = true
	c.s.helpers.Go(func() {
		for c.recordAgain(ctx, units) != nil {
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
func (c *changer) recordAgain(ctx context.Context, units []records.Unit) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-c.turn }()
	if !c.unrecorded {
		return nil
	}
	return c.recordUnits(ctx, units)
}
