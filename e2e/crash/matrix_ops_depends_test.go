//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Operations on units of which one depends on another.

const gateWorker, gatedWorker = gate + "-0", "worker-0"

func operationsWithDependencies() []*operation {
	return []*operation{
		{
			name: "start with dependencies", file: true, gated: true, life: 10, launched: true,
			prepare: bothDead, after: startedInOrder,
		},
		{
			name: "shutdown with dependencies", file: true, gated: true, mayEnd: allEnd,
			begin: signals(syscall.SIGTERM), rest: never, left: stoppedInOrder,
		},
	}
}

func bothDead(r *rig) error {
	return errors.Join(r.masters.kill(), r.workers.end(gateWorker, unix.SIGKILL),
		r.workers.end(gatedWorker, unix.SIGKILL), r.workers.gone())
}

// startedInOrder fails unless the worker was started after the one that it depends on was ready, both since both died.
func startedInOrder(r *rig) error {
	leaders := leadersOf(r.workers.scan())
	first, second := leaders[gateWorker], leaders[gatedWorker]
	if len(first) != 1 || len(second) != 1 {
		return fmt.Errorf("%s is %+v, %s is %+v", gateWorker, first, gatedWorker, second)
	}
	const ticks = 100 // in a second
	least := uint64(gateSettles.Seconds()*ticks) - 1
	if second[0].born < first[0].born+least {
		return fmt.Errorf("%s was started %d ticks after %s, want at least %d",
			gatedWorker, int64(second[0].born-first[0].born), gateWorker, least) //nolint:gosec // a difference of times
	}
	return nil
}

// stoppedInOrder fails if a worker lives and the one that it depends on does not.
func stoppedInOrder(o offline) error {
	leaders := leadersOf(o.living)
	if len(leaders[gatedWorker]) > 0 && len(leaders[gateWorker]) == 0 {
		return fmt.Errorf("%s lives, and %s that it depends on has been stopped", gatedWorker, gateWorker)
	}
	return nil
}
