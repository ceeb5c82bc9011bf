package supervisor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/connectivity"
)

const (
	pingInterval = 5 * time.Second
	pingTimeout  = 2 * time.Second
	// A timer that fires this late tells of a loaded machine: what was missed
	// then says nothing about the worker.
	lateness = 500 * time.Millisecond
)

type pingResult struct {
	incarnation uint64
	err         error
	late        bool
}

// pingPhases spread the workers over the interval. Those of a phase are asked in
// the same instant: what costs is to wake this program, not to ask (measured: a
// hundred workers asked one by one take 2% of a processor, in five groups a third).
const pingPhases = 5

// schedulePing arms the next one.
func (w *worker) schedulePing() {
	phase := time.Duration(w.number%pingPhases) * pingInterval / pingPhases
	since := time.Since(w.sup.epoch) - phase
	w.due = w.sup.epoch.Add(phase + (since/pingInterval+1)*pingInterval)
	w.tick.Reset(time.Until(w.due))
}

func (w *worker) onTick(ctx context.Context) {
	late := time.Since(w.due) > lateness
	w.schedulePing()
	if w.link == nil || w.burying {
		return
	}
	w.credit(ctx)
	w.ping(ctx, late)
	if w.asked.incarnation == w.rec.Incarnation {
		w.discover(ctx) // again, where there was no answer
	}
}

// ping asks the worker, unless a question is under way. late tells that the
// question itself comes late.
func (w *worker) ping(ctx context.Context, late bool) {
	if w.pinging {
		return
	}
	w.pinging = true
	incarnation, link := w.rec.Incarnation, w.link
	w.helpers.Go(func() {
		asked := time.Now()
		wait, cancel := context.WithTimeout(ctx, pingTimeout)
		err := link.Ping(wait)
		cancel()
		late := late || time.Since(asked) > pingTimeout+lateness
		// Room for one, and only one Ping is under way.
		w.pongs <- pingResult{incarnation: incarnation, err: err, late: late}
	})
}

// watchLink tells the worker's goroutine when the connection breaks while the
// process lives: whoever listens on the port by the time it is made again must
// prove that it is the worker before it gets requests. hsu-core does not promise
// that its connection tells its state; where it does not, only Pings do.
func (w *worker) watchLink(ctx context.Context) {
	conn, ok := w.link.GRPC().(interface {
		GetState() connectivity.State
		WaitForStateChange(ctx context.Context, from connectivity.State) bool
	})
	if !ok {
		return
	}
	incarnation := w.rec.Incarnation
	watch, cancel := context.WithCancel(ctx)
	w.unwatch()
	w.unwatch = cancel
	w.helpers.Go(func() {
		for state := conn.GetState(); state != connectivity.Shutdown; state = conn.GetState() {
			if !conn.WaitForStateChange(watch, state) {
				return
			}
			if state == connectivity.Ready {
				select {
				case w.lost <- incarnation:
				case <-watch.Done():
					return
				}
			}
		}
	})
}

func (w *worker) onLost(ctx context.Context, incarnation uint64) {
	if incarnation != w.rec.Incarnation || w.burying || w.link == nil {
		return
	}
	select {
	case <-w.inst.Done():
		return // of course it broke
	default:
	}
	w.step(ctx, event{kind: evLost})
	w.ping(ctx, false)
}

// credit gives a worker that has been ready for long its first backoff and its
// whole budget back.
func (w *worker) credit(ctx context.Context) {
	budget := w.state.budget
	if !w.state.ready || budget.ReadySince == 0 {
		return
	}
	ready := w.sup.bootTime() - budget.ReadySince
	if ready >= backoffResetAfter && budget.Backoff != 0 {
		w.step(ctx, event{kind: evSteady})
	}
	if ready >= w.unit.Restart.Budget.Window && len(budget.Spent) > 0 {
		w.step(ctx, event{kind: evSettled})
	}
}

func (w *worker) onPong(ctx context.Context, r pingResult) {
	w.pinging = false
	if r.incarnation != w.rec.Incarnation || w.inst == nil || w.burying || w.again || ctx.Err() != nil {
		return
	}
	if r.err == nil && !w.state.ready {
		r.err = ownPort(w.inst, w.rec.Instance.Port)
	}
	switch {
	case r.err == nil:
		w.step(ctx, event{kind: evPong})
	case w.inst.Suspended():
		w.step(ctx, event{kind: evSuspended, reason: suspendedReason(w.rec.Instance.PID)})
	case outOfReach(r.err):
		w.log.Debug("missed ping not counted, the master lacks what it takes to connect", "error", r.err)
	case r.late:
		w.log.Debug("missed ping not counted, the machine is loaded", "error", r.err)
	default:
		w.step(ctx, event{kind: evSilent, reason: fmt.Sprintf("no answer to Ping: %v", r.err)})
	}
}

func suspendedReason(pid int) string {
	return "stopped by a signal: continue it with kill -CONT " + strconv.Itoa(pid)
}

// outOfReach tells that a Ping failed because this master could not even open a
// connection: nothing is known of the worker then. gRPC gives the reason as text only.
func outOfReach(err error) bool {
	text := err.Error()
	return strings.Contains(text, "while dialing") && slices.ContainsFunc(ownFaults, func(own syscall.Errno) bool {
		return strings.HasSuffix(strings.TrimRight(text, `"`), own.Error())
	})
}
