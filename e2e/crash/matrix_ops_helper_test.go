//go:build e2e && crash && linux

package crash

import "golang.org/x/sys/unix"

// Operations on workers with a umask and limits, which start by a helper: a master can be killed between the fork and
// the execution of the program.

const limited = "    umask: \"0027\"\n    limits: {open_files: 1000, core: 0}\n"

func operationsWithHelpers() []*operation {
	return []*operation{
		{
			name: "worker crashes, start helper", file: true, further: limited, life: 10, habit: withAChild,
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "recovery of dead ones, start helper", file: true, further: limited, life: 10, launched: true,
			prepare: allDead,
		},
	}
}
