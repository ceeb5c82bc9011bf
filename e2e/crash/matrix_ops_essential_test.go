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
	leaders[0].signal(unix.SIGTERM)
	return nil
}
