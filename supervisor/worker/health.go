package worker

import (
	"context"
	"errors"

	"google.golang.org/grpc/connectivity"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// connect starts to use a link. If its connection breaks while the process lives, the listener that the next
// connection reaches must be proven to be the worker before it gets requests.
func (w *owner) connect(ctx context.Context, l Link) {
	watch, cancel := context.WithCancel(ctx)
	w.open(l, cancel)
	incarnation := w.rec.Incarnation
	w.helpers.Go(func() { watchLink(watch, l, func() { w.ConnectionLost(watch, incarnation, nil) }) })
	w.startChecks()
}

// relink connects to a running worker that needed no connection until now. It gets calls when it is proven to own its
// port.
func (w *owner) relink(ctx context.Context) {
	l, err := w.subject().dial()
	if err != nil {
		w.log.Error("worker not connected", "error", err)
		return
	}
	w.hangUp()
	w.connect(ctx, l)
	w.onLost(ctx, nil)
}

// watchLink calls broken each time that the connection breaks, until ctx ends. hsu-core does not promise that its
// connection exposes its state; if it does not, only Pings detect the break.
func watchLink(ctx context.Context, l Link, broken func()) {
	conn, ok := l.GRPC().(interface {
		GetState() connectivity.State
		WaitForStateChange(ctx context.Context, from connectivity.State) bool
	})
	if !ok {
		return
	}
	for state := conn.GetState(); state != connectivity.Shutdown; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
		if state == connectivity.Ready {
			broken()
		}
	}
}

// ConnectionLost has the owner of the worker's port verified again. stranger is set if a gateway connection led to
// another process, and nil if the worker's own connection broke.
func (w *Worker) ConnectionLost(ctx context.Context, incarnation uint64, stranger error) {
	w.post(ctx, message{
		incarnation: incarnation,
		apply:       func(ctx context.Context) { w.owner.onLost(ctx, stranger) },
	})
}

func (w *owner) onLost(ctx context.Context, stranger error) {
	if w.state.Slot != lifecycle.Occupied || w.link == nil || launcher.HasEnded(w.inst) { // its end explains the break
		return
	}
	if stranger != nil {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStranger, Reason: stranger.Error()})
	} else {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvLost})
	}
	if len(w.checks) > 0 { // none if the worker is being stopped for the stranger
		w.checks[0].Now() // decides about calls
	}
}

// onChecked applies the result of a check.
func (w *owner) onChecked(ctx context.Context, c check, r probe.Result, s silence) {
	if !w.state.Running() || w.link == nil {
		return
	}
	if passed := r.Err == nil; passed && w.calm.lasts() && shown(w) {
		c.Pace(0)
		w.calm.settle()
	} else if w.onPong(ctx, c, r, s); passed && settled(w) {
		w.calm.settle()
	}
	if w.routes.asked.incarnation == w.rec.Incarnation {
		w.discover(ctx) // retry if there was no answer
	}
}

func (w *owner) onPong(ctx context.Context, c check, r probe.Result, s silence) {
	for _, kind := range w.state.Earned(lifecycle.PolicyOf(w.unit), w.env.BootTime()) {
		w.step(ctx, lifecycle.Event{Kind: kind})
	}
	// While the worker is ready, the relay verifies the owner of each new connection.
	if !w.state.Ready && w.rec.Instance.Port != 0 && c.use != useLiveness {
		port := launcher.CheckPort(w.inst, w.rec.Instance.Port)
		if r.Err == nil || errors.Is(port, launcher.ErrForeignPort) {
			r.Err = port
		}
	}
	first := w.unasked && c.use != useLiveness
	// A suspended worker misses liveness, and passes a check of readiness that does not need it.
	suspended := (r.Err != nil || !w.state.Ready && c.use == useReadiness) && w.inst.Suspended()
	switch {
	case suspended:
		c.Pace(0)
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvSuspended, Reason: launcher.SuspendedReason(w.rec.Instance.PID)})
	case r.Err == nil:
		c.Pace(0)
		if first {
			w.unasked = false
		}
		w.step(ctx, lifecycle.Event{Kind: c.use.passed()})
	case errors.Is(r.Err, launcher.ErrForeignPort):
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStranger, Reason: r.Err.Error()})
	case errors.Is(r.Err, probe.ErrUndecided): // neither passed nor missed
	case probe.Local(r.Err):
		w.log.Debug("missed ping ignored", "reason", "the master lacks a resource to connect", "error", r.Err)
	case r.Late:
		w.log.Debug("missed ping ignored", "reason", "the machine is overloaded", "error", r.Err)
	case r.Extra && !first:
		// Counted Pings are an interval apart: several broken connections in a moment do not make a worker silent.
		w.log.Debug("missed ping ignored", "reason", "the connection was lost", "error", r.Err)
	default:
		if first {
			w.unasked = false
		}
		w.onMissed(ctx, c, r.Err, s, first)
	}
}

// onMissed handles a check that the worker has failed, the first one since it was adopted or a later one.
func (w *owner) onMissed(ctx context.Context, c check, err error, s silence, first bool) {
	if c.spec.Type != probe.TypeNotify { // asking sooner brings no other answer
		c.Pace(silencePace)
	}
	reason := c.failure(err, s, w.unit.Health.BusyLimit)
	w.step(ctx, lifecycle.Event{Kind: c.use.missed(), Reason: reason, Busy: s.busy, Silent: s.lasts, First: first})
	if w.state.Status == records.StatusUnhealthy {
		w.silent = reason // changes from check to check, which is not worth a commit
		w.publish()
	}
}
