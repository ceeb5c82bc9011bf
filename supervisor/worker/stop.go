package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// stop drains the worker and terminates it with its family.
func (w *owner) stop(ctx context.Context) {
	instance := w.rec.Instance
	e := ending{
		inst: w.inst, endpoint: w.routes.endpoint, signal: w.unit.Stop.Signal, grace: w.unit.Stop.Grace,
		hurry: w.env.Hurry, log: w.log, drained: func() {
			w.draining.Store(false)
			w.env.Services.Changed()
		},
		command: w.hooks.of(w.unit, unit.AtStop, instance.Port, envWorkerPID+"="+strconv.Itoa(instance.PID)),
		failed: func(ctx context.Context, err error) {
			w.post(ctx, message{incarnation: anyInstance, apply: func(context.Context) {
				w.journal.add(w.event(eventHookFailed, err.Error()))
			}})
		},
	}
	w.routes.withdraw()
	w.end(ctx, e.terminate)
}

// end starts a helper that lets first run, then kills the rest of the instance, and then has stop.after run. The
// result goes to onEnded.
func (w *owner) end(ctx context.Context, first func(context.Context)) {
	w.startup.end()
	w.stopChecks()
	inst, gone, incarnation := w.inst, w.absent, w.rec.Incarnation
	after := w.hooks.of(w.unit, unit.AfterEnd, w.rec.Instance.Port)
	after.intend = intent(w, unit.AfterEnd)
	early := w.early()
	w.helpers.Go(func() {
		if first(ctx); ctx.Err() != nil {
			return
		}
		var result endResult
		if gone != nil {
			result = endResult{gone: true, exit: gone.exit}
		} else {
			backgrounded := early && launcher.HasEnded(inst) && inst.Exit().Clean() && inst.Outlived(ctx)
			result = killInstance(ctx, inst)
			result.backgrounded = backgrounded
			result.exit.At, result.at = time.Now(), after.env.BootTime()
		}
		result = after.conclude(ctx, result)
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.onEnded(ctx, result) },
		})
	})
}

// backgroundWithin is how long after its start a program is expected to go to the background, if it does.
const backgroundWithin = 10 * time.Second

// early reports whether the process ends by itself before it was ready, or soon after its start. A run of a schedule is
// expected to end.
func (w *owner) early() bool {
	return w.unit.Schedule.Cron == "" && w.state.Status != records.StatusStopping && w.rec.Instance != nil &&
		(w.state.Status == records.StatusStarting || time.Since(w.rec.Instance.Started) < backgroundWithin)
}

// ending is an orderly stop of a living worker.
type ending struct {
	inst     launcher.Instance
	endpoint *services.Endpoint // withdrawn, with calls in flight; nil if the worker got no calls
	signal   syscall.Signal
	grace    time.Duration
	hurry    <-chan struct{} // closed to cut the grace short
	log      *slog.Logger
	drained  func() // is called when no more calls are awaited
	command  hook   // stop.command
	failed   func(context.Context, error)
}

// terminate gives the worker its grace: to finish requests, to be stopped by its command, then to exit.
func (e ending) terminate(ctx context.Context) {
	signal := time.Now().Add(e.grace - e.grace/signalShare)
	over := time.NewTimer(e.grace)
	defer over.Stop()
	if e.endpoint != nil {
		// Half of the grace at most, to leave the worker time after SIGTERM.
		drain := time.NewTimer(e.grace / 2)
		defer drain.Stop()
		select {
		case <-e.endpoint.Drained():
		case <-drain.C:
		case <-e.inst.Done():
		case <-e.hurry:
		case <-ctx.Done():
			return
		}
		e.drained()
	}
	if err := e.command.run(ctx, time.Until(signal).Round(time.Millisecond)); ctx.Err() != nil {
		return
	} else if err != nil {
		e.failed(ctx, err)
	}
	if err := e.inst.Terminate(e.signal); err != nil && !errors.Is(err, process.ErrGone) {
		e.log.Warn("worker not signaled", "error", err)
	}
	done, asked := e.inst.Done(), false
	for {
		select {
		case <-done:
			// A shell that led the group ends at once; the processes that it started got the signal too and have the
			// same grace. Descendants that have left the group get SIGTERM now.
			if !e.inst.Survived() {
				return
			}
			if !asked {
				asked = true
				if err := e.inst.TerminateRest(ctx); err != nil {
					e.log.Warn("worker descendants not signaled", "error", err)
				}
			}
			done = closedAfter(descendantsPoll)
		case <-e.hurry:
			return
		case <-over.C:
			e.log.Warn("worker stop timed out", "grace", e.grace)
			return
		case <-ctx.Done():
			return
		}
	}
}

// descendantsPoll is the interval of checks for living descendants after the leader has ended.
const descendantsPoll = 20 * time.Millisecond

func closedAfter(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// endResult is the result of killing an instance with its family.
type endResult struct {
	exit identity.Exit
	gone bool             // the process itself has ended
	oom  string           // processes that the kernel has killed because memory ran out
	left []process.Holder // members that still live
	// backgrounded is set if the process ended by itself early, with code 0, and other members lived on.
	backgrounded bool
	err          error

	at     time.Duration // when it ended, as CLOCK_BOOTTIME; 0 if it was found gone
	failed error         // why stop.after failed
}

// killInstance kills the family and waits up to [launcher.KillWait] until its process has ended.
func killInstance(ctx context.Context, inst launcher.Instance) endResult {
	ctx, cancel := context.WithTimeout(ctx, launcher.KillWait)
	defer cancel()
	r := endResult{oom: inst.OutOfMemory()}
	r.left, r.err = inst.Kill(ctx)
	select {
	case <-inst.Done():
		r.gone = true
		r.exit = inst.Exit()
	case <-ctx.Done():
	}
	return r
}

// onEnded handles the end of the instance, or what remains of it.
func (w *owner) onEnded(ctx context.Context, r endResult) {
	before := w.leftover
	if w.leftover = r.leftover(); w.leftover != nil {
		w.hangUp()
		if before == nil || before.Error() != w.leftover.Error() {
			w.journal.add(w.event(eventLeftover, w.leftover.Error()))
		}
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvRemains, Reason: w.leftover.Error()})
		return
	}
	if r.failed != nil {
		w.journal.add(w.event(eventHookFailed, r.failed.Error()))
	}
	if gone := w.absent; gone != nil {
		w.exited(ctx, gone.exit, gone.event)
		return
	}
	succeeded := w.unit.Restart.Succeeded(r.exit)
	reason := r.exit.String()
	if r.backgrounded {
		reason += lifecycle.Backgrounded
	}
	if r.oom != "" && !succeeded {
		reason += ": " + r.oom
	}
	if w.state.Status == records.StatusStopping && w.state.Reason != "" &&
		!strings.HasPrefix(w.state.Reason, lifecycle.HeldPrefix) {
		reason = w.state.Reason
	}
	w.exited(ctx, r.exit, lifecycle.Event{
		Kind: lifecycle.EvExited, Reason: reason, Clean: succeeded, Ended: r.at,
	})
}

// leftover returns what remains of the instance as an error, or nil if nothing does.
func (r endResult) leftover() error {
	switch {
	case r.err != nil:
		return r.err
	case len(r.left) > 0:
		return fmt.Errorf("%d processes of it could not be killed, the first is %d", len(r.left), r.left[0].PID)
	case !r.gone:
		return errors.New("the process does not end, even by SIGKILL")
	}
	return nil
}

// exited releases an instance that has ended, and passes the event of its end to [lifecycle.Next].
func (w *owner) exited(ctx context.Context, exit identity.Exit, e lifecycle.Event) {
	w.hangUp()
	if w.inst != nil {
		if err := w.inst.Close(); err != nil {
			w.log.Warn("worker handle not released", "error", err)
		}
		w.inst = nil
		w.limits.end()
	}
	if err := w.env.Keeper.Drop(w.rec.Instance.Token); err != nil {
		w.log.Debug("worker handle not dropped", "error", err)
	}
	e.Ours = w.notices.blameless // the next start is known to have a socket from its begin
	w.notices.drop(w)
	w.absent = nil
	w.hooks.runs.drop()
	w.rec.Instance = nil
	w.rec.Outdated = w.rec.Outdated && w.unit.Schedule.Cron == "" // the next run is of the present version
	if !e.CutOff {
		if exit.At.IsZero() {
			exit.At = time.Now()
		}
		w.rec.Ended(exit, causeOf(w.state, e.Reason))
		w.journal.add(w.event(eventExited, e.Reason))
	}
	e.Ours = w.shutOut() || e.Ours
	w.step(ctx, e)
}

// causeOf returns the cause of an exit for the list of past ones. A stop without a reason of its own is that of the
// master, and its signal must not be taken for one that another program sent.
func causeOf(s lifecycle.State, reason string) string {
	if s.Status == records.StatusStopping && (s.Reason == "" || strings.HasPrefix(s.Reason, lifecycle.HeldPrefix)) {
		return "hsu-master stopped it"
	}
	return reason
}

// shutOut reports whether a worker ended because the master had its port reserved. The next start releases the
// reservation first.
func (w *owner) shutOut() bool {
	if w.state.Status != records.StatusStarting || w.startup.opened() || !w.env.Ports.Refused(w.unit.Name, w.id) {
		return false
	}
	w.log.Debug("worker port reservation dropped")
	return foundPortInUse(w.output.tail())
}

// foundPortInUse reports whether a program's output contains the "address in use" error of a common language
// runtime.
func foundPortInUse(output []string) bool {
	text := strings.ToLower(strings.Join(output, "\n"))
	return slices.ContainsFunc([]string{"address already in use", "eaddrinuse", "errno 98", "os error 98"},
		func(s string) bool {
			return strings.Contains(text, s)
		})
}
