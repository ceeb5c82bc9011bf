package worker

import "slices"

// calm lets a worker skip the decision about a check that was passed like the one before, which is nearly every check
// of nearly every worker. The decision needs a large stack, which the worker's goroutine keeps until some collections
// later. The worker's goroutine owns it.
type calm struct {
	events  uint64 // number of the present event
	settled uint64 // number of the last event that was a passed check, and left nothing for another one to change
}

// next begins the next event.
func (c *calm) next() { c.events++ }

// lasts reports whether the event before the present one was a passed check after which another one changes nothing.
func (c *calm) lasts() bool { return c.settled != 0 && c.settled == c.events-1 }

// settle notes that the present event is such a check.
func (c *calm) settle() { c.settled = c.events }

// settled reports whether a passed check would change neither the state of the worker nor its record.
func settled(w *owner) bool {
	return w.state.Settled() && !w.unasked && w.journal.has(&w.rec) &&
		slices.Equal(w.rec.Services, w.routes.offers) && w.hooks.runs.recorded() == nil
}

// shown reports whether the readers of the worker know the probe that decides about its calls. A passed check may have
// found another method.
func shown(w *owner) bool {
	info := w.Info()
	return info != nil && len(w.checks) > 0 && info.Probe == w.checks[0].prober.String()
}
