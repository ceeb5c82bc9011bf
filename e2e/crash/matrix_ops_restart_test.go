//go:build e2e && crash && linux

package crash

import (
	"fmt"
	"maps"

	"github.com/core-tools/hsu-master/api/adminpb"
)

// Operations of an operator: the restart of a unit. It is done or not done as a whole.

func operationsOfRestarts() []*operation {
	restarts := func(name, further string) *operation {
		return &operation{
			name: name, file: true, further: further, life: 12, mayEnd: allEnd,
			begin: func(r *rig) error {
				r.before, r.workers.refilled = maps.Clone(r.workers.ledger), true
				ctx, cancel := brief()
				defer cancel()
				r.agreed = r.admin.act(ctx, &adminpb.ActRequest{
					Verb: "restart", Names: []string{"worker"}, NoWait: true,
				}) == nil
				return nil
			},
			rest: untilReplaced,
			after: func(r *rig) error {
				done := 0
				for id, is := range r.workers.ledger {
					if !is.removed && is.incarnation > r.before[id].incarnation {
						done++
					}
				}
				if done != workersOfATrial && (done > 0 || r.agreed) {
					return fmt.Errorf("%d of %d workers were restarted, a master has agreed to that: %v",
						done, workersOfATrial, r.agreed)
				}
				return nil
			},
		}
	}
	return []*operation{
		restarts("restart of a unit", ""),
		restarts("restart of a unit, start first", "    update: {order: start-first}\n"),
	}
}
