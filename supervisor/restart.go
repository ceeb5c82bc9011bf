package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// ErrNoWorkers is returned by [Supervisor.Restart] if a worker does not exist, or if it is not started by the master or
// is wanted stopped.
var ErrNoWorkers = errors.New("the worker cannot be restarted")

// restartReason is the reason for the stop of a worker that is restarted.
const restartReason = "a restart was requested"

// RestartRequest selects the workers that [Supervisor.Restart] restarts.
type RestartRequest struct {
	Workers []string // ids
	// Outdated restarts only those of them whose executable or unit has changed since their start.
	Outdated bool
}

// Phase is how far the replacement of a worker is.
type Phase string

// The values of Phase.
const (
	PhaseDraining Phase = "draining" // it gets no new calls, and calls in flight end
	PhaseStopping Phase = "stopping"
	PhaseStarting Phase = "starting"
	PhaseReady    Phase = "ready"
	PhaseFailed   Phase = "failed"
)

// Progress is a change of the phase of one worker, which may also be a spare one.
type Progress struct {
	Worker string
	Phase  Phase
	Err    error // why it has failed
}

// Restarting is a restart that is recorded and under way.
type Restarting struct {
	workers []string
	done    chan struct{}
	err     error // valid when done is closed
}

// Restart restarts workers: unit by unit, those that others depend on first, and of each unit one after the other, or
// as many at once as the unit allows. Each one gets no new calls, finishes those in flight within its grace, and is
// stopped and started again; the next one follows when it is ready. A unit with StartFirst gets a spare worker
// meanwhile. The first worker that does not get ready ends the restart, and the remaining ones go on as they are.
//
// Restart records the restart, and then executes it in the background; see [Restarting.Wait]. A supervisor that is
// started meanwhile completes it. Restart returns [ErrNoWorkers] before it changes anything, and waits until other
// changes of the set are done. progress may be nil; it is called for one worker at a time, and must not block.
func (s *Supervisor) Restart(ctx context.Context, req RestartRequest, progress func(Progress)) (*Restarting, error) {
	done, err := s.changes.begin(ctx)
	if err != nil {
		return nil, err
	}
	r, err := beginRestart(ctx, s, req)
	if err != nil {
		done()
		return nil, err
	}
	r.tell = teller(progress)
	restarting := &Restarting{done: make(chan struct{})}
	for _, w := range r.targets() {
		restarting.workers = append(restarting.workers, w.ID())
	}
	run := func(work context.Context) {
		s.changes.rolling.Go(func() {
			defer close(restarting.done)
			defer done()
			restarting.err = r.execute(work, s)
		})
	}
	if err := s.do(context.WithoutCancel(ctx), run); err != nil {
		done()
		return nil, err // the next supervisor restarts them
	}
	return restarting, nil
}

// Workers returns the ids of the workers that are restarted, in their order. There may be none.
func (r *Restarting) Workers() []string { return r.workers }

// Wait returns when the restart is over, with an error if a worker did not get ready, or when ctx ends. The restart
// does not depend on a caller that waits.
func (r *Restarting) Wait(ctx context.Context) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("the restart goes on: %w", ctx.Err())
	}
}

// beginRestart records the restart and starts the spare workers. The caller has begun a change.
func beginRestart(ctx context.Context, s *Supervisor, req RestartRequest) (r rollout, err error) {
	ids := req.Workers
	if err := restartable(s.set.list(), ids); err != nil {
		return r, err
	}
	if req.Outdated {
		changes, err := s.MarkOutdated(ctx, false)
		if err != nil {
			return r, err
		}
		ids = nil
		for _, c := range changes {
			ids = append(ids, slices.DeleteFunc(c.Workers, func(id string) bool {
				return !slices.Contains(req.Workers, id)
			})...)
		}
	}
	recs := s.changes.records()
	var events []records.Event
	for i, u := range s.changes.configured {
		workers := targets(s.set.list(), owned(recovery.WithReplicas(&u, recs[i].Wanted()), ids))
		if len(workers) == 0 {
			continue
		}
		recs[i].Rollout = &records.Rollout{
			Act: records.ActRestart, Workers: workers, Spare: recovery.MayHaveSpare(&u, recs[i].Wanted()),
			Operator: OperatorOf(ctx),
		}
		recs[i].Changed = time.Now()
		names := namesOfTargets(*recs[i].Rollout)
		events = append(events, rolloutEvent(recs[i], eventtype.Restart, u.Name+": "+names))
		s.log.Info("restart requested", "unit", u.Name, "workers", names)
	}
	if err := s.set.awaitWantedAgain(ctx, recovery.Wanted(s.changes.configured, recs)); err != nil {
		return r, err
	}
	return s.changes.apply(ctx, s.changes.configured, recs, events...)
}

// restartable returns an error that names the first of the ids that has no worker, or one that is wanted stopped.
func restartable(workers []*worker.Worker, ids []string) error {
	for _, id := range ids {
		i := slices.IndexFunc(workers, func(w *worker.Worker) bool { return w.ID() == id })
		if i < 0 {
			return fmt.Errorf("%w: %s: no such worker", ErrNoWorkers, id)
		}
		if info := workers[i].Info(); info != nil && info.Desired == records.DesiredStopped {
			return fmt.Errorf("%w: %s is wanted stopped", ErrNoWorkers, id)
		}
	}
	return nil
}

// owned returns those of the ids that are of workers of the unit.
func owned(u *unit.Spec, ids []string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !owns(u, id) })
}

// phaseOf returns the phase of a worker that replaces the instance of an incarnation, or is about to.
func phaseOf(w *worker.Worker, before uint64) Phase {
	info := w.Info()
	switch {
	case info == nil, info.Status == records.StatusBackoff, info.Status == records.StatusFailed:
		return "" // the error tells more
	case info.Status == records.StatusStopping && w.Draining():
		return PhaseDraining
	case info.Status == records.StatusStopping:
		return PhaseStopping
	case info.Incarnation <= before, !info.Ready && info.Status != records.StatusCompleted:
		return PhaseStarting
	}
	return PhaseReady
}

// teller returns a function that calls progress with each new phase of a worker; nil if progress is.
func teller(progress func(Progress)) func(*worker.Worker, Phase, error) {
	if progress == nil {
		return nil
	}
	var mu sync.Mutex
	last := map[string]Phase{}
	return func(w *worker.Worker, p Phase, err error) {
		mu.Lock()
		defer mu.Unlock()
		if p != "" && last[w.ID()] != p {
			last[w.ID()] = p
			progress(Progress{w.ID(), p, err})
		}
	}
}

// told passes the phase of a worker to the caller of Restart, if there is one.
func (r rollout) told(w *worker.Worker, p Phase, err error) {
	if r.tell != nil {
		r.tell(w, p, err)
	}
}
