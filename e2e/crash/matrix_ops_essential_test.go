//go:build e2e && crash && linux

package crash

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// An essential worker ends, and the master with it. The next master starts it once, wherever the first is killed.
func operationsOnEssentials() []*operation {
	return []*operation{{
		name: "essential worker ends", file: true, life: 12, mayEnd: allEnd, rest: never,
		restart: "{policy: never}", further: "    essential: true\n", begin: endsForGood,
		// The master can be killed when the worker has closed its port. A worker that ends later is another end, which
		// rightly stops the next master.
		changed: func(r *rig) { _ = r.workers.gone() },
	}}
}

// endsForGood ends one of the workers, in turn, with success. That costs no restart.
func endsForGood(r *rig) error {
	r.turn++
	worker := fmt.Sprintf("worker-%d", r.turn%workersOfATrial)
	leaders := leadersOf(r.workers.scan())[worker]
	if len(leaders) != 1 {
		return fmt.Errorf("end %s: it is %+v", worker, leaders)
	}
	r.workers.ended[leaders[0].token] = true
	r.workers.dying = append(r.workers.dying, leaders[0])
	leaders[0].signal(unix.SIGTERM)
	return nil
}
