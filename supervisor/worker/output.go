package worker

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
)

// rotateLog has the worker's log rotated by the policy of its unit. The present instance, if there is one, reports
// whether its processes only append to the log, and whether they write to one that was deleted. A command of a hook is
// no member of that family, and may write otherwise.
func (w *owner) rotateLog() {
	l := rotate.Log{Path: logs.Path(w.env.LogDir, w.id), Policy: w.unit.Log}
	if inst := w.inst; inst != nil {
		l.Lost = func() bool { return inst.OutputLost(l.Path) }
		l.AppendsOnly = appendsOnly(inst, &w.hooks, l.Path)
	}
	w.env.Rotator.Put(w.id, l)
}

func appendsOnly(inst launcher.Instance, hooks *hooks, path string) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		if hooks.running() != "" {
			return false, nil
		}
		return inst.AppendsOnly(ctx, path)
	}
}
