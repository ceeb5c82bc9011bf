package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Verb is an operator's command for workers or units, and the type of its event.
type Verb string

// The values of Verb. The last two are for units, the others for workers.
const (
	VerbStart   Verb = eventtype.Start
	VerbStop    Verb = eventtype.Stop
	VerbRestart Verb = eventtype.Restart
	VerbSignal  Verb = eventtype.Signal
	VerbEnable  Verb = eventtype.Enable
	VerbDisable Verb = eventtype.Disable
)

// Act is an operator's command about some workers or units.
type Act struct {
	Verb Verb
	// Names are ids of workers and names of units. All means all workers that the master starts.
	Names []string
	All   bool
	// Force stops and disables also what running units depend on.
	Force bool
	// NoWait ends the act when all is recorded and has begun.
	NoWait bool
	// Outdated restarts only the workers whose executable or unit has changed since their start.
	Outdated bool
	Signal   syscall.Signal
}

// Stage is how far an act is with one worker or unit.
type Stage string

// The values of Stage. The last report about each worker is done or failed, or begun with NoWait.
const (
	StageWaiting Stage = "waiting"
	StageBegun   Stage = "begun"
	StageDone    Stage = "done"
	StageFailed  Stage = "failed"
)

// Report is how far an act is with one worker or unit, and the reason of waiting, the result or the error.
type Report struct {
	Name   string
	Stage  Stage
	Reason string
}

// RefusedError is the error of an act that was refused before anything was done.
type RefusedError struct{ text string }

func (e *RefusedError) Error() string { return e.text }

func refused(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// ErrAct means that the act has failed with some workers or units; the reports have the reasons.
var ErrAct = errors.New("the act has failed in part")

// Act executes an operator's command. It passes to report how far the act is with each worker or unit, one call at a
// time. If ctx ends, Act returns, and the recorded part goes on. Before anything is done, Act fails with an
// [*UnknownError] or a [*RefusedError], or with [store.ErrUnavailable] if nothing can be recorded. It fails with
// [ErrAct] if a worker has failed.
func (s *Supervisor) Act(ctx context.Context, a Act, report func(Report)) error {
	if s.Status() == Stopping {
		return refusedWhile(s)
	}
	if err := s.opts.Store.Writable(); err != nil {
		return err
	}
	x := &acting{
		Act: a, s: s, by: OperatorOf(ctx), pending: map[string]string{}, wake: make(chan struct{}, 1),
	}
	result := make(chan error, 1)
	go func() { result <- x.perform(ctx) }() // it ends when ctx does
	for {
		select {
		case <-x.wake:
			x.deliver(report)
		case err := <-result:
			x.deliver(report)
			return err
		}
	}
}

// perform executes the act. It returns when that is done or ctx ends.
func (x *acting) perform(ctx context.Context) error {
	switch x.Verb {
	case VerbEnable, VerbDisable:
		return x.units(ctx)
	case VerbStart, VerbStop, VerbSignal:
		return x.workers(ctx)
	case VerbRestart:
		return x.restart(ctx)
	}
	return refused("no such verb: %q", x.Verb)
}

func refusedWhile(s *Supervisor) error {
	return refused("the master is %s: nothing is changed by hand any more", s.Status())
}

// acting is an act under way.
type acting struct {
	Act
	s  *Supervisor
	by *records.Operator

	wake chan struct{} // has room for one signal that there are reports

	mu      sync.Mutex
	reports []Report          // not delivered yet: a caller that takes none must not hold the act up
	pending map[string]string // workers and units in progress, with the last reason
	failed  bool
	over    bool // there are no more reports
}

// deliver passes the new reports to the caller.
func (x *acting) deliver(tell func(Report)) {
	x.mu.Lock()
	reports := x.reports
	x.reports = nil
	x.mu.Unlock()
	for _, r := range reports {
		tell(r)
	}
}

func (x *acting) report(name string, stage Stage, reason string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.failed = x.failed || stage == StageFailed
	if x.pending[name] = reason; stage == StageDone || stage == StageFailed {
		delete(x.pending, name)
	}
	x.reports = append(x.reports, Report{name, stage, reason})
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// outcome reports the end of the act with a worker or unit.
func (x *acting) outcome(name, did string, err error) {
	if err != nil {
		text := strings.TrimPrefix(err.Error(), name+" ") // which the report has
		x.report(name, StageFailed, strings.TrimPrefix(text, "is "))
		return
	}
	x.report(name, StageDone, did)
}

// end ends the reports and returns the error of the act.
func (x *acting) end(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	switch {
	case ctx.Err() != nil && len(x.pending) > 0:
		var left []string
		for _, name := range slices.Sorted(maps.Keys(x.pending)) {
			left = append(left, strings.TrimSuffix(name+": "+x.pending[name], ": "))
		}
		return fmt.Errorf("not done yet: %s: %w", strings.Join(left, "; "), ctx.Err())
	case x.failed:
		return ErrAct
	}
	return nil
}

// workers executes a verb for workers. The starts and stops that have begun go on when ctx ends.
func (x *acting) workers(ctx context.Context) error {
	chosen, strangers, err := x.choose()
	if err != nil {
		return err
	}
	over := make(chan struct{})
	err = x.s.do(ctx, func(work context.Context) {
		var begun, done sync.WaitGroup
		r := relatives{graph: x.s.set.dependencies(), begun: signals(chosen), ended: signals(chosen)}
		for _, w := range chosen {
			begun.Add(1)
			done.Add(1)
			x.s.helpers.Go(func() {
				defer done.Done()
				defer close(r.ended[w])
				x.awaitTurn(work, w, r)
				err := x.begin(work, w)
				close(r.begun[w])
				begun.Done()
				if err != nil {
					x.report(w.ID(), StageFailed, err.Error())
					return
				}
				x.finish(ctx, work, w)
			})
		}
		for _, id := range strangers {
			done.Add(1)
			x.s.helpers.Go(func() {
				defer done.Done()
				x.onStranger(work, id)
			})
		}
		x.s.helpers.Go(func() {
			defer close(over)
			if begun.Wait(); !x.NoWait {
				done.Wait()
			}
		})
	})
	if err != nil {
		return err
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
	return x.end(ctx)
}

// relatives are the workers of an act, of which some depend on others.
type relatives struct {
	graph        *dependencies.Graph
	begun, ended map[*worker.Worker]chan struct{} // closed when the act has begun with the worker, or has ended
}

func signals(workers []*worker.Worker) map[*worker.Worker]chan struct{} {
	all := make(map[*worker.Worker]chan struct{}, len(workers))
	for _, w := range workers {
		all[w] = make(chan struct{})
	}
	return all
}

// awaitTurn waits until a worker may be stopped, because its dependents have been, or started, because the starts of
// its dependencies have begun: otherwise it would find these stopped.
func (x *acting) awaitTurn(work context.Context, w *worker.Worker, r relatives) {
	for other := range r.ended {
		var turn <-chan struct{}
		switch {
		case x.Verb == VerbStop && slices.Contains(r.graph.Dependents(unitName(w)), unitName(other)):
			x.report(w.ID(), StageWaiting, other.ID()+" depends on it and is stopped first")
			turn = r.ended[other]
		case x.Verb == VerbStart && slices.Contains(r.graph.Dependents(unitName(other)), unitName(w)):
			turn = r.begun[other]
		default:
			continue
		}
		select {
		case <-turn:
		case <-work.Done():
			return
		}
	}
}

// choose returns the workers of the act and the ids of the unmanaged ones, or the reason why it is refused.
func (x *acting) choose() (chosen []*worker.Worker, strangers []string, err error) {
	infos, err := x.s.Select(x.All, x.Names...)
	if err != nil {
		return nil, nil, err
	}
	x.s.set.mu.Lock()
	byID := x.s.set.byID
	x.s.set.mu.Unlock()
	var ids []string
	for _, info := range infos {
		w := byID[info.ID]
		switch {
		case info.Unmanaged() && x.All:
			continue
		case info.Unmanaged() && x.Verb == VerbStart:
			return nil, nil, refused("%s is unmanaged: the master does not start it", info.ID)
		case info.Unmanaged():
			if err := x.s.watched.CheckAllowed(info.ID, string(x.Verb)); err != nil {
				return nil, nil, refused("%v", err)
			}
			strangers = append(strangers, info.ID)
		case w == nil || x.s.set.hasRetired(w):
			return nil, nil, refused("%s is being removed", info.ID)
		default:
			chosen = append(chosen, w)
		}
		ids = append(ids, info.ID)
	}
	if len(ids) == 0 {
		return nil, nil, x.noWorkers()
	}
	if x.Verb == VerbStop && !x.Force {
		return chosen, strangers, x.s.set.needed(ids)
	}
	return chosen, strangers, nil
}

// noWorkers returns the error of an act for units that have no workers.
func (x *acting) noWorkers() error {
	for _, name := range x.Names {
		switch u := x.s.set.unit(name); {
		case u.Disabled:
			return refused(
				`unit %s is disabled: enable it with "unit enable", or in the file if that disables it`, name)
		case u.Name != "" && u.Replicas == 0:
			return refused(`unit %s has no workers: "worker scale %[1]s=1" gives it one`, name)
		}
	}
	return refused("there are no workers to %s", x.Verb)
}

// needed returns an error if running workers, other than these, depend on these.
func (s *set) needed(stopped []string) error {
	graph := s.dependencies()
	for _, id := range stopped {
		dependents := graph.Dependents(unitOfID(id))
		var users []string
		for _, w := range s.list() {
			info := w.Info()
			if info != nil && info.Instance != nil && info.Desired != records.DesiredStopped &&
				slices.Contains(dependents, info.Unit) && !slices.Contains(stopped, info.ID) {
				users = append(users, info.ID)
			}
		}
		if len(users) > 0 {
			return refused("running workers depend on %s: stop %s too, or use --force", id, strings.Join(users, ", "))
		}
	}
	return nil
}

// onStranger executes the verb for an unmanaged worker.
func (x *acting) onStranger(ctx context.Context, id string) {
	var err error
	did := "stopped"
	x.report(id, StageBegun, "")
	switch x.Verb { //nolint:exhaustive // the others are refused
	case VerbSignal:
		did, err = "got "+identity.SignalName(x.Signal), x.s.watched.Signal(ctx, id, x.Signal, x.by)
	case VerbStop:
		err = x.s.watched.Stop(ctx, id, x.by)
	case VerbRestart:
		did, err = "restarted by systemd", x.s.watched.Restart(ctx, id, x.by)
	}
	x.outcome(id, did, err)
}

// begin makes the verb durable for a worker, and begins it.
func (x *acting) begin(work context.Context, w *worker.Worker) (err error) {
	switch x.Verb { //nolint:exhaustive // the others are for units
	case VerbStart:
		err = w.Resume(work, x.by)
	case VerbStop:
		err = w.Halt(work, x.by)
	case VerbSignal:
		err = w.Signal(work, x.Signal, x.by)
	}
	if err == nil {
		x.report(w.ID(), StageBegun, "")
	}
	return err
}

// finish waits for the outcome of the verb for a worker. It waits for a stop whether the operator does or not, because
// others may follow.
func (x *acting) finish(ctx, work context.Context, w *worker.Worker) {
	switch x.Verb { //nolint:exhaustive // the others are for units
	case VerbStart:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(work, cancel)()
		if x.NoWait {
			return
		}
		did, err := x.awaitStarted(ctx, w)
		if ctx.Err() == nil {
			x.outcome(w.ID(), did, err)
		}
	case VerbStop:
		err := x.awaitStopped(work, w)
		x.outcome(w.ID(), "stopped", err)
	case VerbSignal:
		x.outcome(w.ID(), "got "+identity.SignalName(x.Signal), nil)
	}
}

// awaitStarted waits until the worker is ready, or has completed.
func (x *acting) awaitStarted(ctx context.Context, w *worker.Worker) (did string, err error) {
	s := x.s
	follow, end := context.WithCancel(ctx)
	var follower sync.WaitGroup
	defer follower.Wait()
	defer end()
	follower.Go(func() { x.follow(follow, w) })
	r := rollout{set: &s.set, services: s.services, watched: s.watched, ended: s.ended}
	before := uint64(0)
	if info := w.Info(); info != nil && info.Status == records.StatusStopping {
		before = info.Incarnation
	}
	if err := r.awaitReady(ctx, w, before); err != nil {
		return "", err
	}
	info := w.Info()
	switch {
	case info == nil:
		return "", fmt.Errorf("%s was removed", w.ID())
	case info.Desired == records.DesiredStopped:
		return "", errors.New("it was stopped meanwhile" + byWhom(info.StoppedBy))
	case info.Status == records.StatusScheduled && info.Reason != "":
		return "", errors.New(info.Reason)
	case info.Status == records.StatusScheduled, info.Status == records.StatusCompleted:
		return string(records.StatusCompleted), nil
	}
	return string(info.Status), nil
}

func byWhom(o *records.Operator) string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf(" by user %d", o.UID)
}

// follow reports why a starting worker waits, until ctx ends.
func (x *acting) follow(ctx context.Context, w *worker.Worker) {
	changed, stop := x.s.services.Watch()
	defer stop()
	for last := ""; ; {
		if info := w.Info(); info != nil && ctx.Err() == nil {
			now := string(info.Status)
			if info.Status == records.StatusWaiting {
				now += ": " + x.s.set.blocked(info.Unit)
			}
			if now != last && !info.Ready {
				x.report(w.ID(), StageWaiting, now)
			}
			last = now
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitStopped waits until the worker has been stopped.
func (x *acting) awaitStopped(ctx context.Context, w *worker.Worker) error {
	changed, stop := x.s.services.Watch()
	defer stop()
	for last := ""; ; {
		info := w.Info()
		switch {
		case info == nil:
			return nil
		case info.Desired != records.DesiredStopped && !x.s.set.hasRetired(w):
			return errors.New("it was started meanwhile")
		case info.Status == records.StatusStopped:
			return nil
		case last != info.Reason && strings.HasPrefix(info.Reason, lifecycle.HeldPrefix):
			last = info.Reason
			x.report(w.ID(), StageWaiting, last)
		}
		select {
		case <-changed:
		case <-w.Finished():
			return worker.ErrStopping
		case <-ctx.Done():
			return worker.ErrStopping
		}
	}
}
