package worker

import (
	"context"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/logs"
	"github.com/core-tools/hsu-master/supervisor/logs/rotate"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// rotateLog has a worker's log rotated by the policy of its unit. inst is the present instance, or nil; it reports
// whether its processes only append to the log, and whether they write to one that was deleted.
func rotateLog(e *Env, worker string, u unit.Spec, inst launcher.Instance) {
	path := logs.Path(e.LogDir, worker)
	l := rotate.Log{Path: path, Policy: u.Log}
	if inst != nil {
		l.Lost = func() bool { return inst.OutputLost(path) }
		l.AppendsOnly = func(ctx context.Context) (bool, error) { return inst.AppendsOnly(ctx, path) }
	}
	e.Rotator.Put(worker, l)
}
