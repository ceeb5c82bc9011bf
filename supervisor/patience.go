package supervisor

import (
	"context"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// patience limits the time for which a change of the units waits for a stalled dependency. Without a limit, a process
// that is absent would keep all later changes waiting, also the one that removes the dependency.
type patience struct {
	left  time.Duration
	since time.Time // the begin of the present stall, zero if there is none
}

// patience returns that of a change with the workers of a unit: as long as a start of them may take.
func (s *set) patience(unit string) patience {
	return patience{left: s.unit(unit).Start.Timeout}
}

// note takes the present state of the dependencies, and reports whether the time is over. Stalls add up: a dependency
// that is restarted again and again is stalled in between.
func (p *patience) note(b dependencies.Block) (over bool) {
	now := time.Now()
	if !p.since.IsZero() {
		p.left -= now.Sub(p.since)
		p.since = time.Time{}
	}
	if !b.Stalled {
		return false
	}
	p.since = now
	return p.left <= 0
}

// over returns a channel that gets a value when the time of the present stall is over, nil if there is no stall.
func (p *patience) over() <-chan time.Time {
	if p.since.IsZero() {
		return nil
	}
	return time.After(p.left)
}

// awaitMet waits until the dependencies of a worker with a living process are met: its replacement must not end a
// process whose successor cannot be started.
func (r rollout) awaitMet(ctx context.Context, w *worker.Worker) error {
	changed, stop := r.services.Watch()
	defer stop()
	patience := r.set.patience(unitName(w))
	for {
		info := w.Info()
		if info == nil || info.Instance == nil || info.Status == records.StatusStopping {
			return nil
		}
		b := r.set.resolve().Of(info.Unit)
		if !b.Blocked() {
			return nil
		}
		if b.Hopeless || patience.note(b) {
			return fmt.Errorf("%s is not replaced, because it could not be started again: %s", w.ID(), b.Reason)
		}
		select {
		case <-patience.over():
		case <-changed:
		case <-w.Finished():
			return fmt.Errorf("%s: %w", w.ID(), worker.ErrStopping)
		case <-ctx.Done():
			return fmt.Errorf("%s is not replaced, because it could not be started again: %s: %w",
				w.ID(), b.Reason, ctx.Err())
		}
	}
}
