package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/supervisor/dependencies"
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
	ActionRetry    Action = "retry"    // failed or completed ones are started: the change may have mended them
	ActionUpdate   Action = "update"   // the new settings apply at once, the processes stay
	ActionOutdated Action = "outdated" // the executable has changed; the processes stay
	ActionBlocked  Action = "blocked"  // workers cannot be started; living processes stay
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
	done, err := s.changes.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	wanted := recovery.Wanted(units, s.changes.recordsOf(units))
	changes := changesOf(s.set.specs(), wanted, s.changes.due)
	resolver := s.set.resolveWith(dependencies.NewGraph(wanted))
	for i, c := range changes {
		switch c.Action { //nolint:exhaustive // the others start no worker
		case ActionStart, ActionReplace, ActionRetry:
			if b := resolver.Of(c.Unit); b.Blocked() {
				changes[i].Reasons = append(slices.Clone(c.Reasons), "waits for "+b.Reason)
			}
		}
	}
	return append(changes, blocked(wanted)...), nil
}

// maxDescribed bounds the description of changes in the history, in bytes.
const maxDescribed = 1024

// DescribeChanges returns the changes as a text for the history.
func DescribeChanges(changes []Change) string {
	var texts []string
	for _, c := range changes {
		texts = append(texts, fmt.Sprintf("%s: %s %s (%s)",
			c.Unit, c.Action, strings.Join(c.Workers, " "), strings.Join(c.Reasons, ", ")))
	}
	switch text := strings.Join(texts, "; "); {
	case text == "":
		return "nothing has changed"
	case len(text) > maxDescribed:
		return text[:maxDescribed] + "..."
	default:
		return text
	}
}

// due are the workers of a unit that a change of it is to start: their ids.
type due struct {
	outdated []string // they were started with another executable or other arguments
	retried  []string // they have failed or completed, and the change may have mended them
}

func (d due) all() []string { return slices.Concat(d.outdated, d.retried) }

// due returns the workers that a change of the unit to u is to start. If no worker can be started, there are none:
// Apply leaves the workers as they are. Each worker is compared with its own unit: a change that has stopped early has
// replaced that of the set only.
func (c *changer) due(u *unit.Spec) (d due) {
	if len(u.StartErrors()) > 0 {
		return d
	}
	for _, w := range c.s.set.list() {
		info := w.Info()
		if info == nil || !owns(u, w.ID()) {
			continue
		}
		// A scheduled run goes on, and the next one is of the new version.
		differs := recovery.CompareChange(c.s.env.Secrets, info.Spec, u, info.Worker) == recovery.Differs
		switch {
		case differs && u.Schedule.Cron == "":
			d.outdated = append(d.outdated, w.ID())
		case info.MendedBy(u):
			d.retried = append(d.retried, w.ID())
		}
	}
	return d
}

// blocked returns the units whose workers cannot be started, because the executable or the folder is missing, for
// example.
func blocked(units []unit.Spec) []Change {
	var changes []Change
	for u := range unit.All(units) {
		if u.Replicas == 0 || !u.Starts() {
			continue
		}
		var reasons []string
		for _, o := range u.StartErrors() {
			reasons = append(reasons, o.Error())
		}
		if len(reasons) > 0 {
			changes = append(changes, Change{u.Name, ActionBlocked, workersOf(u, 0), reasons})
		}
	}
	return changes
}

func owns(u *unit.Spec, worker string) bool { return slices.Contains(workersOf(u, 0), worker) }

// workersOf returns the ids of the unit's workers from an index on.
func workersOf(u *unit.Spec, from int) []string {
	var ids []string
	for i := from; i < u.Replicas; i++ {
		ids = append(ids, u.WorkerID(i))
	}
	return ids
}

func without(ids, others []string) []string {
	return slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(others, id) })
}

// changesOf returns the way from one set of units to another. dueOf returns the workers of a unit that must be started.
func changesOf(from, to []unit.Spec, dueOf func(u *unit.Spec) due) []Change {
	var changes []Change
	add := func(list ...Change) {
		for _, c := range list {
			if len(c.Workers) > 0 {
				changes = append(changes, c)
			}
		}
	}
	before := map[string]*unit.Spec{}
	for u := range unit.All(from) {
		before[u.Name] = u
	}
	kept := map[string]bool{}
	for u := range unit.All(to) {
		kept[u.Name] = true
		b, known := before[u.Name]
		switch {
		case known && b.Starts() == u.Starts():
			add(changesOfUnit(b, u, dueOf(u))...)
			continue
		case known:
			kept[u.Name] = false // the other one is removed
		}
		add(Change{u.Name, begin(u), workersOf(u, 0), []string{"new unit"}})
	}
	for u := range unit.All(from) {
		if !kept[u.Name] {
			add(Change{u.Name, end(u), workersOf(u, 0), []string{"unit removed"}})
		}
	}
	return changes
}

// changesOfUnit returns the changes of the workers of a unit of both sets; some may be about no worker.
func changesOfUnit(before, after *unit.Spec, d due) []Change {
	kept := workersOf(recovery.WithReplicas(after, min(before.Replicas, after.Replicas)), 0)
	isGone := func(id string) bool { return !slices.Contains(kept, id) }
	replaced, retried := slices.DeleteFunc(d.outdated, isGone), slices.DeleteFunc(d.retried, isGone)
	start, live := before.Differences(after)
	mends := slices.Concat(start, live)
	updated := without(slices.Clone(kept), replaced) // those that have never started will start differently
	if len(start) == 0 {
		start, updated = []string{"changed since its start"}, nil
	}
	if len(mends) == 0 { // of an earlier change that has stopped before it reached the workers
		mends = []string{"changed since its end"}
	}
	number := fmt.Sprintf("replicas %d to %d", before.Replicas, after.Replicas)
	if !after.Starts() {
		number = map[bool]string{true: "enabled", false: "disabled"}[after.Replicas > 0]
	}
	changes := []Change{
		{after.Name, ActionUpdate, updated, start},
		{after.Name, ActionReplace, replaced, start},
	}
	if len(live) > 0 {
		changes = append(changes, Change{after.Name, ActionUpdate, kept, live})
	}
	return append(changes,
		Change{after.Name, ActionRetry, retried, mends},
		Change{after.Name, begin(after), workersOf(after, before.Replicas), []string{number}},
		Change{after.Name, end(after), workersOf(before, after.Replicas), []string{number}})
}

// begin returns what happens to the workers of a new unit.
func begin(u *unit.Spec) Action {
	if u.Starts() {
		return ActionStart
	}
	return ActionWatch
}

// end returns what happens to the workers of a unit that is not wanted any more.
func end(u *unit.Spec) Action {
	if u.Starts() {
		return ActionStop
	}
	return ActionUnwatch
}

// MarkOutdated compares the executables of all workers with those that they were started with, marks the workers that
// differ as outdated, and returns them by unit. It replaces none. With dryRun it only returns them.
func (s *Supervisor) MarkOutdated(ctx context.Context, dryRun bool) ([]Change, error) {
	var changes []Change
	for u := range unit.All(s.set.specs()) {
		if !u.Starts() {
			continue
		}
		var ids []string
		for _, w := range s.set.list() {
			if dryRun || !owns(u, w.ID()) {
				continue
			}
			effect, err := w.Update(ctx, u, false)
			if err != nil {
				return changes, fmt.Errorf("check %s: %w", w.ID(), err)
			}
			if effect.Outdated {
				ids = append(ids, w.ID())
			}
		}
		if dryRun {
			for _, target := range targets(s.set.list(), s.changes.due(u).outdated) {
				ids = append(ids, target.ID)
			}
		}
		if len(ids) > 0 {
			changes = append(changes, Change{u.Name, ActionOutdated, ids, []string{"executable"}})
		}
	}
	return changes, nil
}
