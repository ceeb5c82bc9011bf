//go:build e2e && crash && linux

package crash

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Operations of a master that may manage cgroups. They are left out if the test cannot delegate one: see
// [harness.DelegateCgroup].
func operationsOnCgroups() []*operation {
	dir, err := harness.DelegateCgroup()
	if err != nil {
		return nil
	}
	_ = os.Remove(dir)
	const bounded = "    limits: {memory: 512MiB, cpu: 2, pids: 500, enforce: required}\n"
	ops := []*operation{
		{
			name: "worker crashes, cgroups", cgroups: true, life: 10, habit: withAChild,
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "shutdown, cgroups", cgroups: true, habit: withAChild, mayEnd: allEnd,
			begin: signals(syscall.SIGTERM), rest: never,
		},
	}
	if harness.HasController("pids") {
		ops = append(ops, &operation{
			name: "first start, limits of cgroups", fresh: true, file: true, further: bounded, cgroups: true,
			launched: true,
		})
	}
	return ops
}

// leaveCgroup removes the rig's cgroup.
func (ms *masters) leaveCgroup(force bool) error {
	if ms.cgroup == "" {
		return nil
	}
	return harness.LeaveCgroup(ms.cgroup, force)
}
