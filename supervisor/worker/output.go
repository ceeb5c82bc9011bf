package worker

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// rotateLog has the worker's log rotated by the policy of its unit. The present instance, if there is one, reports
// whether its processes only append to it.
func (w *owner) rotateLog() {
	path := logs.Path(w.env.LogDir, w.id)
	l := rotate.Log{Path: path, Policy: w.unit.Log}
	if inst := w.inst; inst != nil {
		l.AppendsOnly = func(ctx context.Context) (bool, error) { return inst.AppendsOnly(ctx, path) }
	}
	w.env.Rotator.Put(w.id, l)
}
