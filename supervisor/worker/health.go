package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// pingPhases is the number of groups over which the workers' Pings are spread within the interval. All workers of a
// group are pinged at the same instant because waking this program costs more than a Ping (measured: a hundred
// workers pinged one by one take 2% of a processor, in five groups a third of that).
const pingPhases = 5

// pingTimer says when a worker is due for its next Ping.
type pingTimer struct {
	policy  probe.Policy
	phase   time.Time // a time of one of the worker's Pings
	timer   *time.Timer
	due     time.Time // when timer fires
	pending *uint64   // incarnation whose Ping is in flight; nil if there is none
}

// newPingTimer returns the timer of the worker with that number. The phases count from epoch.
func newPingTimer(p probe.Policy, epoch time.Time, number int) pingTimer {
	phase := time.Duration(number%pingPhases) * p.Interval / pingPhases
	return pingTimer{policy: p, phase: epoch.Add(phase), timer: stoppedTimer()}
}

// schedule arms the timer for the next Ping.
func (p *pingTimer) schedule() {
	since := time.Since(p.phase)
	p.due = p.phase.Add((since/p.policy.Interval + 1) * p.policy.Interval)
	p.timer.Reset(time.Until(p.due))
}

// late reports whether the timer has fired too late for a missed Ping to count.
func (p *pingTimer) late() bool { return time.Since(p.due) > p.policy.Lateness }

func (w *owner) onTick(ctx context.Context) {
	late := w.pings.late()
	w.pings.schedule()
	if w.link == nil || w.state.Slot != lifecycle.Occupied {
		return
	}
	for _, kind := range w.state.Earned(lifecycle.PolicyOf(w.unit), w.env.BootTime()) {
		w.step(ctx, lifecycle.Event{Kind: kind})
	}
	w.ping(ctx, pingResult{late: late})
	if w.routes.asked.incarnation == w.rec.Incarnation {
		w.discover(ctx) // retry if there was no answer
	}
}

// pingResult is the answer to a Ping.
type pingResult struct {
	err   error
	late  bool
	extra bool // sent because a connection broke, not on schedule
}

// ping sends the worker a Ping unless one is in flight, and completes the result with its answer.
// The result is late if the Ping itself is sent late.
func (w *owner) ping(ctx context.Context, r pingResult) {
	incarnation, link, health := w.rec.Incarnation, w.link, w.unit.Health
	if p := w.pings.pending; p != nil && *p == incarnation {
		return
	}
	w.pings.pending = &incarnation
	w.helpers.Go(func() {
		asked := time.Now()
		wait, cancel := context.WithTimeout(ctx, health.Timeout)
		r.err = link.Ping(wait)
		cancel()
		r.late = r.late || time.Since(asked) > health.Timeout+health.Lateness
		w.post(ctx, message{
			incarnation: incarnation,
			apply:       func(ctx context.Context) { w.onPong(ctx, r) },
		})
	})
}

// connect starts to use a link. If its connection breaks while the process lives, the listener that the next
// connection reaches must be proven to be the worker before it gets requests.
func (w *owner) connect(ctx context.Context, l Link) {
	watch, cancel := context.WithCancel(ctx)
	w.link, w.unwatch = l, cancel
	incarnation := w.rec.Incarnation
	w.helpers.Go(func() { watchLink(watch, l, func() { w.ConnectionLost(watch, incarnation, nil) }) })
}

// hangUp closes the connection; calls in flight on it fail.
func (w *owner) hangUp() {
	w.unwatch()
	if w.link != nil {
		w.link.Shutdown()
		w.link = nil
	}
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
	w.ping(ctx, pingResult{extra: true})
}

func (w *owner) onPong(ctx context.Context, r pingResult) {
	w.pings.pending = nil
	if !w.state.Running() {
		return
	}
	if !w.state.Ready && w.rec.Instance.Port != 0 { // while it is ready, the relay verifies the owner of each new connection
		port := launcher.CheckPort(w.inst, w.rec.Instance.Port)
		if r.err == nil || errors.Is(port, launcher.ErrForeignPort) {
			r.err = port
		}
	}
	switch {
	case r.err == nil:
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvPong})
	case w.inst.Suspended():
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvSuspended, Reason: launcher.SuspendedReason(w.rec.Instance.PID)})
	case errors.Is(r.err, launcher.ErrForeignPort):
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvStranger, Reason: r.err.Error()})
	case probe.Local(r.err):
		w.log.Debug("missed ping not counted, the master lacks what it takes to connect", "error", r.err)
	case r.late:
		w.log.Debug("missed ping not counted, the machine is loaded", "error", r.err)
	case r.extra:
		// Counted Pings are an interval apart: several broken connections in a moment do not make a worker silent.
		w.log.Debug("missed ping not counted, it followed a lost connection", "error", r.err)
	default:
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvSilent, Reason: silenceReason(w.link, r.err)})
	}
}

// silenceReason returns the reason for a worker that did not answer its probe.
func silenceReason(l Link, err error) string {
	return fmt.Sprintf("no answer to %s: %v", l.Method().Describe(), err)
}
