// Package worker is one worker: the goroutine that owns it, and the helpers whose results that goroutine gets in its
// inbox. Package lifecycle decides how a worker reacts to an event. start.go, health.go and stop.go execute the
// decision, hooks.go runs the commands around a worker, agenda.go follows its schedule, and journal.go makes the state
// durable; execute.go executes the decision of package recovery. contact.go is the connection to the process, check.go
// and busy.go are its checks; routes.go and discovery.go offer the worker's services to callers.
package worker

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Worker is one replica slot, as other goroutines see it.
type Worker struct {
	id        string
	inbox     chan message
	shutdown  chan struct{} // closed to stop the worker and end the goroutine
	recovered chan struct{} // closed by endRecovery: the worker is adopted, found dead, or held
	finished  chan struct{} // closed when the goroutine has ended
	unblocked chan struct{} // has room for one signal to a waiting worker
	leftover  error         // the reason why not all of it could be stopped; read after finished
	info      atomic.Pointer[Info]
	startup   startup                 // the present start, while the worker is not ready
	checked   atomic.Pointer[[]check] // the value of owner.checks
	owner     *owner
	hooks     hooks
	notices   notices
	draining  atomic.Bool
}

// owner is the part of a worker that only the goroutine in Serve uses.
type owner struct {
	*Worker
	env  *Env
	unit *unit.Spec
	log  *slog.Logger

	endRecovery func()

	state   lifecycle.State
	rec     records.Worker // the record to be made durable
	journal journal
	found   recovery.ScanResult // result of the scan during recovery
	told    told                // of the last decision of recovery
	inst    launcher.Instance   // nil if no process lives
	adopted bool
	absent  *absence // the instance was found gone, and stop.after has not run yet
	contact
	calm    calm
	routes  routes
	agenda  agenda
	limits  enforcement
	output  output
	silent  string // why it is unhealthy at present, more exact than the record
	retry   *time.Timer
	helpers sync.WaitGroup
	done    bool
}

// message is a result or a command for the worker's goroutine.
type message struct {
	incarnation uint64                    // the instance that it is about, or anyInstance
	apply       func(ctx context.Context) // runs in the worker's goroutine
	discard     func()                    // releases the contents if that instance is gone; nil if there are none
}

const anyInstance = math.MaxUint64

// post hands m to the worker's goroutine, and discards it if ctx ends first or the goroutine has ended.
func (w *Worker) post(ctx context.Context, m message) {
	select {
	case w.inbox <- m:
		return
	case <-w.finished:
	case <-ctx.Done():
	}
	if m.discard != nil {
		m.discard()
	}
}

// deliver applies a message, unless it is about another instance than the present one.
func (m message) deliver(ctx context.Context, present uint64) {
	switch {
	case ctx.Err() == nil && (m.incarnation == present || m.incarnation == anyInstance):
		m.apply(ctx)
	case m.discard != nil:
		m.discard()
	}
}

// New returns the worker of the slot.
func New(e *Env, slot recovery.Slot) *Worker {
	log := e.Log.With("worker", slot.ID)
	w := &owner{
		Worker: &Worker{
			id:        slot.ID,
			inbox:     make(chan message),
			shutdown:  make(chan struct{}),
			recovered: make(chan struct{}),
			finished:  make(chan struct{}),
			unblocked: make(chan struct{}, 1),
			hooks:     hooks{env: e, worker: slot.ID},
		},
		env: e, unit: slot.Unit, log: log,
		retry:  stoppedTimer(),
		rec:    slot.Rec,
		state:  slot.State,
		found:  slot.Found,
		routes: newRoutes(e.Services, slot.ID, slot.Unit, slot.Rec.Services, log),
		agenda: newAgenda(e.Clock, slot.Unit),
		output: newOutput(e.LogDir, slot.ID, slot.Unit),
	}
	w.owner, w.contact.shown = w, &w.Worker.checked
	w.hooks.runs.left = slices.Clone(slot.Rec.Hooks)
	w.endRecovery = sync.OnceFunc(func() {
		close(w.recovered)
		e.Services.Changed() // the workers that depend on it know it from now on
	})
	w.journal = journal{
		store: e.Store, log: log, shutdown: w.shutdown,
		blocked: func() {
			// The master serves calls during the outage and shows the state that it knows.
			w.publish()
			w.endRecovery()
		},
	}
	if slot.Recorded {
		w.journal.saved = slot.Rec
	}
	w.rec.Services = w.routes.offers
	w.routes.offer(w.state.Retired)
	if w.rec.Port != 0 {
		e.Ports.Keep(w.id, w.rec.Port)
	}
	w.output.rotate(e.Rotator, w.unit, nil, &w.hooks)
	w.publish()
	return w.Worker
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// ID returns the name of the worker's slot.
func (w *Worker) ID() string { return w.id }

// Recovered returns a channel that is closed when the worker is adopted, found dead, or held.
func (w *Worker) Recovered() <-chan struct{} { return w.recovered }

// Stop stops the worker within its grace. It must be called once at most.
func (w *Worker) Stop() { close(w.shutdown) }

// Unblock has a waiting worker started if its dependencies are met. If not, the worker records the reason.
func (w *Worker) Unblock() {
	select {
	case w.unblocked <- struct{}{}:
	default: // an earlier signal is pending
	}
}

// Finished returns a channel that is closed when Serve has returned.
func (w *Worker) Finished() <-chan struct{} { return w.finished }

// Leftover returns the reason why not all of the worker could be stopped, nil if all was. It is valid after Finished.
func (w *Worker) Leftover() error { return w.leftover }

// Info returns the present state for readers, who must not change it; nil if the worker has been removed.
func (w *Worker) Info() *Info { return w.info.Load() }

// Draining reports whether the worker is being stopped, and calls in flight are awaited before it is told to end.
func (w *Worker) Draining() bool { return w.draining.Load() }

// WaitingFor returns the command of its unit that runs now, or the probe that a starting worker has to pass and its
// last answer; "" if there is neither.
func (w *Worker) WaitingFor() string {
	if command := w.hooks.running(); command != "" {
		return command
	}
	return w.startup.waitingFor()
}

// Serve runs the worker until it is stopped. If ctx ends, it releases the process and leaves it running.
func (w *Worker) Serve(ctx context.Context) { w.owner.serve(ctx) }

func (w *owner) serve(ctx context.Context) {
	defer close(w.finished)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		w.letGo()
	}()
	w.recover(ctx)
	w.checkDue(ctx, 0)
	shutdown, recovered, stopping := w.shutdown, w.env.Recovered, w.env.Stopping
	var turn <-chan time.Time
	for !w.done {
		w.calm.next()
		var died <-chan struct{}
		if w.state.Slot == lifecycle.Occupied {
			died = w.inst.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-recovered:
			recovered = nil
			if w.state.Status == records.StatusWaiting { // the state of its dependencies is known now
				w.step(ctx, lifecycle.Event{Kind: lifecycle.EvUnblocked})
			}
			turn = time.After(w.env.turn(w.adopted && w.inst != nil))
		case <-turn:
			turn = nil
			w.afterwards(ctx)
		case <-shutdown:
			shutdown = nil
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvShutdown})
		case <-stopping:
			stopping = nil
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvClosing})
		case <-w.unblocked:
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvUnblocked})
		case <-died:
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvDied})
		case m := <-w.inbox:
			m.deliver(ctx, w.rec.Incarnation)
		case <-w.retry.C:
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvRetry})
		case <-w.agenda.alarm.C():
			w.checkDue(ctx, lateness)
		}
	}
}

// letGo releases the resources that this master holds for a process that goes on running.
func (w *owner) letGo() {
	w.startup.end()
	w.retry.Stop()
	w.agenda.alarm.Set(time.Time{})
	w.routes.withdraw()
	w.hangUp()
	w.notices.close(w)
	w.helpers.Wait()
	w.hooks.runs.drop()
	w.env.Ports.LetGo(w.id)
	if w.inst != nil {
		if err := w.inst.Close(); err != nil {
			w.log.Warn("worker handle not released", "error", err)
		}
	}
}

// setInstance makes inst the instance and passes its handle to the Keeper.
func (w *owner) setInstance(ctx context.Context, inst launcher.Instance, adopted bool) {
	w.inst, w.adopted = inst, adopted
	if news := w.output.follow(w.unit.Log.To, inst); news != nil && !adopted {
		w.journal.add(w.event(eventLogFallback, news.Error()))
	}
	w.output.rotate(w.env.Rotator, w.unit, inst, &w.hooks)
	w.notices.attach(ctx, w)
	keeper, token := w.env.Keeper, w.rec.Instance.Token
	if _, none := keeper.(launcher.NoKeeper); none || keeper.Kept(token) != nil {
		return
	}
	handle, err := inst.Handle()
	if err == nil {
		err = errors.Join(keeper.Keep(token, handle), handle.Close())
	}
	if err != nil {
		// The only consequence: its exit code may be unknown to the next master.
		w.log.Debug("worker handle not kept", "error", err)
	}
}

// step passes an event to [lifecycle.Next], makes the new state durable and executes the action.
func (w *owner) step(ctx context.Context, e lifecycle.Event) {
	e.Chance = w.env.Jitter()
	before := w.state
	var act lifecycle.Action
	policy, now := lifecycle.PolicyOf(w.unit), w.env.BootTime()
	w.state, act = lifecycle.Next(before, e, policy, now)
	if act == lifecycle.ActStart {
		if e.Blocked = w.env.Blocked(w.unit.Name); e.Blocked != "" {
			w.state, act = lifecycle.Next(before, e, policy, now)
		}
	}
	if n, cancelled := w.agenda.cancelled(w.rec.Due, before, w.state); cancelled {
		w.journal.add(w.event(n.kind, n.detail))
	}
	if w.state.Slot == lifecycle.Vacant && w.rec.Port != 0 {
		w.env.Ports.Reserve(w.id, w.rec.Port)
	}
	switch act { //nolint:exhaustive // the others have their record in common
	case lifecycle.ActStart:
		w.launch(ctx) // its first record is the intent, with the token and the port
		return
	case lifecycle.ActKill:
		w.routes.withdraw()
		w.end(ctx, func(context.Context) {}) // the record follows, when the exit is known
		if len(w.unit.Stop.After) > 0 {      // which may take a while
			w.publish()
		}
		return
	case lifecycle.ActRecover:
		w.recover(ctx)
		return
	}
	var events []records.Event
	// A failure that repeats for a while would push all other events out of the history.
	seldom := e.Ours && w.state.Lacked&(w.state.Lacked-1) != 0
	if before.Status != w.state.Status && !seldom && e.Kind != lifecycle.EvRemains {
		by := cmp.Or(e.By, haltedBy(w.state, w.rec))
		events = append(events, of(by, w.event(statusEvents[w.state.Status], w.state.Reason)))
	}
	switch act { //nolint:exhaustive // the others come after the record
	case lifecycle.ActServe: // before the record: readiness is a fact, and requests may be waiting for it
		w.admit(ctx)
	case lifecycle.ActAwait: // the worker starts up while its PID is being recorded
		w.await(ctx)
	}
	if act == lifecycle.ActStop { // the record of the stop is the intent of its commands and of the drain too
		announce(ctx, w, w.unit, unit.AtStop, unit.AfterEnd)
		w.draining.Store(w.routes.endpoint != nil)
	}
	if !w.state.Ready && act != lifecycle.ActStop { // stop drains the endpoint that it withdraws
		w.routes.withdraw()
	}
	w.record(ctx, events...)
	w.followUp(ctx, act)
	w.env.reportEnd(&w.output, policy, before, w.state)
	if w.state.Status == records.StatusFailed || w.state.Status == records.StatusCompleted ||
		w.state.Status == records.StatusScheduled || !w.state.Wanted {
		w.env.Services.Reconsider()
	}
}

// followUp executes the actions that come after the record of the state that calls for them.
func (w *owner) followUp(ctx context.Context, act lifecycle.Action) {
	switch act {
	case lifecycle.ActNone, lifecycle.ActStart, lifecycle.ActAwait, lifecycle.ActServe, lifecycle.ActUnpublish,
		lifecycle.ActKill, lifecycle.ActRecover:
	case lifecycle.ActStop:
		w.stop(ctx)
	case lifecycle.ActBackOff:
		w.retry.Reset(w.state.NextLook(w.env.BootTime()))
	case lifecycle.ActRecheck:
		w.retry.Reset(HoldInterval)
	case lifecycle.ActFinish:
		w.finish(ctx)
	case lifecycle.ActAbandon:
		w.done = true
	}
}

func (w *owner) finish(ctx context.Context) {
	if w.state.Retired {
		removed := of(w.rec.StoppedBy, w.event(eventRemoved, w.state.RetireReason()))
		w.journal.commit(ctx, crashpoint.Removal, records.DeleteWorker(w.id), records.AppendEvent(removed))
		w.env.Services.Offer(services.OfWorker(w.id))
		w.env.Rotator.Remove(w.id)
		w.env.Ports.Forget(w.id)
		w.info.Store(nil)
		w.env.Services.Changed()
	}
	w.done = true
}

// record makes the worker's state and the events durable, and reports whether they are.
func (w *owner) record(ctx context.Context, events ...records.Event) bool {
	if !w.state.Retired { // a surplus slot has no place, whatever is desired
		w.rec.Desired = records.DesiredRunning
		if !w.state.Wanted {
			w.rec.Desired = records.DesiredStopped
		} else {
			w.rec.StoppedBy = nil
		}
	}
	w.rec.Status, w.rec.Reason = w.state.Status, w.state.Reason
	w.rec.Restarts, w.rec.History = w.state.Restarts, w.state.History
	w.rec.Services, w.rec.Hooks = w.routes.offers, w.hooks.runs.recorded()
	if !w.journal.record(ctx, w.rec, events...) {
		return false
	}
	w.publish()
	return true
}

// publish makes the worker's current state visible to readers.
func (w *owner) publish() {
	info := Info{
		Worker:  w.rec,
		Spec:    w.unit,
		Adopted: w.adopted,
		Ready:   w.state.Ready,
		LogPath: w.output.path, Elsewhere: w.output.elsewhere(),
		mask: maskOf(w.env.Secrets, w.unit, w.rec, w.output.path),

		Unenforced: w.limits.unenforced,
	}
	if w.state.Status != records.StatusUnhealthy {
		w.silent = ""
	}
	if w.silent != "" {
		info.Reason = w.silent
	}
	if info.Reason == "" && w.rec.Outdated && recovery.HasLostKey(w.env.Secrets, w.unit, w.rec) {
		info.Reason = "outdated: " + recovery.KeyLost
	}
	if at := w.state.History.RetryAt; at != 0 {
		info.RetryAt = time.Now().Add(at - w.env.BootTime())
	}
	if i := w.rec.Instance; i != nil && i.PID == 0 && w.state.Status == records.StatusStarting {
		info.StartBy = i.Started.Add(w.unit.Start.Timeout)
	}
	if len(w.checks) > 0 {
		info.Probe = w.checks[0].prober.String()
	}
	w.info.Store(&info)
	w.env.Services.Changed()
}
