package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// changer changes the set of units and workers: one change at a time, and each is durable before it is made.
type changer struct {
	s       *Supervisor
	turn    chan struct{}  // has room for one change at a time
	rolling sync.WaitGroup // goroutines that change the set: they end when the commands of the supervisor fail
	// present is whose change is under way, nil if it is of no operator.
	present atomic.Pointer[records.Operator]

	// Only recover and the caller of begin use the following.
	configured []unit.Spec    // as they were passed in
	recorded   []records.Unit // the units that are known to be recorded
	unrecorded bool           // those of the start could not be recorded yet
}

func newChanger(s *Supervisor, configured []unit.Spec) *changer {
	return &changer{s: s, turn: make(chan struct{}, 1), configured: configured}
}

// records returns the records of the configured units.
func (c *changer) records() []records.Unit { return c.recordsOf(c.configured) }

// recordsOf returns the records that units would have.
func (c *changer) recordsOf(units []unit.Spec) []records.Unit {
	return recovery.UnitRecords(c.s.env.Secrets, units, c.recorded, time.Now())
}

// underWay returns a text for those who wait for the change that is under way, "" if there is none.
func (c *changer) underWay() string {
	if len(c.turn) == 0 {
		return ""
	}
	text := "another change is under way"
	if by := c.present.Load(); by != nil {
		text += byWhom(by)
		if by.Command != "" {
			text += ": " + by.Command
		}
	}
	return text
}

// begin waits until the supervisor has recovered and no other change of the set is under way. The caller calls
// done after its own.
func (c *changer) begin(ctx context.Context) (done func(), err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", cmp.Or(c.underWay(), "it has not begun"), ctx.Err())
	}
	c.present.Store(OperatorOf(ctx))
	done = func() { c.present.Store(nil); <-c.turn }
	if err := c.s.do(ctx, func(context.Context) {}); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// apply makes the configured units with these records the wanted set. They are durable before it starts the missing
// workers and retires the surplus ones; it does not wait for either. The caller has begun a change.
func (c *changer) apply(
	ctx context.Context, configured []unit.Spec, recs []records.Unit, events ...records.Event,
) (r rollout, err error) {
	units := recovery.Wanted(configured, recs)
	if e := c.s.do(ctx, func(context.Context) { err = c.changeable(units) }); e != nil || err != nil {
		return r, errors.Join(e, err)
	}
	if err := c.recordUnits(ctx, recs, events...); err != nil {
		return r, fmt.Errorf("record the units: %w", err)
	}
	c.configured = configured
	// Before a worker gets the id of a process that was only watched, and after it has lost it.
	if err := c.s.watched.Remove(context.WithoutCancel(ctx), units, taken(units)); err != nil {
		return r, err
	}
	defer func() {
		if err == nil {
			c.s.watched.Put(units, until(r.surplus))
		}
	}()
	// A recorded change is made, even if the caller does not wait for it any more.
	e := c.s.do(context.WithoutCancel(ctx), func(work context.Context) {
		r, err = c.install(work, units, OperatorOf(ctx))
	})
	err = errors.Join(e, err)
	r.recorded = rolloutsOf(recs)
	return r, err
}

// changeable returns an error if units cannot become the wanted set now. It runs in the goroutine of Serve.
func (c *changer) changeable(units []unit.Spec) error {
	if c.s.Status() == Stopping {
		return worker.ErrStopping
	}
	c.s.set.mu.Lock()
	defer c.s.set.mu.Unlock()
	c.s.set.dropFinished()
	if w := c.s.set.stillStopping(units); w != nil {
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
func (c *changer) install(
	work context.Context, units []unit.Spec, by *records.Operator,
) (r rollout, err error) {
	if err := c.changeable(units); err != nil {
		return r, err
	}
	r = rollout{set: &c.s.set, services: c.s.services, watched: c.s.watched, ended: c.s.ended}
	c.s.set.mu.Lock()
	defer c.s.set.mu.Unlock()
	present := map[string]*worker.Worker{}
	for _, w := range c.s.set.workers {
		present[w.ID()] = w
	}
	slots := c.s.env.Recovery.Slots(nil, units, false)
	workers := make([]*worker.Worker, 0, len(slots))
	var ports []unit.Port // of the added ones
	for _, slot := range slots {
		w := present[slot.ID]
		if w == nil {
			w = worker.New(&c.s.env, slot)
			r.added, ports = append(r.added, w), append(ports, slot.Unit.Port)
		} else {
			r.kept = append(r.kept, updated{Worker: w, unit: slot.Unit})
		}
		delete(present, slot.ID)
		workers = append(workers, w)
	}
	for _, w := range c.s.set.workers {
		if present[w.ID()] != nil {
			r.surplus = append(r.surplus, w)
		}
	}
	before := c.s.set.graph
	offerDisabled(c.s.services, removedUnits(c.s.set.units, units))
	offerDisabled(c.s.services, units)
	c.s.set.setUnits(units)
	c.s.set.setWorkers(append(workers, r.surplus...))
	for i, w := range r.added {
		serveAfter(work, w, holding(ports[i], r.surplus))
	}
	var surplus []*worker.Worker
	for _, w := range r.surplus {
		if !slices.Contains(c.s.set.retired, w) {
			c.s.set.retired, surplus = append(c.s.set.retired, w), append(surplus, w)
		}
	}
	c.s.helpers.Go(func() { retireInOrder(work, surplus, before, units, by) })
	c.s.services.Changed() // workers may wait for less than before
	c.s.guard.Changed()
	return r, nil
}
