package supervisor

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// restart restarts workers one after the other. Workers that an operator has stopped stay stopped.
func (x *acting) restart(ctx context.Context) error {
	chosen, strangers, err := x.choose()
	if err != nil {
		return err
	}
	ids, err := x.restartable(chosen)
	if err != nil {
		return err
	}
	if x.Outdated {
		strangers = nil // it is not known with what they were started
	}
	for _, id := range strangers {
		x.onStranger(ctx, id)
	}
	if len(ids) == 0 {
		return x.end(ctx)
	}
	if other := x.s.changes.underWay(); other != "" {
		x.waiting(ids, other)
	}
	return x.restartWorkers(ctx, ids)
}

// restartable returns the ids of the workers that are to be restarted.
func (x *acting) restartable(chosen []*worker.Worker) (ids []string, err error) {
	for _, w := range chosen {
		info := w.Info()
		switch {
		case info == nil || info.Desired != records.DesiredStopped:
			ids = append(ids, w.ID())
		case slices.Contains(x.Names, w.ID()):
			return nil, refused("%s is stopped: start it with \"worker start\"", w.ID())
		}
	}
	if len(ids) == 0 && len(chosen) > 0 {
		return nil, refused("there are no workers to %s: an operator has stopped them", x.Verb)
	}
	return ids, nil
}

// restartWorkers restarts these workers, which the master has started.
func (x *acting) restartWorkers(ctx context.Context, ids []string) error {
	r, err := x.s.Restart(ctx, RestartRequest{Workers: ids, Outdated: x.Outdated}, func(p Progress) {
		if slices.Contains(ids, p.Worker) || p.Phase == PhaseFailed { // a spare one is no news otherwise
			x.progress(p)
		}
	})
	switch {
	case errors.Is(err, ErrNoWorkers):
		return refused("%v", err)
	case errors.Is(err, worker.ErrStopping):
		return refusedWhile(x.s)
	case err != nil:
		return err
	}
	for _, id := range r.Workers() {
		x.report(id, StageBegun, "")
	}
	if x.NoWait {
		return x.end(ctx)
	}
	if err := r.Wait(ctx); err != nil && ctx.Err() == nil {
		x.failRest(err.Error())
	}
	return x.end(ctx)
}

func (x *acting) waiting(names []string, reason string) {
	for _, name := range names {
		x.report(name, StageWaiting, reason)
	}
}

// progress reports the phase of a worker that is restarted.
func (x *acting) progress(p Progress) {
	switch p.Phase {
	case PhaseReady:
		x.report(p.Worker, StageDone, "restarted")
	case PhaseFailed:
		x.outcome(p.Worker, "", cmp.Or(p.Err, errors.New(string(p.Phase))))
	case PhaseDraining, PhaseStopping, PhaseStarting:
		x.report(p.Worker, StageWaiting, string(p.Phase))
	}
}

// failRest reports the workers that a restart which ended early has left as they were.
func (x *acting) failRest(reason string) {
	x.mu.Lock()
	var left []string
	for name := range x.pending {
		left = append(left, name)
	}
	x.mu.Unlock()
	slices.Sort(left)
	for _, name := range left {
		x.report(name, StageFailed, "not restarted: "+reason)
	}
}
