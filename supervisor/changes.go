package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Action is what happens to workers when the units change.
type Action string

// The values of Action.
const (
	ActionStart    Action = "start"
	ActionStop     Action = "stop"     // and forget
	ActionReplace  Action = "replace"  // one after the other, behind readiness
	ActionUpdate   Action = "update"   // the new settings apply at once, the processes stay
	ActionOutdated Action = "outdated" // the executable has changed; the processes stay
	ActionBlocked  Action = "blocked"  // the executable cannot be started; living processes stay
	ActionWatch    Action = "watch"    // the process of an unmanaged unit is searched for
	ActionUnwatch  Action = "unwatch"  // it is not any more; the process stays
)

// Change is what [Supervisor.Apply] does to workers of one unit, and why.
type Change struct {
	Unit    string
	Action  Action
	Workers []string
	Reasons []string // keys of the unit that differ, or a short text
}

// Changes returns what [Supervisor.Apply] would do with these units. It changes nothing.
func (s *Supervisor) Changes(ctx context.Context, units ...unit.Spec) ([]Change, error) {
	if err := check(units); err != nil {
		return nil, err
	}
	done, err := s.beginChange(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	wanted := recovery.Wanted(units, recovery.UnitRecords(units, s.set.recorded, time.Now()))
	return append(changesOf(s.set.specs(), wanted, s.outdated), blocked(wanted)...), nil
}

// outdated returns the workers of the unit that were started with another executable or other arguments. If the
// executable cannot be read, there are none: Apply leaves the workers as they are.
func (s *Supervisor) outdated(u unit.Spec) []string {
	var ids []string
	for _, w := range s.set.list() {
		if info := w.Info(); info != nil && owns(u, w.ID()) && recovery.Outdated(u, info.Worker) {
			ids = append(ids, w.ID())
		}
	}
	return ids
}

// blocked returns the units whose executable cannot be started, such as a missing one.
func blocked(units []unit.Spec) []Change {
	var changes []Change
	for _, u := range units {
		if u.Replicas == 0 || !u.Starts() {
			continue
		}
		if _, _, err := u.Executable(); err != nil {
			changes = append(changes, Change{u.Name, ActionBlocked, workersOf(u, 0), []string{err.Error()}})
		}
	}
	return changes
}

func owns(u unit.Spec, worker string) bool { return slices.Contains(workersOf(u, 0), worker) }

// workersOf returns the ids of the unit's workers from an index on.
func workersOf(u unit.Spec, from int) []string {
	var ids []string
	for i := from; i < u.Replicas; i++ {
		ids = append(ids, u.WorkerID(i))
	}
	return ids
}

func without(ids, others []string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(others, id) })
}

// changesOf returns the way from one set of units to another. outdated returns the workers of a unit that must be
// replaced.
func changesOf(from, to []unit.Spec, outdated func(u unit.Spec) []string) []Change {
	var changes []Change
	add := func(u unit.Spec, action Action, workers []string, reasons ...string) {
		if len(workers) > 0 {
			changes = append(changes, Change{u.Name, action, workers, reasons})
		}
	}
	byName := map[string]unit.Spec{}
	for _, u := range from {
		byName[u.Name] = u
	}
	for _, u := range to {
		before, known := byName[u.Name]
		if known && before.Starts() != u.Starts() {
			known = false // the other one is removed
		} else {
			delete(byName, u.Name)
		}
		if !known {
			add(u, begin(u), workersOf(u, 0), "new unit")
			continue
		}
		kept := u
		kept.Replicas = min(u.Replicas, before.Replicas)
		start, live := before.Differences(u)
		replaced := slices.DeleteFunc(outdated(u), func(id string) bool { return !owns(kept, id) })
		if len(start) > 0 { // those that have never started will start differently
			add(u, ActionUpdate, without(workersOf(kept, 0), replaced), start...)
		} else {
			start = []string{"changed since its start"}
		}
		add(u, ActionReplace, replaced, start...)
		if len(live) > 0 {
			add(u, ActionUpdate, workersOf(kept, 0), live...)
		}
		number := fmt.Sprintf("replicas %d to %d", before.Replicas, u.Replicas)
		if !u.Starts() {
			number = map[bool]string{true: "enabled", false: "disabled"}[u.Replicas > 0]
		}
		add(u, begin(u), workersOf(u, before.Replicas), number)
		add(u, end(u), workersOf(before, u.Replicas), number)
	}
	for _, u := range from {
		if _, gone := byName[u.Name]; gone {
			add(u, end(u), workersOf(u, 0), "unit removed")
		}
	}
	return changes
}

// begin returns what happens to the workers of a new unit.
func begin(u unit.Spec) Action {
	if u.Starts() {
		return ActionStart
	}
	return ActionWatch
}

// end returns what happens to the workers of a unit that is not wanted any more.
func end(u unit.Spec) Action {
	if u.Starts() {
		return ActionStop
	}
	return ActionUnwatch
}

// MarkOutdated compares the executables of all workers with those that they were started with, marks the workers that
// differ as outdated, and returns them by unit. It replaces none.
func (s *Supervisor) MarkOutdated(ctx context.Context) ([]Change, error) {
	var changes []Change
	for _, u := range s.set.specs() {
		if !u.Starts() {
			continue
		}
		var ids []string
		for _, w := range s.set.list() {
			if !owns(u, w.ID()) {
				continue
			}
			outdated, err := w.Update(ctx, u)
			if err != nil {
				return changes, fmt.Errorf("check %s: %w", w.ID(), err)
			}
			if outdated {
				ids = append(ids, w.ID())
			}
		}
		if len(ids) > 0 {
			changes = append(changes, Change{u.Name, ActionOutdated, ids, []string{"executable"}})
		}
	}
	return changes, nil
}
