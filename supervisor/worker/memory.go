package worker

import (
	"context"
	"fmt"

	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Outgrown has the worker stopped and started again because the family of the instance with the token uses more memory
// than its unit allows. It reports whether the stop has begun. A process that a signal has stopped does not grow, and
// is kept for its inspection.
func (w *Worker) Outgrown(ctx context.Context, token string, resident int64) (begun bool, err error) {
	return command(ctx, w, func(ctx context.Context) bool {
		o := w.owner
		limit := o.unit.MemoryRestart
		switch {
		case limit == 0 || resident <= limit:
			return false
		case !o.state.Running() || o.rec.Instance.Token != token || o.inst.Suspended():
			return false
		}
		e := lifecycle.Event{
			Kind:   lifecycle.EvMemory,
			Reason: fmt.Sprintf("memory %s is above memory_restart %s", unit.SizeText(resident), unit.SizeText(limit)),
		}
		policy := lifecycle.PolicyOf(o.unit)
		if _, act := lifecycle.Next(o.state, e, policy, o.env.BootTime()); act != lifecycle.ActStop {
			return false
		}
		o.journal.add(o.event(eventMemory, e.Reason))
		o.step(ctx, e)
		return true
	})
}
