package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// worker is one replica slot. Everything below "owned" belongs to the goroutine in serve.
type worker struct {
	sup  *Supervisor
	id   string
	unit Unit
	log  *slog.Logger

	inbox     chan message
	shutdown  chan struct{} // closed to stop the worker and end the goroutine
	recovered chan struct{} // closed by endRecovery: the worker is adopted, found dead, or held
	finished  chan struct{} // closed when the goroutine has ended
	leftover  error         // the reason why not all of it could be stopped; read after finished
	info      atomic.Pointer[WorkerInfo]
	startup   startup // the present start, while the worker is not ready

	endRecovery func()

	// owned
	state   state
	rec     store.Worker // the record to be made durable
	journal journal
	found   found    // result of the scan during recovery
	decided Decision // the last decision of recovery
	inst    instance // nil if no process lives
	adopted bool
	link    link               // to inst, once it accepts
	unwatch context.CancelFunc // ends the watch on the present link
	routes  routes
	pings   pingTimer
	retry   *time.Timer
	helpers sync.WaitGroup
	done    bool
}

// message is a result for the worker's goroutine.
type message struct {
	incarnation uint64                    // the instance that it is about
	apply       func(ctx context.Context) // runs in the worker's goroutine
	discard     func()                    // releases the contents if that instance is gone; nil if there are none
}

// post hands m to the worker's goroutine, and discards it if ctx ends first or the goroutine has ended.
func (w *worker) post(ctx context.Context, m message) {
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

// receive applies a message, unless it is about an earlier instance.
func (w *worker) receive(ctx context.Context, m message) {
	switch {
	case m.incarnation == w.rec.Incarnation && ctx.Err() == nil:
		m.apply(ctx)
	case m.discard != nil:
		m.discard()
	}
}

// newWorker returns the worker with that number among all workers.
func newWorker(s *Supervisor, slot slot, number int) *worker {
	log := s.log.With("worker", slot.id)
	w := &worker{
		sup: s, id: slot.id, unit: slot.unit, log: log,
		inbox:     make(chan message),
		shutdown:  make(chan struct{}),
		recovered: make(chan struct{}),
		finished:  make(chan struct{}),
		pings:     newPingTimer(slot.unit.Health, s.epoch, number),
		retry:     stoppedTimer(),
		unwatch:   func() {},
		rec:       slot.rec,
		state:     slot.state,
		found:     slot.found,
		routes:    newRoutes(s.services, slot.id, slot.unit, slot.rec.Services, log),
	}
	w.endRecovery = sync.OnceFunc(func() { close(w.recovered) })
	w.journal = journal{
		store: s.opts.Store, log: log, shutdown: w.shutdown,
		blocked: func() {
			// The master serves calls during the outage and shows the state that it knows.
			w.publish()
			w.endRecovery()
		},
	}
	if slot.recorded {
		w.journal.saved = slot.rec
	}
	w.rec.Services = w.routes.offers
	w.routes.offer(w.state.retired)
	w.publish()
	return w
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// serve owns the worker until it is stopped. If ctx ends, it releases the process and leaves it running.
func (w *worker) serve(ctx context.Context) {
	defer close(w.finished)
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		w.letGo()
	}()
	w.recover(ctx)
	shutdown, recovered := w.shutdown, w.sup.recovered
	for !w.done {
		var died <-chan struct{}
		if w.state.slot == occupied {
			died = w.inst.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-recovered:
			recovered = nil
			w.afterwards(ctx)
		case <-shutdown:
			shutdown = nil
			w.step(ctx, event{kind: evShutdown})
		case <-died:
			w.step(ctx, event{kind: evDied})
		case m := <-w.inbox:
			w.receive(ctx, m)
		case <-w.retry.C:
			w.step(ctx, event{kind: evRetry})
		case <-w.pings.timer.C:
			w.onTick(ctx)
		}
	}
}

// letGo releases the resources that this master holds for a process that goes on running.
func (w *worker) letGo() {
	w.startup.end()
	w.retry.Stop()
	w.pings.timer.Stop()
	w.routes.withdraw()
	w.hangUp()
	w.helpers.Wait()
	w.sup.ports.letGo(w.id)
	if w.inst != nil {
		if err := w.inst.Close(); err != nil {
			w.log.Warn("worker not let go of cleanly", "error", err)
		}
	}
}

// took makes inst the instance and passes its handle to the Keeper.
func (w *worker) took(inst instance, adopted bool) {
	w.inst, w.adopted = inst, adopted
	keeper, token := w.sup.opts.Keeper, w.rec.Instance.Token
	if _, none := keeper.(nobody); none || keeper.Kept(token) != nil {
		return
	}
	handle, err := inst.Handle()
	if err == nil {
		err = errors.Join(keeper.Keep(token, handle), handle.Close())
	}
	if err != nil {
		// The only consequence: its exit code may be unknown to the next master.
		w.log.Debug("worker's handle not kept", "error", err)
	}
}

// step passes an event to next, makes the new state durable and executes the action.
func (w *worker) step(ctx context.Context, e event) {
	e.chance = w.sup.jitter()
	before := w.state
	var act action
	w.state, act = next(w.state, e, w.unit.policy(), w.sup.bootTime())
	if w.state.slot == vacant && w.rec.Port != 0 {
		w.sup.ports.reserve(w.id, w.rec.Port)
	}
	switch act { //nolint:exhaustive // the others have their record in common
	case actStart:
		w.start(ctx) // its first record is the intent, with the token and the port
		return
	case actKill:
		w.kill(ctx) // the record follows, when the exit is known
		return
	case actRecover:
		w.recover(ctx)
		return
	}
	var events []store.Event
	// A failure that repeats for a while would push all other events out of the history.
	seldom := e.ours && w.state.lacked&(w.state.lacked-1) != 0
	if before.status != w.state.status && !seldom && e.kind != evRemains {
		events = append(events, w.event(string(w.state.status), w.state.reason))
	}
	switch act { //nolint:exhaustive // the others come after the record
	case actServe: // before the record: readiness is a fact, and requests may be waiting for it
		w.admit(ctx)
	case actAwait: // the worker starts up while its PID is being recorded
		w.await(ctx)
	}
	if !w.state.ready && act != actStop { // stop drains the endpoint that it withdraws
		w.routes.withdraw()
	}
	w.record(ctx, events...)
	switch act {
	case actNone, actStart, actAwait, actServe, actUnpublish, actKill, actRecover:
	case actStop:
		w.stop(ctx)
	case actBackOff:
		w.retry.Reset(max(0, w.state.history.RetryAt-w.sup.bootTime()))
	case actRecheck:
		w.retry.Reset(holdInterval)
	case actFinish:
		w.finish(ctx)
	case actAbandon:
		w.done = true
	}
	if w.state.status == store.StatusFailed {
		w.sup.services.Reconsider()
	}
}

func (w *worker) finish(ctx context.Context) {
	if w.state.retired {
		removed := w.event("removed", "fewer replicas are wanted")
		w.journal.commit(ctx, crashpoint.Removal, store.DeleteWorker(w.id), store.AppendEvent(removed))
		w.sup.services.Offer(w.id)
		w.info.Store(nil)
		w.sup.services.Changed()
	}
	w.done = true
}

// NextAfterFailure is the next step for an operator after a worker has failed.
const NextAfterFailure = `mend it, then start the master with the new executable or other arguments: ` +
	`"hsu-master run", or "systemctl restart hsu-master" for a service`

// event returns a line of the history and logs it at once.
func (w *worker) event(kind, detail string) store.Event {
	level := slog.LevelInfo
	switch kind {
	case string(store.StatusFailed):
		level = slog.LevelError
	case string(store.StatusUnhealthy), string(store.StatusBackoff), "held", "leftover":
		level = slog.LevelWarn
	}
	var attrs []slog.Attr
	if w.inst != nil {
		attrs = append(attrs, slog.Int("pid", w.rec.Instance.PID), slog.Int("port", w.rec.Instance.Port))
	}
	if kind == string(store.StatusBackoff) {
		attrs = append(attrs, slog.Duration("restart_in", w.state.history.RetryAt-w.sup.bootTime()))
	}
	if detail != "" {
		attrs = append(attrs, slog.String("reason", detail))
	}
	if kind == string(store.StatusFailed) {
		attrs = append(attrs, slog.String("next", NextAfterFailure))
	}
	//nolint:sloglint // the kinds are a fixed set, see the callers
	w.log.LogAttrs(context.Background(), level, "worker "+kind, attrs...)
	if detail == "" && w.inst != nil {
		detail = fmt.Sprintf("pid %d port %d", w.rec.Instance.PID, w.rec.Instance.Port)
	}
	return store.Event{Time: time.Now(), Worker: w.id, Type: kind, Detail: detail}
}

// record makes the worker's state and the events durable, and reports whether they are.
func (w *worker) record(ctx context.Context, events ...store.Event) bool {
	if !w.state.retired { // a surplus slot has no place, whatever is desired
		w.rec.Desired = store.DesiredRunning
		if !w.state.wanted {
			w.rec.Desired = store.DesiredStopped
		}
	}
	w.rec.Status, w.rec.Reason = w.state.status, w.state.reason
	w.rec.Restarts, w.rec.History = w.state.restarts, w.state.history
	w.rec.Services = w.routes.offers
	if !w.journal.record(ctx, w.rec, events...) {
		return false
	}
	w.publish()
	return true
}

// publish makes the worker's current state visible to readers.
func (w *worker) publish() {
	info := WorkerInfo{
		Worker:  w.rec,
		Adopted: w.adopted,
		Ready:   w.routes.endpoint != nil,
		LogPath: logPath(w.sup.opts.LogDir, w.id),
	}
	if w.link != nil {
		info.Probe = w.link.Method().String()
	}
	w.info.Store(&info)
	w.sup.services.Changed()
}

// describeExit describes for people how a process ended.
func describeExit(e process.Exit) string {
	switch {
	case e.Source == process.ExitUnknown:
		return "exited with an unknown code"
	case e.Signal != 0:
		return "killed by " + process.SignalName(e.Signal)
	}
	return "exited with code " + strconv.Itoa(e.Code)
}
