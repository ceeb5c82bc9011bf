package worker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
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
	env    *Env
	worker string
	shown  atomic.Pointer[string] // the running command; nil if none runs
	runs   hookRuns

	unknown atomic.Bool // no scan has shown yet what an earlier master has left
}

// running returns the command that runs now, "" if none does.
func (s *hooks) running() string {
	if shown := s.shown.Load(); shown != nil {
		return *shown
	}
	return ""
}

// found takes over the commands that the scan of a recovery has found, and forgets the recorded ones that are none of
// this master's, or of another boot.
func (s *hooks) found(r recovery.ScanResult) {
	s.runs.gone(func(run records.HookRun) bool {
		return run.Lease != (identity.FileID{}) && !s.env.Recovery.MayLive(run)
	})
	s.unknown.Store(r.Unknown())
	s.take(r.Commands)
}

// take adds runs of which processes were found.
func (s *hooks) take(commands []process.Holder) {
	for _, h := range commands {
		_, kind, _ := unit.HookOf(h.WorkerID)
		s.runs.add(records.HookRun{Hook: string(kind), Instance: records.Instance{Token: h.Token}})
	}
}

// plan makes leases for runs of the commands that the unit has, which the next record of the worker announces. A
// command without a lease is found by its environment only.
func (s *hooks) plan(u *unit.Spec, kinds ...unit.Hook) error {
	var errs []error
	for _, kind := range kinds {
		if len(u.Command(kind)) == 0 || s.runs.isPlanned(kind) {
			continue
		}
		rights, err := u.Attributes.Resolve()
		if err != nil {
			continue // the command cannot be run, and says why
		}
		lease, err := s.env.Launcher.Lease(kind.ID(s.worker))
		if err == nil {
			err = lease.Unlock() // nothing is left of it if the master dies before it begins
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", kind.Key(), err), lease.Close())
			continue
		}
		s.runs.plan(hookRun{lease: lease, HookRun: records.HookRun{Hook: string(kind), Instance: records.Instance{
			Token: launcher.NewToken(),
			Process: identity.Process{
				BootID: s.env.BootID, PIDNamespace: s.env.Recovery.PIDNamespace,
				StartTicks: process.StartTicks(s.env.BootTime()),
			},
			Lease: lease.ID(),
			UID:   rights.Account.UID,
		}}})
	}
	return errors.Join(errs...)
}

// hook is a command of one moment, ready to be run by a helper.
type hook struct {
	*hooks
	kind unit.Hook
	unit *unit.Spec
	port int
	more []string // further environment variables

	intend func(context.Context) // has the run recorded, unless it is; may be nil
}

// of returns the command of the unit. port is that of the instance, 0 if it has none.
func (s *hooks) of(u *unit.Spec, kind unit.Hook, port int, more ...string) hook {
	return hook{hooks: s, kind: kind, unit: u, port: port, more: more}
}

// none reports whether the unit has no such command.
func (h hook) none() bool { return len(h.unit.Command(h.kind)) == 0 }

// sweep kills what earlier runs of all hooks have left. Until it succeeds, the worker must neither run a command nor
// start.
func (h hook) sweep(ctx context.Context) error {
	if h.unknown.Load() && h.unit.HasHooks() {
		commands, err := h.env.Recovery.Commands(ctx, h.worker)
		if err != nil {
			return err
		}
		h.take(commands)
		h.unknown.Store(false)
	}
	var errs []error
	for _, run := range h.runs.remaining() {
		if err := h.kill(ctx, run); err != nil {
			errs = append(errs, err)
		} else {
			h.runs.gone(func(r records.HookRun) bool { return r.Token == run.Token })
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("a command that ran before cannot be killed: %w", err)
	}
	return nil
}

// kill kills the processes of a run.
func (h hook) kill(ctx context.Context, run records.HookRun) error {
	bounded, cancel := context.WithTimeout(ctx, launcher.KillWait)
	defer cancel()
	left, err := h.env.Launcher.Sweep(bounded, unit.Hook(run.Hook).ID(h.worker), run.Instance)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%d processes, the first is %d", len(left), left[0].PID)
	}
	return err
}

// run runs the command, if there is one, and returns why it has failed. What an earlier run has left is killed first.
// The error includes [oneshot.ErrSurvived] if not all of the family could be killed.
func (h hook) run(ctx context.Context, limit time.Duration) error {
	if h.none() {
		return nil
	}
	if err := h.sweep(ctx); err != nil {
		return fmt.Errorf("%s: %w: %w", h.kind.Key(), oneshot.ErrSurvived, err)
	}
	if closed(h.env.Hurry) {
		return fmt.Errorf("%s: %w", h.kind.Key(), errHurry)
	}
	if h.intend != nil {
		h.intend(ctx)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit))
	defer cancel()
	shown := h.kind.Key() + " " + h.unit.Command(h.kind)[0]
	h.shown.Store(&shown)
	h.env.Services.Changed()
	defer h.shown.Store(nil)
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
		Log: h.worker, LogTo: h.unit.Log.To, Hurry: h.env.Hurry,
	}
	if h.kind == unit.BeforeStart {
		c.Patience = min(beforePatience, h.unit.Stop.Grace)
	}
	run := h.runs.begin(h.kind)
	c.Lease = run.lease
	defer func() { _ = run.lease.Close() }() // the command may not have been started
	var ran oneshot.Ran
	err = crashpoint.Do(h.point(), func() (err error) {
		ran, err = h.env.Launcher.Run(ctx, c, h.kind.ID(h.worker), run.Token)
		return err
	})
	if errors.Is(err, oneshot.ErrSurvived) {
		return err
	}
	h.runs.gone(func(r records.HookRun) bool { return r.Token == run.Token })
	switch {
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
	if r.failed = h.run(ctx, h.unit.Stop.Grace); errors.Is(r.failed, oneshot.ErrSurvived) {
		r.err = r.failed
	}
	return r
}

// intent returns a function that has the worker's goroutine record a run of the command before it begins, unless the
// record of the stop has announced it. It returns when that is done, or cannot be done.
func intent(w *owner, kind unit.Hook) func(context.Context) {
	u, incarnation := w.unit, w.rec.Incarnation
	return func(ctx context.Context) {
		if w.hooks.runs.isPlanned(kind) {
			return
		}
		done := make(chan struct{})
		w.post(ctx, message{
			incarnation: incarnation,
			apply: func(ctx context.Context) {
				defer close(done)
				announce(ctx, w, u, kind)
				w.record(ctx)
			},
			discard: func() { close(done) },
		})
		<-done
	}
}

// announce plans the commands of the end of a worker, for its next record. The worker is stopped even if there is no
// space for their leases.
func announce(ctx context.Context, w *owner, u *unit.Spec, kinds ...unit.Hook) {
	if err := w.hooks.plan(u, kinds...); err != nil {
		w.log.WarnContext(ctx, "worker hook has no lease", "error", err)
	}
}

// exitVariables returns the environment variables for the end of the worker, none if its exit is not known.
func exitVariables(e identity.Exit) []string {
	switch {
	case e.Source == identity.ExitUnknown:
		return nil
	case e.Signal != 0:
		return []string{envExitSignal + "=" + identity.SignalName(e.Signal)}
	}
	return []string{envExitCode + "=" + strconv.Itoa(e.Code)}
}

// failedBefore reports whether the reason of a failed worker is its start.before.
func failedBefore(reason string) bool {
	failure := unit.BeforeStart.Key() + ": "
	return strings.HasPrefix(reason, failure) || strings.Contains(reason, ": "+failure)
}
