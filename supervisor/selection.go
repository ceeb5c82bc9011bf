package supervisor

import (
	"fmt"
	"slices"

	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// UnknownError is returned by [Supervisor.Select] for a name of neither a worker nor a unit.
type UnknownError struct {
	Name    string
	suggest string
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("no such worker or unit: %q%s", e.Name, e.suggest)
}

// Select returns the workers with the given ids and those of the given units, or all of them. Each is returned once, in
// the order of [Supervisor.Workers]; unmanaged units' are among them. A unit without workers selects none.
func (s *Supervisor) Select(all bool, names ...string) ([]worker.Info, error) {
	var units []string
	for _, u := range s.set.specs() {
		units = append(units, u.Name)
	}
	return selectFrom(s.Workers(), units, all, names)
}

// DisabledUnits returns the names of the units that an operator or their configuration disables.
func DisabledUnits(s *Supervisor) (names []string) {
	for _, u := range s.set.specs() {
		if u.Disabled {
			names = append(names, u.Name)
		}
	}
	return names
}

// SelectRecorded is [Supervisor.Select] while no master runs: from the workers of a snapshot. It changes their list.
func SelectRecorded(
	snap records.Snapshot, workers []worker.Info, all bool, names ...string,
) ([]worker.Info, error) {
	units := make([]string, 0, len(snap.Units))
	for _, u := range snap.Units {
		units = append(units, u.Name)
	}
	return selectFrom(workers, units, all, names)
}

func selectFrom(workers []worker.Info, units []string, all bool, names []string) ([]worker.Info, error) {
	if all {
		return workers, nil
	}
	wanted := map[string]bool{}
	for _, name := range names {
		found := slices.Contains(units, name)
		for _, w := range workers {
			if w.ID == name || w.Unit == name {
				wanted[w.ID], found = true, true
			}
		}
		if !found {
			return nil, &UnknownError{name, nearest.DidYouMean(name, knownNames(workers, units))}
		}
	}
	return slices.DeleteFunc(workers, func(w worker.Info) bool { return !wanted[w.ID] }), nil
}

func knownNames(workers []worker.Info, units []string) []string {
	names := slices.Clone(units)
	for _, w := range workers {
		names = append(names, w.ID)
	}
	return names
}
