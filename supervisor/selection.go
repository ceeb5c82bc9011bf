package supervisor

import (
	"fmt"
	"slices"

	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/supervisor/unit"
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
	workers, units := s.Workers(), s.set.specs()
	if all {
		return workers, nil
	}
	wanted := map[string]bool{}
	for _, name := range names {
		found := slices.ContainsFunc(units, func(u unit.Spec) bool { return u.Name == name })
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

func knownNames(workers []worker.Info, units []unit.Spec) []string {
	names := make([]string, 0, len(units)+len(workers))
	for _, u := range units {
		names = append(names, u.Name)
	}
	for _, w := range workers {
		names = append(names, w.ID)
	}
	return names
}
