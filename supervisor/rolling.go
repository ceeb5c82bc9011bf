package supervisor

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// outcomeTypes are the types of the events for the outcome of a rollout.
type outcomeTypes struct{ resumed, completed, stopped string }

var rolloutOutcomes = map[records.RolloutAct]outcomeTypes{
	records.ActRestart: {eventtype.RestartResumed, eventtype.RestartCompleted, eventtype.RestartStopped},
	records.ActReload:  {eventtype.ReloadResumed, eventtype.ReloadCompleted, eventtype.ReloadStopped},
}

// planReload adds to the records of the units the rollouts that replace their outdated workers and start those that are
// to be tried anew, in place of earlier ones.
func planReload(
	units []unit.Spec, recs []records.Unit, workers []*worker.Worker, dueOf func(*unit.Spec) due, by *records.Operator,
) {
	for i, u := range units {
		recs[i].Rollout = nil
		wanted := recovery.WithReplicas(&u, recs[i].Wanted()).WithDefaults()
		if !u.Starts() {
			continue
		}
		d := dueOf(wanted)
		spare := len(targets(workers, d.outdated)) > 0 && recovery.MayHaveSpare(&u, wanted.Replicas)
		if spare {
			wanted.Replicas++ // that of an earlier, larger number of replicas may be outdated too
			d = dueOf(wanted)
		}
		list := targets(workers, d.all())
		if len(list) == 0 {
			continue
		}
		recs[i].Rollout = &records.Rollout{Act: records.ActReload, Spare: spare, Workers: list, Operator: by}
		recs[i].Changed = time.Now()
	}
}

// targets returns those of the workers that are to be replaced if the ids are given. One that is wanted stopped is not.
func targets(workers []*worker.Worker, ids []string) []records.RolloutWorker {
	var list []records.RolloutWorker
	for _, w := range workers {
		info := w.Info()
		if info != nil && info.Desired != records.DesiredStopped && slices.Contains(ids, w.ID()) {
			list = append(list, records.RolloutWorker{ID: w.ID(), Incarnation: info.Incarnation})
		}
	}
	return list
}

// rolloutsOf returns the rollouts of the units by name.
func rolloutsOf(recs []records.Unit) map[string]records.Rollout {
	rollouts := map[string]records.Rollout{}
	for _, rec := range recs {
		if rec.Rollout != nil {
			rollouts[rec.Name] = *rec.Rollout
		}
	}
	return rollouts
}

// target returns the worker's part in the recorded rollout of its unit.
func (r rollout) target(w *worker.Worker) (t records.RolloutWorker, act records.RolloutAct, exists bool) {
	recorded := r.recorded[unitName(w)]
	i := slices.IndexFunc(recorded.Workers, func(t records.RolloutWorker) bool { return t.ID == w.ID() })
	if i < 0 {
		return t, "", false
	}
	return recorded.Workers[i], recorded.Act, true
}

// restarts reports whether the worker is replaced even if it is not outdated.
func (r rollout) restarts(w *worker.Worker) bool {
	_, act, _ := r.target(w)
	return act == records.ActRestart
}

// before returns the incarnation of the worker that its replacement follows.
func (r rollout) before(w *worker.Worker) uint64 {
	t, _, _ := r.target(w)
	return t.Incarnation
}

// hasBegun reports whether the worker was started since the rollout began.
func (r rollout) hasBegun(w *worker.Worker) bool {
	t, _, exists := r.target(w)
	info := w.Info()
	return exists && info != nil && info.Incarnation > t.Incarnation
}

// promises reports whether the rollout is a reload that has recorded a start of the worker, which has not begun yet.
// The record outlives a master that is killed before the start.
func (r rollout) promises(w *worker.Worker) bool {
	info := w.Info()
	if info == nil {
		return false
	}
	recorded := r.recorded[info.Unit]
	return recorded.Act == records.ActReload && recovery.Replaces(&recorded, info.Worker)
}

// spare returns the spare worker of the unit, nil if it has none.
func (r rollout) spare(name string) *worker.Worker {
	if !r.recorded[name].Spare {
		return nil
	}
	u := r.set.unit(name)
	for _, w := range r.set.list() {
		if w.ID() == u.WorkerID(u.Replicas-1) {
			return w
		}
	}
	return nil
}

// targets returns the workers that are recorded as to be replaced.
func (r rollout) targets() []updated {
	list := slices.DeleteFunc(slices.Clone(r.kept), func(w updated) bool {
		_, _, exists := r.target(w.Worker)
		return !exists
	})
	inOrder(list, func(w updated) string { return w.unit.Name }, r.set.dependencies())
	return list
}

// resume replaces the workers that are recorded as to be replaced.
func (r rollout) resume(ctx context.Context) error { return r.update(ctx, r.targets()) }

// endRollouts removes the records of the rollouts, completed or stopped by err, and waits until the spare workers have
// been stopped. It returns err. If err is the end of the supervisor, the records stay, and the next one continues.
func endRollouts(ctx context.Context, s *Supervisor, err error) error {
	if isEnd(err) {
		return err
	}
	recs := s.changes.records()
	var by *records.Operator // whose rollouts they are
	var events []records.Event
	for i, rec := range recs {
		if rec.Rollout == nil {
			continue
		}
		by = cmp.Or(by, rec.Rollout.Operator)
		what, detail := rolloutOutcomes[rec.Rollout.Act].completed, rec.Name
		if err != nil {
			what, detail = rolloutOutcomes[rec.Rollout.Act].stopped, rec.Name+": "+err.Error()
		}
		rec.Changed = time.Now()
		events = append(events, rolloutEvent(rec, what, detail))
		recs[i].Rollout, recs[i].Changed = nil, rec.Changed
	}
	if len(events) == 0 {
		return err
	}
	if by != nil { // it causes the stops of the spare workers
		ctx = WithOperator(ctx, *by)
	}
	r, e := s.changes.apply(context.WithoutCancel(ctx), s.changes.configured, recs, events...)
	if e != nil {
		return errors.Join(err, e)
	}
	return errors.Join(err, r.awaitSurplus(ctx))
}

// rolloutEvent returns an event about the recorded rollout of the unit, with the operator whose command began it, also
// if an earlier master has received that.
func rolloutEvent(rec records.Unit, what, detail string) records.Event {
	return records.Event{
		Time: rec.Changed, Unit: rec.Name, Type: what, Detail: detail, Operator: rec.Rollout.Operator,
	}
}

// resumeRollouts continues the rollouts that an earlier master has recorded, as soon as the state can be written.
func resumeRollouts(ctx context.Context, s *Supervisor) {
	for errors.Is(tryResume(ctx, s), store.ErrUnavailable) {
		select {
		case <-time.After(unitRetry):
		case <-ctx.Done():
			return
		}
	}
}

// tryResume is resumeRollouts, but fails with [store.ErrUnavailable] while the state cannot be written.
func tryResume(ctx context.Context, s *Supervisor) (err error) {
	done, err := s.changes.begin(ctx)
	if err != nil {
		return err // the master ends
	}
	defer done()
	defer func() {
		if !errors.Is(err, store.ErrUnavailable) {
			s.set.endReplacing() // of restoreReplacing
			s.services.Changed()
		}
	}()
	recs := s.changes.records()
	var events []records.Event
	for _, rec := range recs {
		if rec.Rollout != nil {
			detail := rec.Name + ": " + namesOfTargets(*rec.Rollout)
			resumed := rolloutEvent(rec, rolloutOutcomes[rec.Rollout.Act].resumed, detail)
			resumed.Time = time.Now()
			events = append(events, resumed)
		}
	}
	if len(events) == 0 {
		return nil
	}
	r, err := s.changes.apply(ctx, s.changes.configured, recs, events...)
	if err != nil {
		if !errors.Is(err, store.ErrUnavailable) {
			s.log.Error("rollout stopped", "error", err)
		}
		return err
	}
	for name, of := range r.recorded {
		s.log.Info("rollout resumed", "unit", name, "action", string(of.Act), "workers", namesOfTargets(of))
	}
	_ = r.execute(ctx, s) // it is logged
	return nil
}

// execute replaces the workers that are recorded as to be replaced, and records and logs the outcome.
func (r rollout) execute(ctx context.Context, s *Supervisor) error {
	err := endRollouts(ctx, s, r.resume(ctx))
	switch {
	case err == nil && len(r.recorded) > 0:
		s.log.Info("rollout completed", "units", len(r.recorded))
	case err != nil && !isEnd(err):
		s.log.Error("rollout stopped", "error", err)
	}
	return err
}

// isEnd reports whether a rollout ended because the supervisor did, so that the next one continues it.
func isEnd(err error) bool {
	return errors.Is(err, worker.ErrStopping) || errors.Is(err, worker.ErrEnded)
}

func namesOfTargets(r records.Rollout) string {
	names := make([]string, 0, len(r.Workers))
	for _, w := range r.Workers {
		names = append(names, w.ID)
	}
	return strings.Join(names, " ")
}
