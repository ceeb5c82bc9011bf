package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/notify"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// NotifySocket is a [notify.Socket]; tests put a fake in its place.
type NotifySocket interface {
	Attach(told notify.State, belongs func(pid int) bool, changes func())
	State() (notify.State, <-chan struct{})
	Mend() (bool, error)
	File() (*os.File, error)
	Close() error
	Remove() error
}

// NewNotifier returns the notifier of the operating system.
func NewNotifier(runtimeDir string) Notifier {
	return Notifier{
		RuntimeDir: runtimeDir,
		Listen: func(path string, uid uint32, log *slog.Logger) (NotifySocket, error) {
			return socketOf(notify.Listen(path, uid, log))
		},
		Restore: func(path string, file *os.File, log *slog.Logger) (NotifySocket, error) {
			return socketOf(notify.Restore(path, file, log))
		},
	}
}

// socketOf returns nil, and not an interface of a nil pointer, if there is no socket.
func socketOf(s *notify.Socket, err error) (NotifySocket, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// notices is the notify socket of a worker. The worker's goroutine owns it, any goroutine reads present.
type notices struct {
	socket NotifySocket // nil if there is none
	// lossy is set if there was no socket while no master ran and the worker was starting.
	lossy     bool
	blameless bool // the start has failed, perhaps because READY=1 was lost
	kept      bool // by the Keeper, while the worker is starting
	pending   atomic.Bool
	present   atomic.Pointer[notified] // nil if the instance has no socket
}

// storeName is the name of the notify socket of an instance in the Keeper.
func storeName(token string) string { return "notify-" + token }

// place chooses the path of the socket for the next instance.
func (n *notices) place(w *owner) error {
	if !w.unit.Notifies() {
		return nil
	}
	path, err := notify.Place(w.env.Notify.RuntimeDir, w.id, w.rec.Instance.UID)
	if err != nil {
		return fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
	}
	w.rec.Instance.Notify = &records.Notify{Path: path, Watchdog: w.unit.Watchdog()}
	return nil
}

// listen makes the socket for the next instance, before the process that will use it.
func (n *notices) listen(w *owner) (err error) {
	n.close(w)
	n.lossy, n.blameless = false, false
	rec := w.rec.Instance
	if rec.Notify == nil {
		return nil
	}
	if n.socket, err = w.env.Notify.Listen(rec.Notify.Path, rec.UID, w.log); err != nil {
		return err
	}
	if _, none := w.env.Keeper.(launcher.NoKeeper); none {
		return nil
	}
	file, err := n.socket.File()
	if err == nil {
		err = errors.Join(w.env.Keeper.Keep(storeName(rec.Token), file), file.Close())
	}
	if n.kept = err == nil; !n.kept {
		// The only consequence: a READY=1 may be lost if the master dies now.
		w.log.Debug("worker notify socket not kept", "error", err)
	}
	return nil
}

// attach has the notifications of the present instance count. One that was ready remains ready, and a missed
// WATCHDOG=1 does not count for the time without a master.
func (n *notices) attach(ctx context.Context, w *owner) {
	rec := w.rec.Instance.Notify
	if rec == nil || n.socket == nil {
		n.drop(w)
		return
	}
	p := &notified{
		socket: n.socket, lossy: n.lossy, since: time.Now(), watched: rec.Watched, period: rec.Watchdog,
	}
	var err error
	if _, p.env, err = w.unit.Launch(w.id, w.rec.Instance.Port); err != nil {
		p.env = w.unit.Env
	}
	var told notify.State
	if w.adopted && w.state.Status != records.StatusStarting {
		told.Ready = true
		if rec.Watched && w.state.Status == records.StatusRunning {
			told.Watchdog = p.since
		}
		n.started(w)
	}
	n.present.Store(p)
	incarnation, watched := w.rec.Incarnation, rec.Watched
	n.socket.Attach(told, w.inst.Includes, func() {
		s, _ := p.socket.State()
		first := !watched && !s.Watchdog.IsZero()
		if !first && !s.Stopping || !n.pending.CompareAndSwap(false, true) {
			return
		}
		watched = watched || first
		w.helpers.Go(func() {
			w.post(ctx, message{
				incarnation: incarnation,
				apply:       func(ctx context.Context) { n.note(ctx, w) },
				discard:     func() { n.pending.Store(false) },
			})
		})
	})
}

// note takes notifications that concern the record or the calls of the worker.
func (n *notices) note(ctx context.Context, w *owner) {
	n.pending.Store(false)
	p := n.present.Load()
	if p == nil || w.rec.Instance == nil || w.rec.Instance.Notify == nil {
		return
	}
	s, _ := p.socket.State()
	if !s.Watchdog.IsZero() && !w.rec.Instance.Notify.Watched {
		// Copies: readers have been shown the present values.
		rec, told := *w.rec.Instance, *w.rec.Instance.Notify
		told.Watched, rec.Notify = true, &told
		w.rec.Instance = &rec
		if w.env.Store.Writable() == nil { // otherwise the next change records it
			w.record(ctx)
		}
	}
	if s.Stopping && w.state.Ready && w.unit.Health.Readiness.Type == probe.TypeNotify {
		w.onLost(ctx, nil) // no calls from now on
	}
}

// started drops the socket that was kept for the case that the master dies while the worker is starting.
func (n *notices) started(w *owner) {
	if !n.kept {
		return
	}
	n.kept = false
	if err := w.env.Keeper.Drop(storeName(w.rec.Instance.Token)); err != nil {
		w.log.Debug("worker notify socket not dropped", "error", err)
	}
}

// late reports a worker that was not ready in time, if it may have said that it is while nothing listened.
func (n *notices) late(w *owner) {
	if n.lossy && w.unit.Health.Readiness.Type == probe.TypeNotify && !n.blameless {
		n.blameless = true
		w.journal.add(w.event(eventReadyLost, "no master ran for a while, and the notify socket was gone"))
	}
}

// close closes the socket. The path remains for the next master.
func (n *notices) close(w *owner) {
	n.present.Store(nil)
	if n.socket == nil {
		return
	}
	if err := n.socket.Close(); err != nil {
		w.log.Warn("worker notify socket not closed", "error", err)
	}
	n.socket = nil
}

// drop removes the socket of an instance that has ended.
func (n *notices) drop(w *owner) {
	socket := n.socket
	n.close(w)
	if socket == nil {
		return
	}
	if w.rec.Instance != nil {
		n.started(w)
	}
	if err := socket.Remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("worker notify socket not removed", "error", err)
	}
	n.lossy, n.blameless, n.kept = false, false, false
}

// notified is the state that the present instance has reported on its notify socket, and the next expected message. It
// is never changed.
type notified struct {
	socket  NotifySocket
	lossy   bool
	since   time.Time     // of the start or the adoption
	watched bool          // the instance has sent WATCHDOG=1 to an earlier master
	period  time.Duration // the longest time between two WATCHDOG=1 that the instance was told
	env     []string      // of the instance: it is not shown
}

// saysReady reports whether the instance is ready. If its READY=1 may have been lost, WATCHDOG=1 is another sign.
func (n *notified) saysReady(s notify.State) bool {
	return s.Ready || n.lossy && !s.Watchdog.IsZero() && !s.Stopping
}

// verdict returns nil if the notifications pass a check that is made at each interval.
func (n *notified) verdict(what use, interval time.Duration, now time.Time) error {
	s, _ := n.socket.State()
	switch {
	case what == useLiveness:
	case s.Stopping:
		return errors.New("it is stopping (STOPPING=1)")
	case !n.saysReady(s):
		return errors.New("no READY=1")
	}
	if what == useReadiness || !n.watched && s.Watchdog.IsZero() {
		return nil
	}
	last := s.Watchdog
	if last.IsZero() {
		last = n.since
	}
	switch silent := now.Sub(last); {
	case s.Failed:
		return errors.New("it reports a failure (WATCHDOG=trigger)")
	case silent > max(interval, n.period):
		if lost, err := n.socket.Mend(); err != nil {
			return fmt.Errorf("its notify socket was removed: %w: %w", err, probe.ErrUndecided)
		} else if lost {
			return fmt.Errorf("its notify socket was removed: %w", probe.ErrUndecided)
		}
		return fmt.Errorf("no WATCHDOG=1 for %s", silent.Round(time.Millisecond))
	case s.Watchdog.IsZero():
		return fmt.Errorf("no WATCHDOG=1 since the worker was adopted: %w", probe.ErrUndecided)
	}
	return nil
}

// text returns the status text of the instance, without secrets.
func (n *notified) text(s notify.State) string { return unit.Mask(s.Status, n.env) }

// notifies waits until the worker says that it is ready.
func (r startWait) notifies(ctx context.Context) error {
	const what = "READY=1"
	r.progress.report(what, nil, time.Time{})
	for {
		s, changed := r.socket.State()
		if r.saysReady(s) {
			return nil
		}
		answer := errNotYet
		if text := r.text(s); text != "" {
			answer = errors.New(text)
		}
		if s.Heard {
			r.progress.report(what, answer, time.Time{})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("sent no %s within %s: %w", what, r.unit.Start.Timeout, answer)
		}
	}
}

// StatusText returns the last STATUS= message of the present instance, "" if there is none.
func (w *Worker) StatusText() string {
	n := w.notices.present.Load()
	if n == nil {
		return ""
	}
	s, _ := n.socket.State()
	return n.text(s)
}

// Sockets are the notify sockets of workers that an earlier master has left, by worker.
type Sockets map[string]restored

type restored struct {
	socket NotifySocket
	lossy  bool
	kept   bool
}

// RestoreSockets makes the notify sockets of the recorded instances anew, or takes them from the Keeper.
func RestoreSockets(e *Env, recs []records.Worker) Sockets {
	sockets := Sockets{}
	for _, rec := range recs {
		i := rec.Instance
		if i == nil || i.Notify == nil || i.BootID != e.BootID {
			continue
		}
		r, log := restored{}, e.Log.With("worker", rec.ID)
		if err := notify.Admit(i.Notify.Path, i.UID); err != nil {
			log.Error("worker notify socket not restored", "error", err)
			continue
		}
		if file := e.Keeper.Kept(storeName(i.Token)); file != nil {
			var err error
			if r.socket, err = e.Notify.Restore(i.Notify.Path, file, log); err != nil {
				r.socket = nil
				log.Debug("worker notify socket not taken over", "error", err)
			}
			_ = file.Close() // the socket has its own descriptor
			r.kept = true
		}
		if r.socket == nil {
			var err error
			if r.socket, err = e.Notify.Listen(i.Notify.Path, i.UID, log); err != nil {
				log.Error("worker notify socket not restored", "error", err)
				continue
			}
			r.lossy = rec.Status == records.StatusStarting
		}
		sockets[rec.ID] = r
	}
	return sockets
}

// Close closes the sockets that no worker has taken.
func (s Sockets) Close() {
	for _, r := range s {
		_ = r.socket.Close()
	}
}

// Hear gives the worker its notify socket of an earlier master, before Serve.
func (w *Worker) Hear(sockets Sockets) {
	r, found := sockets[w.id]
	if !found {
		return
	}
	w.notices.socket, w.notices.lossy, w.notices.kept = r.socket, r.lossy, r.kept
	delete(sockets, w.id)
}
