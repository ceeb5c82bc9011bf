package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// units enables or disables units. All of them are recorded at once.
func (x *acting) units(ctx context.Context) error {
	s := x.s
	x.Names = slices.Compact(slices.Sorted(slices.Values(x.Names))) // each once, as with workers
	if err := x.checkUnits(s.set.specs()); err != nil {
		return err
	}
	if other := s.changes.underWay(); other != "" {
		x.waiting(x.Names, other)
	}
	done, err := s.changes.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	configured := s.changes.configured
	if err := x.checkUnits(configured); err != nil { // a reload may have been under way
		return err
	}
	recs := s.changes.records()
	var events []records.Event
	for i := range recs {
		if !slices.Contains(x.Names, recs[i].Name) {
			continue
		}
		if configured[i].Disabled && x.Verb == VerbEnable {
			return refused("unit %s is disabled by its file: enable it there", recs[i].Name)
		}
		recs[i].Disabled, recs[i].Changed = x.Verb == VerbDisable, time.Now()
		events = append(events, records.Event{
			Time: recs[i].Changed, Unit: recs[i].Name, Type: string(x.Verb), Operator: x.by,
		})
	}
	if err := s.set.awaitWantedAgain(ctx, recovery.Wanted(configured, recs)); err != nil {
		return err
	}
	r, err := s.changes.apply(ctx, configured, recs, events...)
	if err != nil {
		return err
	}
	for _, name := range x.Names {
		s.log.Info("unit changed by operator", "unit", name, "verb", string(x.Verb))
		x.report(name, StageBegun, "")
	}
	if x.NoWait {
		return x.end(ctx)
	}
	return x.awaitUnits(ctx, r)
}

// offerDisabled offers the services of disabled units, so that calls of them fail with the reason: the master does not
// handle them in place of such a unit. The workers of the others are offered separately.
func offerDisabled(registry *services.Registry, units []unit.Spec) {
	for _, u := range units {
		var names []string
		if u.Disabled && !u.NoServices {
			names = u.Services
		}
		registry.Offer(services.OfUnit(u.Name), names...)
	}
}

// disabled returns the name of a disabled unit that offers the service, "" if there is none.
func (s *set) disabled(service string) string {
	for _, u := range s.specs() {
		if u.Disabled && !u.NoServices && slices.Contains(u.Services, service) {
			return u.Name
		}
	}
	return ""
}

// checkUnits returns an error if a name is none of the units, or if other units depend on those that would be disabled.
func (x *acting) checkUnits(units []unit.Spec) error {
	if x.All || len(x.Names) == 0 {
		return refused("name the units to %s", x.Verb)
	}
	var known []string
	for _, u := range units {
		known = append(known, u.Name)
	}
	var stopped []string
	for _, name := range x.Names {
		if !slices.Contains(known, name) {
			return &UnknownError{name, nearest.DidYouMean(name, known)}
		}
		for _, w := range x.s.set.list() {
			if unitName(w) == name {
				stopped = append(stopped, w.ID())
			}
		}
	}
	if x.Verb == VerbDisable && !x.Force {
		return x.s.set.needed(stopped)
	}
	return nil
}

// awaitUnits waits for the workers of the units, and reports the outcome of each unit.
func (x *acting) awaitUnits(ctx context.Context, r rollout) error {
	for _, name := range x.Names {
		of := func(w *worker.Worker) bool { return unitOfID(w.ID()) != name }
		one := r
		one.added = slices.DeleteFunc(slices.Clone(r.added), of)
		one.surplus = slices.DeleteFunc(slices.Clone(r.surplus), of)
		ids := append(idsOf(one.added), idsOf(one.surplus)...)
		err := one.awaitAdded(ctx)
		if err == nil {
			err = one.awaitSurplus(ctx)
		}
		if ctx.Err() != nil {
			break
		}
		did := string(x.Verb) + "d"
		if len(ids) > 0 {
			did += fmt.Sprintf(": %s", strings.Join(ids, ", "))
		}
		x.outcome(name, did, err)
	}
	return x.end(ctx)
}

// unitOfID returns the name of the unit that a worker id belongs to: a unit's name does not end in a dash and digits.
func unitOfID(id string) string { return id[:strings.LastIndex(id, "-")] }
