package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// launch starts the worker, after its start.before if the unit has one.
func (w *owner) launch(ctx context.Context) {
	if len(w.unit.Start.Before) == 0 {
		w.start(ctx)
		return
	}
	launchAfterHook(ctx, w)
}

// launchAfterHook is launch for a unit with a start.before. The port is chosen first, and the status "starting" without
// an instance is the intent: a start that is cut off there begins again, with the command.
func launchAfterHook(ctx context.Context, w *owner) {
	h := w.hooks.of(w.unit, unit.BeforeStart, 0)
	_ = w.output.markStart(w.unit.Log.To, w.rec.Incarnation+1).Close() // the command opens the file itself
	if closed(w.shutdown) {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvShutdown})
		return
	}
	port, err := choosePort(w.env.Ports, w.unit, w.id, w.rec.Port)
	if err == nil {
		w.notePort(port)
		w.rec.Instance = nil
		// If the command fails, a change of the unit or its executable is still seen.
		spec, _ := w.unit.Hash()
		noteStart(&w.rec, spec, w.unit, w.env.Secrets)
		err = w.hooks.plan(w.unit, unit.BeforeStart)
	}
	if err == nil && !w.record(ctx) {
		err = errors.New("the start could not be recorded")
	}
	if err != nil {
		w.hooks.runs.drop()
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: err.Error(), Ours: true})
		}
		return
	}
	h.port = port
	incarnation, limit := w.rec.Incarnation, w.unit.Start.Timeout
	before, cancel := context.WithCancelCause(ctx)
	w.startup.halt = func() { cancel(errHalted) }
	w.helpers.Go(func() {
		defer cancel(nil)
		err := h.run(before, limit)
		if ctx.Err() != nil && errors.Is(err, oneshot.ErrSurvived) {
			w.log.Error("worker command not stopped", "error", err) // the next master kills it
		}
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.prepared(ctx, err) },
		})
	})
}

// prepared continues the start after start.before, which failed with err.
func (w *owner) prepared(ctx context.Context, err error) {
	w.hooks.runs.drop()
	w.startup.halt = nil
	switch {
	case w.state.Status != records.StatusStarting || w.state.Slot != lifecycle.Vacant:
		return
	case errors.Is(err, oneshot.ErrSurvived):
	case !w.state.Wanted:
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: errHalted.Error()})
		return
	case errors.Is(err, errHalted): // and started again meanwhile
		w.launch(ctx)
		return
	case err == nil:
		w.start(ctx)
		return
	}
	w.journal.add(w.event(eventHookFailed, err.Error()))
	if errors.Is(err, oneshot.ErrSurvived) {
		w.hold(ctx, err)
		return
	}
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: err.Error(), Ours: ownFault(err)})
}

// start records the intent, forks, and begins to wait for the worker to get ready. The state is "starting" already.
func (w *owner) start(ctx context.Context) {
	inst, err := w.fork(ctx)
	switch {
	case ctx.Err() != nil:
		// Detached meanwhile: the next master finds the process by the token of the intent.
		if inst != nil {
			_ = inst.Close()
		}
	case errors.Is(err, ErrStopping):
		w.notices.drop(w)
		w.rec.Instance = nil
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvShutdown})
	case err != nil:
		w.notices.drop(w)
		w.rec.Instance = nil
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: err.Error(), Ours: ownFault(err)})
	default:
		// A copy: readers have been shown the present value.
		rec := *w.rec.Instance
		rec.Process = inst.Identity()
		w.rec.Instance = &rec
		w.setInstance(ctx, inst, false)
		w.journal.add(w.event(eventStarted, ""))
		if news := w.limits.limit(inst, w.unit.Limits); news != "" {
			w.journal.add(w.event(eventUnenforced, news))
		}
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvForked})
	}
}

// ownFault reports whether a start failed for a reason that is not the worker's fault.
func ownFault(err error) bool { return errors.Is(err, launcher.ErrOwnFault) || process.Exhausted(err) }

// closed reports whether the channel is closed.
func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// ErrStopping means that no worker is started any more.
var ErrStopping = errors.New("the master is stopping")

// fork makes the intent durable and starts the process.
func (w *owner) fork(ctx context.Context) (launcher.Instance, error) {
	if closed(w.shutdown) || closed(w.env.Stopping) {
		return nil, ErrStopping
	}
	u, held, err := prepare(w)
	defer held.close()
	if err != nil {
		return nil, err
	}
	if !w.record(ctx) {
		return nil, fmt.Errorf("%w: the start could not be recorded", launcher.ErrOwnFault)
	}
	if closed(w.shutdown) || closed(w.env.Stopping) {
		return nil, ErrStopping
	}
	if err := w.notices.listen(w); err != nil {
		return nil, fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
	}
	w.env.Ports.MakeRoom(w.unit.Name, w.id)
	return w.env.Launcher.Start(u, w.id, *w.rec.Instance, held.lease, held.output)
}

// inheritance has the files that a new instance inherits from the master, which has its own descriptors of them.
type inheritance struct {
	lease  *process.Lease
	output *os.File // of the worker; nil if the launcher has to open the output
}

// close closes the descriptors of the master.
func (i inheritance) close() {
	_ = i.lease.Close()
	_ = i.output.Close() // fails without any effect if it is nil
}

// prepare makes the intent of a start, and returns the unit with the program that starts, and what the process
// inherits, which the caller has to close even if there is an error.
func prepare(w *owner) (u *unit.Spec, held inheritance, err error) {
	defer w.env.Starts.enter()()
	if len(w.unit.Start.Before) == 0 { // otherwise the output has begun with that of the command
		held.output = w.output.markStart(w.unit.Log.To, w.rec.Incarnation+1)
	}
	rights, err := w.unit.Attributes.Resolve()
	if err != nil {
		return u, held, err
	}
	port, err := choosePort(w.env.Ports, w.unit, w.id, w.rec.Port)
	if err != nil {
		return u, held, fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
	}
	if held.lease, err = w.env.Launcher.Lease(w.id); err != nil {
		return u, held, fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
	}
	u = w.unit.Found() // the program that is recorded is the one that starts
	spec, exe, err := u.Version()
	if err != nil { // a file may be executable and not readable; if it is missing, the start fails
		w.log.Debug("worker executable not read", "error", err)
	}
	w.notePort(port)
	w.rec.Incarnation++
	w.routes.forget()
	noteStart(&w.rec, spec, w.unit, w.env.Secrets)
	w.rec.Instance = &records.Instance{
		Token:   launcher.NewToken(),
		Process: identity.Process{BootID: w.env.BootID},
		Port:    port,
		ExeHash: exe,
		Started: time.Now(),
		Lease:   held.lease.ID(),
		UID:     rights.Account.UID,
		OwnPort: w.unit.Port == unit.AnnouncedPort,
	}
	return u, held, w.notices.place(w)
}

// choosePort returns the port for the next instance of a worker, which had the port last, or 0 if it gets none or
// chooses one itself.
func choosePort(book *ports.Book, u *unit.Spec, worker string, last int) (port int, err error) {
	if u.Port == unit.NoPort || u.Port == unit.AnnouncedPort {
		book.Forget(worker)
		return 0, nil
	}
	err = crashpoint.Do(crashpoint.Port, func() (err error) {
		if u.Port == unit.AutoPort {
			port, err = book.Choose(worker, last)
			return err
		}
		port = int(u.Port)
		return book.Take(worker, port)
	})
	return port, err
}

// await starts a helper that waits until the worker is ready or its start timeout is over.
func (w *owner) await(ctx context.Context) {
	incarnation := w.rec.Incarnation
	wait, cancel := context.WithTimeoutCause(ctx, w.unit.Start.Timeout, errStartTimeout)
	r := startWait{
		subject: w.subject(), progress: w.startup.begin(cancel), began: time.Now(),
		announced: w.announcedBy(w.rec.Instance.Token),
	}
	w.helpers.Go(func() {
		defer cancel()
		l, port, err := r.wait(wait)
		if err != nil && ctx.Err() != nil {
			return // the master ended the wait, not the worker: the worker goes on starting
		}
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.onStart(ctx, l, port, err) },
			discard: func() {
				if l != nil {
					l.Shutdown()
				}
			},
		})
	})
}

var errStartTimeout = errors.New("start timeout")

// onStart handles the end of the wait for the worker: the link to it and its port, or the reason why it is not ready.
func (w *owner) onStart(ctx context.Context, l Link, port int, err error) {
	switch {
	case !w.state.Starting(): // it has ended, or is being stopped
		if l != nil {
			l.Shutdown()
		}
	case err != nil:
		w.notices.late(w)
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvNotReady, Reason: err.Error()})
	default:
		w.startup.end()
		if w.rec.Instance.Port != port { // recorded with the status "running"
			w.rec.Instance = withPort(*w.rec.Instance, port)
		}
		w.connect(ctx, l)
		w.checks[0].Note(nil) // it has just passed this check
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvReady})
		w.notices.started(w)
	}
}

// noteStart notes in the record the inputs of the next start, so that a change of them is seen.
func noteStart(rec *records.Worker, spec string, u *unit.Spec, key records.SecretKey) {
	rec.SpecHash, rec.Outdated = spec, false
	rec.SecretKey, rec.EnvironmentMAC = key.ID(), key.MAC(u.Name, u.Env)
}

// notePort makes port that of the next instance. If the worker had another one, the history gets an event.
func (w *owner) notePort(port int) {
	if w.rec.Port != 0 && port != 0 && w.rec.Port != port {
		w.journal.add(w.event(eventPortChanged,
			fmt.Sprintf("%d is taken by another process, using %d", w.rec.Port, port)))
	}
	w.rec.Port = port
}
