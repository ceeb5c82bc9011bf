//go:build e2e && crash && linux

package crash

import "golang.org/x/sys/unix"

// Operations on workers whose unit has hooks.

func operationsWithHooks() []*operation {
	return []*operation{
		{
			name: "worker crashes, with hooks", file: true, hooks: true, life: 10,
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "replaced, with hooks", file: true, hooks: true, life: 12, mayEnd: allEnd,
			begin: reloadsAnotherCommand, rest: untilReplaced,
		},
	}
}
