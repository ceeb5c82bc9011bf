package worker

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// rotateLog has a worker's log rotated by the policy of its unit. The present instance, if there is one, reports whether
// its processes only append to the log. A command of a hook is no member of that family, and may write otherwise.
func rotateLog(w *owner) {
	path, inst, hooks := logs.Path(w.env.LogDir, w.id), w.inst, &w.hooks
	l := rotate.Log{Path: path, Policy: w.unit.Log}
	if inst != nil {
		l.AppendsOnly = func(ctx context.Context) (bool, error) {
			if hooks.running() != "" {
				return false, nil
			}
			return inst.AppendsOnly(ctx, path)
		}
	}
	w.env.Rotator.Put(w.id, l)
}
