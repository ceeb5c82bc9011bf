package supervisor

import (
	"slices"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// set is the set of units and their workers. Only the goroutine of Serve adds and removes; any goroutine may read.
type set struct {
	mu      sync.Mutex
	units   []unit.Spec      // with defaults, and with the wanted number of replicas
	workers []*worker.Worker // replaced as a whole: by unit and in order, then the surplus ones
	retired []*worker.Worker // those of them that have been told to stop for good

	graph *dependencies.Graph       // of units
	byID  map[string]*worker.Worker // workers; not changed, but replaced with workers
	// replacing are the ids of workers that others depend on and that an Apply is about to replace, or to try anew.
	replacing map[string]bool
	unmanaged func() []worker.Info // the processes of unmanaged units
}

func (s *set) list() []*worker.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers
}

func (s *set) put(workers []*worker.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setWorkers(workers)
}

// setWorkers replaces the workers. The caller holds mu.
func (s *set) setWorkers(workers []*worker.Worker) {
	s.workers, s.byID = workers, make(map[string]*worker.Worker, len(workers))
	for _, w := range workers {
		s.byID[w.ID()] = w
	}
}

// setUnits replaces the units. The caller holds mu.
func (s *set) setUnits(units []unit.Spec) {
	s.units, s.graph = units, dependencies.NewGraph(units)
}

// dependencies returns the graph of the wanted units.
func (s *set) dependencies() *dependencies.Graph {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.graph
}

func (s *set) specs() []unit.Spec {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.units
}

// unit returns the wanted unit of the name, or the zero value.
func (s *set) unit(name string) unit.Spec {
	for _, u := range s.specs() {
		if u.Name == name {
			return u
		}
	}
	return unit.Spec{}
}

// want makes units the wanted ones at the start.
func (s *set) want(units []unit.Spec) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setUnits(units)
}

// hasRetired reports whether the worker has been told to stop for good.
func (s *set) hasRetired(w *worker.Worker) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.retired, w)
}

// dropFinished removes the surplus workers that have been stopped. The caller holds mu.
func (s *set) dropFinished() {
	ended := slices.DeleteFunc(slices.Clone(s.retired), func(w *worker.Worker) bool { return !finished(w) })
	drop := func(w *worker.Worker) bool { return slices.Contains(ended, w) }
	s.setWorkers(slices.DeleteFunc(slices.Clone(s.workers), drop))
	s.retired = slices.DeleteFunc(slices.Clone(s.retired), drop)
}
