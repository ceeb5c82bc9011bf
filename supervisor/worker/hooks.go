package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Environment variables of the commands of hooks.
const (
	envWorkerPID  = "HSU_WORKER_PID"  // stop.command: the worker's process
	envExitCode   = "HSU_EXIT_CODE"   // stop.after: the exit code, if it is known
	envExitSignal = "HSU_EXIT_SIGNAL" // stop.after: the name of the signal that ended the worker
)

const (
	// beforePatience is the longest time between SIGTERM and SIGKILL for a start.before that has to end. A migration
	// can roll back in it, and it delays neither a detach nor the stop of a master for long.
	beforePatience = 2 * time.Second
	// signalShare is the share of the grace that stop.command leaves to the worker after the signal: one tenth.
	signalShare = 10
)

// hooks are the commands of a worker's unit that run before its start and at its end. At most one runs at a time.
type hooks struct {
	shown atomic.Pointer[string] // the running command; nil if none runs
	gone  *absence               // used by the worker's goroutine only

	mu      sync.Mutex
	left    []string // tokens of runs whose processes are not known to be gone
	unknown bool     // no scan has shown yet what an earlier master has left
}

// absence is the end of an instance that was found gone, which stop.after follows.
type absence struct {
	exit  identity.Exit
	event lifecycle.Event
}

// running returns the command that runs now, "" if none does.
func (s *hooks) running() string {
	if shown := s.shown.Load(); shown != nil {
		return *shown
	}
	return ""
}

// leave adds a run whose processes may live.
func (s *hooks) leave(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = append(s.left, token)
}

// found takes over what the scan of a recovery has shown.
func (s *hooks) found(r recovery.ScanResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unknown = r.Unknown()
	for _, h := range r.Commands {
		if !slices.Contains(s.left, h.Token) {
			s.left = append(s.left, h.Token)
		}
	}
}

// hook is a command of one moment, ready to be run by a helper.
type hook struct {
	kind   unit.Hook
	env    *Env
	unit   unit.Spec
	worker string
	port   int
	more   []string // further environment variables
	hooks  *hooks
}

// newHook returns the command of the present unit. port is that of the instance, 0 if it has none.
func newHook(w *owner, kind unit.Hook, port int, more ...string) hook {
	return hook{kind: kind, env: w.env, unit: w.unit, worker: w.id, port: port, more: more, hooks: &w.hooks}
}

// none reports whether the unit has no such command.
func (h hook) none() bool { return len(h.unit.Command(h.kind)) == 0 }

// sweep kills what earlier runs of all hooks have left. Until it succeeds, the worker must neither run a command nor
// start.
func (h hook) sweep(ctx context.Context) error {
	s := h.hooks
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown && h.unit.HasHooks() {
		tokens, err := h.env.Recovery.Commands(ctx, h.worker)
		if err != nil {
			return err
		}
		s.left, s.unknown = append(s.left, tokens...), false
	}
	var errs []error
	s.left = slices.DeleteFunc(s.left, func(token string) bool {
		bounded, cancel := context.WithTimeout(ctx, launcher.KillWait)
		defer cancel()
		left, err := h.env.Launcher.Sweep(bounded, "", records.Instance{Token: token})
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d processes, the first is %d", len(left), left[0].PID)
		}
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("a command that ran before cannot be killed: %w", err)
	}
	return nil
}

// run runs the command, if there is one, and returns why it has failed. What an earlier run has left is killed first.
// The error includes [process.ErrSurvived] if not all of the family could be killed.
func (h hook) run(ctx context.Context, limit time.Duration) error {
	if h.none() {
		return nil
	}
	if err := h.sweep(ctx); err != nil {
		return fmt.Errorf("%s: %w: %w", h.kind.Key(), process.ErrSurvived, err)
	}
	if closed(h.env.Hurry) {
		return fmt.Errorf("%s: %w", h.kind.Key(), errHurry)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit))
	defer cancel()
	shown := h.kind.Key() + " " + h.unit.Command(h.kind)[0]
	h.hooks.shown.Store(&shown)
	h.env.Services.Changed()
	defer h.hooks.shown.Store(nil)
	if err := h.execute(bounded); err != nil {
		return fmt.Errorf("%s: %w", h.kind.Key(), err)
	}
	return nil
}

var errHurry = errors.New("the master was told to stop at once")

// execute runs the command until it has ended, ctx ends or the master has to hurry.
func (h hook) execute(ctx context.Context) error {
	p, err := h.unit.LaunchHook(h.kind, h.worker, h.port)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var hurried sync.WaitGroup
	defer hurried.Wait()
	defer cancel(nil)
	hurried.Go(func() {
		select {
		case <-h.env.Hurry:
			cancel(errHurry)
		case <-ctx.Done():
		}
	})
	c := launcher.Command{
		Path: p.Path, Args: p.Args, Env: append(p.Env, h.more...), Dir: h.unit.Dir, Attributes: h.unit.Attributes,
		Log: h.worker, Hurry: h.env.Hurry,
	}
	if h.kind == unit.BeforeStart {
		c.Patience = min(beforePatience, h.unit.Stop.Grace)
	}
	token := newToken()
	var ran process.Ran
	err = crashpoint.Do(h.point(), func() (err error) {
		ran, err = h.env.Launcher.Run(ctx, c, h.kind.ID(h.worker), token)
		return err
	})
	switch {
	case errors.Is(err, process.ErrSurvived):
		h.hooks.leave(token)
		return err
	case err != nil:
		return err
	case ran.Cut:
		return context.Cause(ctx)
	case ran.Exit.Source != identity.ExitUnknown && ran.Exit.Signal == 0 && ran.Exit.Code != 0:
		return fmt.Errorf("exit code %d", ran.Exit.Code)
	case !ran.Exit.Clean():
		return errors.New(ran.Exit.String())
	}
	return nil
}

// point returns the crash point of the command.
func (h hook) point() crashpoint.Point {
	switch h.kind {
	case unit.BeforeStart:
		return crashpoint.StartBefore
	case unit.AtStop:
		return crashpoint.StopCommand
	case unit.AfterEnd:
	}
	return crashpoint.StopAfter
}

// conclude runs stop.after if all of the instance and its commands is gone.
func (h hook) conclude(ctx context.Context, r endResult) endResult {
	if r.leftover() != nil {
		return r
	}
	if r.err = h.sweep(ctx); r.err != nil {
		return r
	}
	h.more = append(h.more, exitVariables(r.exit)...)
	if r.failed = h.run(ctx, h.unit.Stop.Grace); errors.Is(r.failed, process.ErrSurvived) {
		r.err = r.failed
	}
	return r
}

// exitVariables returns the environment variables that say how the worker has ended, none if that is not known.
func exitVariables(e identity.Exit) []string {
	switch {
	case e.Source == identity.ExitUnknown:
		return nil
	case e.Signal != 0:
		return []string{envExitSignal + "=" + identity.SignalName(e.Signal)}
	}
	return []string{envExitCode + "=" + strconv.Itoa(e.Code)}
}

// launch starts the worker, after its start.before if the unit has one. The port is chosen first, and the status
// "starting" without an instance is the intent: a start that is cut off there begins again, with the command.
func launch(ctx context.Context, w *owner) {
	h := newHook(w, unit.BeforeStart, 0)
	if h.none() {
		w.start(ctx)
		return
	}
	if closed(w.shutdown) {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvShutdown})
		return
	}
	port, err := choosePort(w.env.Ports, w.unit, w.id, w.rec.Port)
	if err == nil {
		notePort(w, port)
		w.rec.Port, w.rec.Instance = port, nil
		// If the command fails, a change of the unit or its executable is still seen.
		w.rec.SpecHash, _ = w.unit.Hash()
		noteEnvironment(w)
		w.rec.Outdated = false
		if !w.record(ctx) {
			err = errors.New("the start could not be recorded")
		}
	}
	if err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", launcher.ErrOwnFault, err)
			w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: err.Error(), Ours: true})
		}
		return
	}
	h.port = port
	incarnation, limit := w.rec.Incarnation, w.unit.Start.Timeout
	w.helpers.Go(func() {
		err := h.run(ctx, limit)
		if ctx.Err() != nil && errors.Is(err, process.ErrSurvived) {
			w.log.Error("worker command not stopped", "error", err) // the next master kills it
		}
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { prepared(ctx, w, err) },
		})
	})
}

// failedBefore reports whether the reason of a failed worker is its start.before.
func failedBefore(reason string) bool {
	failure := unit.BeforeStart.Key() + ": "
	return strings.HasPrefix(reason, failure) || strings.Contains(reason, ": "+failure)
}

// notePort adds to the history that the worker gets another port than it had.
func notePort(w *owner, port int) {
	if w.rec.Port != 0 && port != 0 && w.rec.Port != port {
		w.journal.add(w.event(eventPortChanged,
			fmt.Sprintf("%d is taken by another process, using %d", w.rec.Port, port)))
	}
}

// prepared continues the start after start.before, which failed with err.
func prepared(ctx context.Context, w *owner, err error) {
	if w.state.Status != records.StatusStarting || w.state.Slot != lifecycle.Vacant {
		return
	}
	if err == nil {
		w.start(ctx)
		return
	}
	w.journal.add(w.event(eventHookFailed, err.Error()))
	if errors.Is(err, process.ErrSurvived) {
		w.hold(ctx, err)
		return
	}
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStartFailed, Reason: err.Error(), Ours: ownFault(err)})
}

// concludeAbsent has stop.after run for an instance that was found gone, before anything follows from its end. It
// reports false if the unit has no such command.
func concludeAbsent(ctx context.Context, w *owner, o recovery.Orders) bool {
	if len(w.unit.Stop.After) == 0 {
		return false
	}
	end := absence{event: o.Event}
	if o.Event.Kind == lifecycle.EvExited {
		end.exit, _ = w.env.Recovery.Kept(w.rec.Instance.Token) // otherwise its source is identity.ExitUnknown
	} else {
		end.event = lifecycle.Event{Kind: lifecycle.EvExited, Away: true, CutOff: true}
	}
	end.exit.At = time.Now()
	w.hooks.gone = &end
	w.state = o.From
	w.step(ctx, lifecycle.Event{Kind: lifecycle.EvFoundDead})
	return true
}
