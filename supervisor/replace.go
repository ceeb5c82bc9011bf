package supervisor

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/worker"
)

// replaceReason is the reason for the stop of a worker whose unit has changed.
const replaceReason = "its executable or its unit has changed"

// replaceOutdated passes the workers their units, and then replaces those that were started differently: unit by unit,
// and of each as many at the same time as the unit allows.
func (s *Supervisor) replaceOutdated(ctx context.Context, workers []updated, surplus []*worker.Worker) error {
	inOrder(workers, func(w updated) string { return w.unit.Name }, s.set.dependencies())
	var outdated []updated
	for _, w := range workers {
		bounded, cancel := context.WithTimeout(ctx, w.unit.Start.Timeout) // the start of a worker may hang
		differs, err := w.Update(bounded, w.unit)
		cancel()
		if err != nil {
			return fmt.Errorf("update %s: %w", w.ID(), err)
		}
		if differs {
			outdated = append(outdated, w)
		} else {
			s.set.replaced(w.Worker)
		}
	}
	replaced, total := 0, len(outdated)
	for len(outdated) > 0 {
		n := 1
		for n < len(outdated) && outdated[n].unit.Name == outdated[0].unit.Name {
			n++
		}
		done, err := atMost(outdated[0].unit.MaxUnavailable, outdated[:n], func(w updated) error {
			if err := awaitEnds(ctx, holding(w.unit.Port, surplus)); err != nil {
				return err
			}
			return replace(ctx, s, w.Worker)
		})
		replaced += done
		if err != nil {
			return fmt.Errorf("replaced %d of %d workers: %w", replaced, total, err)
		}
		outdated = outdated[n:]
	}
	return nil
}

// replace replaces one worker and waits until its new instance is ready.
func replace(ctx context.Context, s *Supervisor, w *worker.Worker) error {
	if info := w.Info(); info == nil || info.Outdated { // otherwise it has ended, and was started with its new unit
		before, err := w.Replace(ctx, replaceReason)
		if err == nil {
			err = s.awaitReady(ctx, w, before)
		}
		if err != nil {
			return err
		}
	}
	s.set.replaced(w)
	s.services.Changed()
	return nil
}

// atMost calls do for each item, in their order and for limit of them at the same time. After an error it begins no
// more, and waits for those that it has begun. It returns the number of successful calls, and the errors of the others.
func atMost[T any](limit int, items []T, do func(T) error) (done int, err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	places := make(chan struct{}, max(limit, 1))
	for _, item := range items {
		places <- struct{}{}
		mu.Lock()
		failed := err != nil
		mu.Unlock()
		if failed {
			break
		}
		wg.Go(func() {
			defer func() { <-places }()
			failure := do(item)
			mu.Lock()
			defer mu.Unlock()
			if failure == nil {
				done++
			}
			err = errors.Join(err, failure)
		})
	}
	wg.Wait()
	return done, err
}
