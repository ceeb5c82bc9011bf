package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// killWait bounds how long the kernel may take to end what got SIGKILL.
const killWait = 5 * time.Second

// burial is what ending an instance, or sweeping up after one, came to.
type burial struct {
	exit process.Exit
	gone bool // the process itself has ended
	left []process.Holder
	err  error
}

// bury ends what is left of the instance: after a dead leader its family, and
// where graceful is set the living leader first. The result comes by w.buried.
func (w *worker) bury(ctx context.Context, graceful bool) {
	w.cancel()
	ep := w.endpoint
	w.withdraw()
	w.burying, w.again = true, false
	inst, grace := w.inst, w.unit.StopGrace
	w.helpers.Go(func() {
		if graceful {
			w.terminate(ctx, inst, ep, grace)
		}
		if ctx.Err() != nil {
			return
		}
		w.buried <- entomb(ctx, inst)
	})
}

// terminate gives the worker its grace: to finish requests, then to end itself.
func (w *worker) terminate(ctx context.Context, inst instance, ep *services.Endpoint, grace time.Duration) {
	over := time.NewTimer(grace)
	defer over.Stop()
	if ep != nil {
		// Half of the grace at most, so that SIGTERM leaves the worker time too.
		drain := time.NewTimer(grace / 2)
		defer drain.Stop()
		select {
		case <-ep.Drained():
		case <-drain.C:
		case <-inst.Done():
		case <-w.sup.hurry:
		case <-ctx.Done():
			return
		}
	}
	if err := inst.Terminate(); err != nil && !errors.Is(err, process.ErrGone) {
		w.log.Warn("worker not asked to stop", "error", err)
	}
	done, asked := inst.Done(), false
	for {
		select {
		case <-done:
			// A shell that led the group ends at once; what it has started was asked
			// too and has the same grace. Who has left the group is asked now.
			if !inst.Survived() {
				return
			}
			if !asked {
				asked = true
				if err := inst.TerminateRest(ctx); err != nil {
					w.log.Warn("worker's descendants not asked to stop", "error", err)
				}
			}
			done = closedAfter(descendantsPoll)
		case <-w.sup.hurry:
			return
		case <-over.C:
			w.log.Warn("worker did not stop within its grace, killing it", "grace", grace)
			return
		case <-ctx.Done():
			return
		}
	}
}

// descendantsPoll is how often a family whose leader has ended is looked at.
const descendantsPoll = 20 * time.Millisecond

func closedAfter(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	time.AfterFunc(d, func() { close(c) })
	return c
}

// entomb kills the family and waits, bounded, for the leader to be gone.
func entomb(ctx context.Context, inst instance) burial {
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	var b burial
	b.left, b.err = inst.Kill(ctx)
	select {
	case <-inst.Done():
		b.gone = true
		b.exit = inst.Exit()
	case <-ctx.Done():
	}
	return b
}

func (w *worker) onBurial(ctx context.Context, b burial) {
	w.burying = false
	before := w.leftover
	if w.leftover = leftoverError(b); w.leftover != nil {
		w.blocked()
		if before == nil || before.Error() != w.leftover.Error() {
			w.record(ctx, w.event("leftover", w.leftover.Error()))
		}
		if w.leaving {
			w.done = true
			return
		}
		// Never a second copy beside a first that may still act: ask again.
		w.again = true
		w.retry.Reset(holdInterval)
		return
	}
	reason := describeExit(b.exit)
	if w.state.status == store.StatusStopping && w.state.reason != "" && !strings.HasPrefix(w.state.reason, heldPrefix) {
		reason = w.state.reason
	}
	w.exited(ctx, exitRecord(b.exit), reason, w.away)
}

// blocked puts the worker into the state of one whose end does not come: nobody is
// asked to answer any more, and people are told why.
func (w *worker) blocked() {
	w.hangUp()
	w.tick.Stop()
	w.state.ready = false
	if w.state.status != store.StatusStopping {
		w.state.status, w.state.reason = store.StatusUnhealthy, ""
	}
	if w.state.reason == "" || strings.HasPrefix(w.state.reason, heldPrefix) { // else it says why it stops
		w.state.reason = heldPrefix + w.leftover.Error()
	}
}

func leftoverError(b burial) error {
	switch {
	case b.err != nil:
		return b.err
	case len(b.left) > 0:
		return fmt.Errorf("%d processes of it could not be killed, the first is %d", len(b.left), b.left[0].PID)
	case !b.gone:
		return errors.New("the process does not end, even by SIGKILL")
	}
	return nil
}

// exited lets go of an instance that has ended and decides what follows.
func (w *worker) exited(ctx context.Context, exit store.Exit, reason string, away bool) {
	w.hangUp()
	if w.inst != nil {
		if err := w.inst.Close(); err != nil {
			w.log.Warn("worker not let go of cleanly", "error", err)
		}
		w.inst = nil
	}
	w.away = false
	w.tick.Stop()
	if err := w.sup.opts.Keeper.Drop(w.rec.Instance.Token); err != nil {
		w.log.Debug("worker's handle not dropped", "error", err)
	}
	exit.At = time.Now()
	w.rec.LastExit = &exit
	w.rec.Instance = nil
	w.pending = append(w.pending, w.event("exited", reason))
	w.step(ctx, event{kind: evExited, reason: reason, clean: cleanExit(exit), away: away})
}

// cleanExit tells that an instance is known to have ended with code 0.
func cleanExit(e store.Exit) bool {
	return e.Source != store.ExitUnknown && e.Signal == 0 && e.Code == 0
}
