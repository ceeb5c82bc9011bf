package dependencies

import (
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Worker is a worker of a dependency, as far as its dependents need to know it.
type Worker struct {
	Status records.Status
	Detail string // the reason of the status, or the probe that a starting worker has to pass
	Alive  bool   // its process lives
	Ready  bool
	// Unknown means that it is not known yet whether a process of it lives: it is being recovered, or held for the
	// reason in Detail.
	Unknown bool
}

// Block is the reason why workers of a unit cannot be started now. The zero value means that they can be.
type Block struct {
	// Reason is for people, such as "db: db-0 is starting: port 5432: connection refused".
	Reason string
	// Hopeless means that time alone does not remove the reason: a dependency has failed, is stopped or has no workers.
	Hopeless bool
	// Stalled means that no start or run is under way that would remove the reason: a dependency is absent, held, in
	// backoff, or lives and is not ready.
	Stalled bool

	cause string // the reason of the unit at the end of a chain of waiting units
}

// Blocked reports whether there is a reason not to start a worker.
func (b Block) Blocked() bool { return b.Reason != "" }

// Resolver evaluates the dependencies of units at one moment. It evaluates each unit once, so that a long chain of
// waiting units costs no more than their number. It is for one goroutine.
type Resolver struct {
	graph    *Graph
	worker   func(id string) (w Worker, exists bool)
	resolved map[string]Block
}

// Resolve returns a resolver for workers as they are now.
func (g *Graph) Resolve(worker func(id string) (w Worker, exists bool)) *Resolver {
	return &Resolver{graph: g, worker: worker, resolved: map[string]Block{}}
}

// Of returns the reason why workers of the unit cannot be started. A hopeless one takes precedence, otherwise it is
// that of the first dependency that is not met.
func (r *Resolver) Of(name string) Block {
	u := r.graph.units[name]
	if u == nil || len(u.DependsOn) == 0 {
		return Block{}
	}
	if b, known := r.resolved[name]; known {
		return b
	}
	r.resolved[name] = Block{} // ends the recursion in a cycle, which Check has excluded
	var found Block
	for _, d := range u.DependsOn {
		if b := r.unmet(d); b.Hopeless || !found.Blocked() {
			found = b
		}
		if found.Hopeless {
			break
		}
	}
	r.resolved[name] = found
	return found
}

// unmet returns the reason why a dependency is not met.
func (r *Resolver) unmet(d unit.Dependency) Block {
	on := r.graph.units[d.Unit]
	switch {
	case on == nil:
		return because(d.Unit, Block{Reason: "there is no such unit", Hopeless: true})
	case on.Replicas == 0:
		return because(d.Unit, Block{Reason: "it is disabled or has no replicas", Hopeless: true})
	}
	var found Block
	for i := range on.Replicas {
		if b := r.lacks(on, on.WorkerID(i), d.Condition); b.Hopeless || !found.Blocked() {
			found = b
		}
		if found.Hopeless {
			break
		}
	}
	return because(d.Unit, found)
}

func because(name string, b Block) Block {
	if !b.Blocked() {
		return b
	}
	b.Reason = name + ": " + b.Reason
	if b.cause == "" {
		b.cause = b.Reason
	}
	return b
}

// lacks returns the reason why a worker does not meet the condition.
func (r *Resolver) lacks(on *unit.Spec, id string, condition unit.Condition) Block {
	w, exists := r.worker(id)
	switch {
	case !exists:
		return Block{Reason: id + " does not exist yet"}
	case w.Unknown && w.Detail != "":
		return Block{Reason: id + " is " + w.Detail, Stalled: true}
	case w.Unknown:
		return Block{Reason: id + " is being recovered"}
	case w.meets(condition):
		return Block{}
	}
	switch w.Status {
	case records.StatusWaiting:
		b := r.Of(on.Name)
		b.Reason = withDetail(id+" is waiting", b.cause)
		return b
	case records.StatusFailed:
		return Block{Reason: withDetail(id+" has failed", w.Detail), Hopeless: true}
	case records.StatusStopped:
		return Block{Reason: withDetail(id+" is stopped", w.Detail), Hopeless: true}
	case records.StatusCompleted: // it meets the other conditions
		return Block{Reason: withDetail(id+" has completed and is not ready", w.Detail), Hopeless: true}
	case records.StatusBackoff:
		return Block{Reason: withDetail(id+" is in backoff", w.Detail), Stalled: true}
	case records.StatusStarting, records.StatusRunning, records.StatusUnhealthy, records.StatusStopping,
		records.StatusScheduled, records.StatusAbsent:
		return Block{Reason: withDetail(id+" is "+string(w.Status), w.Detail), Stalled: w.stalled(condition)}
	}
	return Block{Reason: id + " is not started yet"}
}

func (w Worker) meets(condition unit.Condition) bool {
	completed := w.Status == records.StatusCompleted
	switch condition {
	case unit.Started:
		return w.Alive || completed
	case unit.Ready:
		return w.Ready
	case unit.Completed:
		return completed
	}
	return false
}

// stalled reports whether nothing is under way that would make the worker meet the condition.
func (w Worker) stalled(condition unit.Condition) bool {
	switch w.Status { //nolint:exhaustive // the others are on the way, or have ended
	case records.StatusAbsent, records.StatusScheduled:
		return true
	case records.StatusRunning, records.StatusUnhealthy:
		return condition != unit.Completed
	}
	return false
}

func withDetail(what, detail string) string {
	if detail == "" {
		return what
	}
	return what + ": " + detail
}
