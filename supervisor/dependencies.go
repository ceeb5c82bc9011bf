package supervisor

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// resolve returns a resolver of the dependencies as they are now.
func (s *set) resolve() *dependencies.Resolver { return s.resolveWith(s.dependencies()) }

// resolveWith is resolve for other units.
func (s *set) resolveWith(graph *dependencies.Graph) *dependencies.Resolver {
	s.mu.Lock()
	byID, replacing := s.byID, s.replacing
	s.mu.Unlock()
	return graph.Resolve(func(id string) (dependencies.Worker, bool) {
		if replacing[id] {
			return dependencies.Worker{Unknown: true, Detail: "to be replaced"}, true
		}
		if w := byID[id]; w != nil {
			return dependencyOf(w)
		}
		return s.unmanagedProcess(id)
	})
}

// unmanagedProcess returns the process of an unmanaged unit as the dependents of the unit see it.
func (s *set) unmanagedProcess(id string) (d dependencies.Worker, exists bool) {
	for _, info := range s.unmanaged() {
		if info.ID == id {
			found := info.Status != records.StatusAbsent
			return dependencies.Worker{Status: info.Status, Detail: info.Reason, Alive: found, Ready: info.Ready}, true
		}
	}
	return d, false
}

// beginReplacing notes the workers of units that others depend on and that are about to be replaced, or tried anew.
// Until that is done, no worker that depends on them is started: it would take the old one for a dependency that is
// met, or that can never be.
func (s *set) beginReplacing(units []unit.Spec, due func(*unit.Spec) []string) {
	graph, replacing := dependencies.NewGraph(units), map[string]bool{}
	for u := range unit.All(units) {
		if len(graph.Dependents(u.Name)) == 0 {
			continue
		}
		for _, id := range due(u) {
			replacing[id] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replacing = replacing
}

// restoreReplacing is beginReplacing for the reloads that an earlier master has recorded.
func (s *set) restoreReplacing(units []records.Unit, workers []records.Worker) {
	s.beginReplacing(s.specs(), func(u *unit.Spec) (ids []string) {
		i := slices.IndexFunc(units, func(rec records.Unit) bool { return rec.Name == u.Name })
		if i < 0 || units[i].Rollout == nil || units[i].Rollout.Act != records.ActReload {
			return nil
		}
		for _, rec := range workers {
			if recovery.Replaces(units[i].Rollout, rec) {
				ids = append(ids, rec.ID)
			}
		}
		return ids
	})
}

// replaced removes a worker from those that are about to be replaced, and reports whether it was one of them.
func (s *set) replaced(w *worker.Worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.replacing[w.ID()] {
		return false
	}
	s.replacing = maps.Clone(s.replacing) // resolvers read the old one
	delete(s.replacing, w.ID())
	return true
}

func (s *set) endReplacing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replacing = nil
}

// splitReplacing returns first the workers that are about to be replaced because others depend on them, then the rest.
func (s *set) splitReplacing(kept []updated) (first, rest []updated) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range kept {
		if s.replacing[w.ID()] {
			first = append(first, w)
		} else {
			rest = append(rest, w)
		}
	}
	return first, rest
}

// blocked returns the reason why no worker of the unit can be started now, "" if one can be.
func (s *set) blocked(name string) string { return s.resolve().Of(name).Reason }

// dependencyOf returns the worker as its dependents see it.
func dependencyOf(w *worker.Worker) (d dependencies.Worker, exists bool) {
	info := w.Info()
	if info == nil {
		return d, false
	}
	held := strings.HasPrefix(info.Reason, lifecycle.HeldPrefix)
	if !isClosed(w.Recovered()) || held {
		d.Unknown = true
		if held {
			d.Detail = info.Reason
		}
		return d, true
	}
	d.Status, d.Detail, d.Ready = info.Status, info.Reason, info.Ready
	switch info.Status {
	case records.StatusStarting:
		d.Detail = w.WaitingFor()
		d.Alive = info.Instance != nil && info.Instance.PID != 0
	case records.StatusRunning, records.StatusUnhealthy:
		d.Alive = info.Instance != nil
	case records.StatusStopping, records.StatusStopped, records.StatusBackoff, records.StatusFailed,
		records.StatusCompleted, records.StatusWaiting, records.StatusScheduled, records.StatusAbsent:
	}
	return d, true
}

// unitName returns the name of the worker's unit, "" if the worker has been removed.
func unitName(w *worker.Worker) string {
	if info := w.Info(); info != nil {
		return info.Unit
	}
	return ""
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// unblockWaiting starts each waiting worker as soon as its dependencies are met, until ctx ends. One goroutine does so
// for all workers. A waiting worker also learns that its wait is hopeless, and records why; other reasons change too
// often to be recorded.
func (s *set) unblockWaiting(ctx context.Context, registry *services.Registry) {
	changed, stop := registry.Watch()
	defer stop()
	for {
		var resolver *dependencies.Resolver
		for _, w := range s.list() {
			info := w.Info()
			if info == nil || info.Status != records.StatusWaiting {
				continue
			}
			if resolver == nil {
				resolver = s.resolve()
			}
			if b := resolver.Of(info.Unit); !b.Blocked() || b.Hopeless && b.Reason != info.Reason {
				w.Unblock()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// stopInOrder stops the workers, those of a unit when all workers of the units that depend on it have ended. It returns
// when it has told all of them to stop.
func stopInOrder(workers []*worker.Worker, graph *dependencies.Graph) {
	byUnit := map[string][]*worker.Worker{}
	for _, w := range workers {
		name := unitName(w)
		byUnit[name] = append(byUnit[name], w)
	}
	ended := map[string]chan struct{}{}
	for _, name := range graph.Order() {
		ended[name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for name := range ended {
		wg.Go(func() {
			defer close(ended[name])
			for _, dependent := range graph.Dependents(name) {
				<-ended[dependent]
			}
			for _, w := range byUnit[name] {
				w.Stop()
			}
			for _, w := range byUnit[name] {
				<-w.Finished()
			}
		})
	}
	for name, ws := range byUnit {
		if ended[name] == nil { // of units that are not wanted any more
			for _, w := range ws {
				w.Stop()
			}
		}
	}
}

// retireInOrder has surplus workers stopped and forgotten, those of a unit when the surplus workers of the units that
// depended on it have ended. graph is that of the units before the change, units are those after it, and by is the
// operator whose command the change is.
func retireInOrder(
	ctx context.Context, surplus []*worker.Worker, graph *dependencies.Graph, units []unit.Spec, by *records.Operator,
) {
	byUnit := map[string][]*worker.Worker{}
	for _, w := range surplus {
		name := unitName(w)
		byUnit[name] = append(byUnit[name], w)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, ws := range byUnit {
		before := surplusDependents(name, byUnit, graph)
		cause := lifecycle.CauseIn(units, name)
		wg.Go(func() {
			for _, w := range before {
				select {
				case <-w.Finished():
				case <-ctx.Done():
					return
				}
			}
			for _, w := range ws {
				_ = w.Retire(ctx, cause, by) // it fails only if the master ends, and the next one retires it
			}
		})
	}
}

// surplusDependents returns the surplus workers of all units that depend on the unit, directly or through others.
func surplusDependents(
	name string, surplus map[string][]*worker.Worker, graph *dependencies.Graph,
) (found []*worker.Worker) {
	seen := map[string]bool{name: true}
	for queue := []string{name}; len(queue) > 0; queue = queue[1:] {
		for _, dependent := range graph.Dependents(queue[0]) {
			if !seen[dependent] {
				seen[dependent] = true
				found = append(found, surplus[dependent]...)
				queue = append(queue, dependent)
			}
		}
	}
	return found
}

// inOrder sorts workers so that each one comes after those that it depends on, otherwise as they were.
func inOrder[W any](workers []W, unitOf func(W) string, graph *dependencies.Graph) {
	compare := graph.Compare()
	slices.SortStableFunc(workers, func(a, b W) int { return compare(unitOf(a), unitOf(b)) })
}
