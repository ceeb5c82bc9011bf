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
	env    *Env
	worker string
	shown  atomic.Pointer[string] // the running command; nil if none runs

	mu      sync.Mutex
	left    []string // tokens of runs whose processes are not known to be gone
	unknown bool     // no scan has shown yet what an earlier master has left
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

// found takes over the commands that the scan of a recovery has found.
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
	*hooks
	kind unit.Hook
	unit unit.Spec
	port int
	more []string // further environment variables
}

// of returns the command of the unit. port is that of the instance, 0 if it has none.
func (s *hooks) of(u unit.Spec, kind unit.Hook, port int, more ...string) hook {
	return hook{hooks: s, kind: kind, unit: u, port: port, more: more}
}

// none reports whether the unit has no such command.
func (h hook) none() bool { return len(h.unit.Command(h.kind)) == 0 }

// sweep kills what earlier runs of all hooks have left. Until it succeeds, the worker must neither run a command nor
// start.
func (h hook) sweep(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unknown && h.unit.HasHooks() {
		tokens, err := h.env.Recovery.Commands(ctx, h.worker)
		if err != nil {
			return err
		}
		h.left, h.unknown = append(h.left, tokens...), false
	}
	var errs []error
	h.left = slices.DeleteFunc(h.left, func(token string) bool {
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
	token := newToken()
	var ran process.Ran
	err = crashpoint.Do(h.point(), func() (err error) {
		ran, err = h.env.Launcher.Run(ctx, c, h.kind.ID(h.worker), token)
		return err
	})
	switch {
	case errors.Is(err, process.ErrSurvived):
		h.leave(token)
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
