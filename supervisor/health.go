package supervisor

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/core-tools/hsu-master/store"
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

// schedulePing arms the next one. The first comes after a part of the interval,
// so that a hundred workers are not asked in the same instant.
func (w *worker) schedulePing() {
	w.pingIn(time.Duration((0.2 + 0.8*w.sup.jitter()) * float64(pingInterval)))
}

func (w *worker) pingIn(d time.Duration) {
	w.due = time.Now().Add(d)
	w.tick.Reset(d)
}

func (w *worker) onTick(ctx context.Context) {
	late := time.Since(w.due) > lateness
	w.pingIn(pingInterval)
	if w.link == nil || w.burying {
		return
	}
	w.credit(ctx)
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
	if r.incarnation != w.rec.Incarnation || w.inst == nil || w.burying || ctx.Err() != nil {
		return
	}
	if r.err == nil && w.state.status == store.StatusUnhealthy {
		r.err = ownPort(w.inst, w.rec.Instance.Port)
	}
	switch {
	case r.err == nil:
		w.step(ctx, event{kind: evPong})
	case w.inst.Suspended():
		w.step(ctx, event{kind: evSuspended, reason: "stopped by a signal: continue it with kill -CONT " + strconv.Itoa(w.rec.Instance.PID)})
	case r.late:
		w.log.Debug("missed ping not counted, the machine is loaded", "error", r.err)
	default:
		w.step(ctx, event{kind: evSilent, reason: fmt.Sprintf("no answer to Ping: %v", r.err)})
	}
}
