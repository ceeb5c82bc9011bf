package launcher

import (
	"context"
	"errors"
	"fmt"
)

// Look is what can be seen of the processes of an instance at one moment.
type Look struct {
	PIDs    []int // of the family, oldest first
	Listens []int // TCP ports, sorted
	Cgroup  string
}

// Look returns what can be seen of a family, also if an error hides the rest.
func (l *osLauncher) Look(ctx context.Context, s Subject) (Look, error) {
	f := l.family(s.Worker, s.Instance)
	seen := Look{Cgroup: f.Cgroup}
	members, err1 := f.Members(ctx)
	for _, m := range members {
		seen.PIDs = append(seen.PIDs, m.PID)
	}
	listens, err2 := f.ListensOn(ctx)
	seen.Listens = listens
	if err := errors.Join(err1, err2); err != nil {
		return seen, fmt.Errorf("look at the processes of %s: %w", s.Worker, err)
	}
	return seen, nil
}
