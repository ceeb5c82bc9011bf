//go:build e2e && crash && linux

package crash

import "golang.org/x/sys/unix"

// Operations on workers that say themselves that they are ready, and that they live.

// byNotify allows many missed checks: a killed master may be replaced late on a loaded machine.
const byNotify = "    health: {type: notify, interval: 200ms, failures: 50}\n"

func operationsWithNotifications() []*operation {
	return []*operation{
		{
			name: "worker crashes, with notifications", file: true, further: byNotify, life: 10, habit: "telling",
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "recovery of dead ones, with notifications", file: true, further: byNotify, life: 10,
			launched: true, habit: "telling", prepare: allDead,
		},
	}
}
