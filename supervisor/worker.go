package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// worker is one replica slot. Everything below "owned" belongs to the goroutine
// in serve.
type worker struct {
	sup    *Supervisor
	number int // among all workers
	id     string
	unit   Unit
	log    *slog.Logger

	shutdown chan struct{} // closed to stop the worker and end the goroutine
	settled  chan struct{} // closed when recovery of this worker is over, by settleOnce
	finished chan struct{} // closed when the goroutine has ended
	leftover error         // what could not be stopped; read after finished
	info     atomic.Pointer[WorkerInfo]

	settleOnce sync.Once

	// owned
	state    state
	rec      store.Worker       // what is to be made durable
	saved    store.Worker       // what is
	found    found              // what recovery found
	inst     instance           // nil where nothing lives
	link     link               // to inst, once it accepts
	endpoint *services.Endpoint // where requests go, nil where not ready
	admitted uint64             // incarnation that was ready last
	// confirmed: the instance itself has told what services it offers.
	confirmed bool
	asked     struct {
		incarnation uint64
		tries       int
	}
	asking  bool // which services it offers
	adopted bool
	held    bool          // recovery cannot tell what became of the instance
	away    bool          // the instance had ended before this master came
	decided Decision      // by recovery, the last one
	pending []store.Event // to be recorded with the next change
	leaving bool          // the goroutine ends after the present stop
	done    bool

	starts  chan startResult
	pongs   chan pingResult
	told    chan discovery
	lost    chan uint64 // incarnation whose connection broke
	buried  chan burial
	burying bool
	again   bool // what is left of it did not end: retry fires when to try again
	retry   *time.Timer
	tick    *time.Timer
	due     time.Time // when tick is to fire
	pinging bool
	helpers sync.WaitGroup
	cancel  context.CancelFunc // ends the await of the present start
	unwatch context.CancelFunc // ends the watch on the present link
}

func newWorker(s *Supervisor, slot slot) *worker {
	w := &worker{
		sup: s, id: slot.id, unit: slot.unit,
		log:      s.log.With("worker", slot.id),
		shutdown: make(chan struct{}),
		settled:  make(chan struct{}),
		finished: make(chan struct{}),
		starts:   make(chan startResult, 1),
		pongs:    make(chan pingResult, 1),
		told:     make(chan discovery, 1),
		lost:     make(chan uint64),
		buried:   make(chan burial, 1),
		retry:    stoppedTimer(),
		tick:     stoppedTimer(),
		cancel:   func() {},
		unwatch:  func() {},
		rec:      slot.rec,
		state:    slot.state,
		found:    slot.found,
	}
	if slot.recorded {
		w.saved = slot.rec
	}
	w.rec.Services = recalled(w.unit, w.rec.Services)
	w.offer()
	w.publish()
	return w
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// serve owns the worker until it is stopped, or ctx ends, which lets go of the
// process and leaves it running.
func (w *worker) serve(ctx context.Context) {
	defer close(w.finished)
	defer w.letGo()
	w.settle(ctx)
	shutdown, recovered := w.shutdown, w.sup.recovered
	for !w.done {
		select {
		case <-ctx.Done():
			return
		case <-recovered:
			recovered = nil
			w.afterwards(ctx)
		case <-shutdown:
			shutdown = nil
			w.leaving = true
			w.step(ctx, event{kind: evShutdown})
		case <-w.down():
			w.withdraw()
			w.bury(ctx, false)
		case b := <-w.buried:
			w.onBurial(ctx, b)
		case r := <-w.starts:
			w.onStart(ctx, r)
		case r := <-w.pongs:
			w.onPong(ctx, r)
		case d := <-w.told:
			w.onTold(ctx, d)
		case incarnation := <-w.lost:
			w.onLost(ctx, incarnation)
		case <-w.retry.C:
			w.onRetry(ctx)
		case <-w.tick.C:
			w.onTick(ctx)
		}
	}
}

// down is closed when the process has ended and nobody deals with that yet.
func (w *worker) down() <-chan struct{} {
	if w.inst == nil || w.burying || w.again {
		return nil
	}
	return w.inst.Done()
}

// letGo drops what this master holds of a process that goes on running.
func (w *worker) letGo() {
	w.cancel()
	w.retry.Stop()
	w.tick.Stop()
	w.withdraw()
	w.hangUp()
	w.helpers.Wait()
	if w.inst != nil {
		if err := w.inst.Close(); err != nil {
			w.log.Warn("worker not let go of cleanly", "error", err)
		}
	}
}

// took makes inst the instance, and has its handle kept beyond this master.
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
		// Its exit code may be unknown to the next master, nothing else.
		w.log.Debug("worker's handle not kept", "error", err)
	}
}

// connected takes a link into use.
func (w *worker) connected(ctx context.Context, l link) {
	w.link = l
	w.watchLink(ctx)
}

// hangUp ends the connection; calls under way on it fail.
func (w *worker) hangUp() {
	w.unwatch()
	if w.link != nil {
		w.link.Shutdown()
		w.link = nil
	}
}

// step asks what to do about the event, makes the decision durable and does it.
func (w *worker) step(ctx context.Context, e event) {
	e.chance = w.sup.jitter()
	before := w.state
	var act action
	w.state, act = next(w.state, e, w.unit.Restart, w.sup.bootTime())
	if act == actStart {
		w.start(ctx) // records by itself: the intent holds the token and the port
		return
	}
	var events []store.Event
	// What fails on and on for a while would drive all else out of the history.
	seldom := e.ours && w.state.lacked&(w.state.lacked-1) != 0
	if before.status != w.state.status && !seldom {
		events = append(events, w.event(string(w.state.status), w.state.reason))
	}
	if act == actServe {
		// Before it is recorded: a fact, and requests may be waiting for it.
		w.admit(ctx)
	}
	if !w.state.ready && act != actStop { // bury drains what it withdraws
		w.withdraw()
	}
	w.record(ctx, events...)
	switch act {
	case actNone, actHold, actServe, actStart:
	case actAwait:
		w.await(ctx)
	case actStop:
		w.bury(ctx, true)
	case actWait:
		w.retry.Reset(max(0, w.state.budget.RetryAt-w.sup.bootTime()))
	case actFinish:
		w.finish(ctx)
	}
	if w.state.status == store.StatusFailed {
		w.sup.services.Reconsider()
	}
}

func (w *worker) finish(ctx context.Context) {
	if w.state.retired {
		removed := w.event("removed", "fewer replicas are wanted")
		w.commit(ctx, crashpoint.Removal, store.DeleteWorker(w.id), store.AppendEvent(removed))
		w.sup.services.Offer(w.id)
		w.info.Store(nil)
		w.sup.services.Changed()
	}
	w.done = true
}

// event makes a line of history; it is also what people see at once.
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
		attrs = append(attrs, slog.Duration("restart_in", w.state.budget.RetryAt-w.sup.bootTime()))
	}
	if detail != "" {
		attrs = append(attrs, slog.String("reason", detail))
	}
	//nolint:sloglint // the kinds are a fixed set, see the callers
	w.log.LogAttrs(context.Background(), level, "worker "+kind, attrs...)
	if detail == "" && w.inst != nil {
		detail = fmt.Sprintf("pid %d port %d", w.rec.Instance.PID, w.rec.Instance.Port)
	}
	return store.Event{Time: time.Now(), Worker: w.id, Type: kind, Detail: detail}
}

// record makes the worker's state durable where it differs from what is, and
// reports whether it is durable now.
func (w *worker) record(ctx context.Context, events ...store.Event) bool {
	events = append(w.pending, events...)
	w.pending = nil
	rec := w.rec
	if !w.state.retired { // there is no room for it, which says nothing of what is desired
		rec.Desired = store.DesiredRunning
		if !w.state.wanted {
			rec.Desired = store.DesiredStopped
		}
	}
	rec.Status, rec.Reason = w.state.status, w.state.reason
	rec.Restarts, rec.Budget = w.state.restarts, w.state.budget
	w.rec = rec
	if len(events) > 0 || !reflect.DeepEqual(rec, w.saved) {
		muts := []store.Mutation{store.PutWorker(rec)}
		for _, e := range events {
			muts = append(muts, store.AppendEvent(e))
		}
		if !w.commit(ctx, recordPoint(rec), muts...) {
			return false
		}
		w.saved = rec
	}
	w.publish()
	return true
}

// recordPoint says what it is that a record of this status makes durable.
func recordPoint(rec store.Worker) crashpoint.Point {
	switch rec.Status {
	case store.StatusStarting:
		if rec.Instance != nil && rec.Instance.PID == 0 {
			return crashpoint.IntentRecord
		}
		return crashpoint.PIDRecord
	case store.StatusRunning, store.StatusUnhealthy:
		return crashpoint.ReadyRecord
	case store.StatusStopping:
		return crashpoint.StopRecord
	case store.StatusStopped, store.StatusBackoff, store.StatusFailed:
	}
	return crashpoint.ExitRecord
}

// publish shows the worker to readers.
func (w *worker) publish() {
	w.info.Store(&WorkerInfo{
		Worker:  w.rec,
		Adopted: w.adopted,
		Ready:   w.endpoint != nil,
		LogPath: logPath(w.sup.opts.LogDir, w.id),
	})
	w.sup.services.Changed()
}

// How a commit is tried again while the state cannot be written (a full disk):
// workers live on, and nothing that must be recorded first is done meanwhile.
const (
	commitRetryAfter = 250 * time.Millisecond
	// A master that was told to stop stops, recorded or not.
	commitLastTry = 2 * time.Second
)

// commit returns when the mutations are durable, and reports whether they are:
// not when ctx ended, or when the master stops and the state cannot be written.
func (w *worker) commit(ctx context.Context, point crashpoint.Point, muts ...store.Mutation) bool {
	var deadline <-chan time.Time
	shutdown := w.shutdown
	if w.leaving {
		shutdown = nil
		deadline = time.After(commitLastTry)
	}
	for logged := false; ; {
		err := crashpoint.Do(point, func() error { return w.sup.opts.Store.Apply(ctx, muts...) })
		if err == nil {
			return true
		}
		if !errors.Is(err, store.ErrUnavailable) {
			if ctx.Err() == nil {
				w.log.Error("worker not recorded", "error", err)
			}
			return false
		}
		if !logged {
			logged = true
			w.log.Error("worker not recorded, trying again", "error", err)
			// The master serves also while this lasts, and shows what it knows.
			w.publish()
			w.settleOnce.Do(func() { close(w.settled) })
		}
		select {
		case <-time.After(commitRetryAfter):
		case <-shutdown:
			shutdown = nil
			deadline = time.After(commitLastTry)
		case <-deadline:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// describeExit says for people how a process ended.
func describeExit(e process.Exit) string {
	switch {
	case e.Source == process.ExitUnknown:
		return "exited with an unknown code"
	case e.Signal != 0:
		return "killed by " + process.SignalName(e.Signal)
	}
	return "exited with code " + strconv.Itoa(e.Code)
}

// onRetry does what had to wait: ask again about a held worker, try again to end
// what did not end, or start after the backoff.
func (w *worker) onRetry(ctx context.Context) {
	switch {
	case w.held:
		w.settle(ctx)
	case w.inst != nil && !w.burying:
		w.bury(ctx, false)
	case w.inst == nil:
		w.step(ctx, event{kind: evRetry})
	}
}
