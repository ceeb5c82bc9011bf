package supervisor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// surplusMargin is the time beyond the longest grace in which a surplus worker must have been stopped. A change that
// wants its slot again gives up then.
const surplusMargin = 30 * time.Second

// stillStopping returns a surplus worker that has not been stopped yet and whose slot the units want again, or nil.
// The caller holds mu.
func (s *set) stillStopping(units []unit.Spec) *worker.Worker {
	if len(s.retired) == 0 {
		return nil
	}
	wanted := map[string]bool{}
	for u := range unit.All(units) {
		for _, id := range workersOf(u, 0) {
			wanted[id] = true
		}
	}
	i := slices.IndexFunc(s.retired, func(w *worker.Worker) bool { return wanted[w.ID()] && !finished(w) })
	if i < 0 {
		return nil
	}
	return s.retired[i]
}

// awaitWantedAgain waits until the surplus workers of earlier changes whose slots the units want again have been
// stopped.
func (s *set) awaitWantedAgain(ctx context.Context, units []unit.Spec) error {
	var grace time.Duration
	for _, u := range units {
		grace = max(grace, u.Stop.Grace)
	}
	ctx, cancel := context.WithTimeout(ctx, grace+surplusMargin)
	defer cancel()
	for {
		s.mu.Lock()
		w := s.stillStopping(units)
		s.mu.Unlock()
		if w == nil {
			return nil
		}
		if err := awaitEnds(ctx, []*worker.Worker{w}); err != nil {
			return err
		}
	}
}

// holding returns the surplus workers that have a fixed port which a worker of a unit with this port waits for.
func holding(port unit.Port, surplus []*worker.Worker) []*worker.Worker {
	if port <= 0 {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(surplus), func(w *worker.Worker) bool {
		info := w.Info()
		return info == nil || info.Port != int(port)
	})
}

// serveAfter starts the goroutine of a worker when those that hold its port have ended.
func serveAfter(work context.Context, w *worker.Worker, holders []*worker.Worker) {
	go func() {
		for _, holder := range holders {
			<-holder.Finished() // at the latest when the master ends
		}
		w.Serve(work)
	}()
}

func awaitEnds(ctx context.Context, workers []*worker.Worker) error {
	for _, w := range workers {
		select {
		case <-w.Finished():
		case <-ctx.Done():
			return fmt.Errorf("%s is still being stopped: %w", w.ID(), ctx.Err())
		}
	}
	return nil
}

func finished(w *worker.Worker) bool {
	select {
	case <-w.Finished():
		return true
	default:
		return false
	}
}
