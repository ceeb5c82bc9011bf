//go:build e2e && crash && linux

package crash

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// Operations of a master that may manage cgroups, as systemd allows with Delegate=yes. Here the test delegates,
// which only root can, and only if cgroups of version 2 are mounted. Otherwise these operations are left out.
func operationsOnCgroups() []*operation {
	dir, err := delegate()
	if err != nil {
		return nil
	}
	_ = os.Remove(dir)
	return []*operation{
		{
			name: "worker crashes, cgroups", cgroups: true, life: 10, habit: withAChild,
			begin: ends(unix.SIGKILL), rest: restarted,
		},
		{
			name: "shutdown, cgroups", cgroups: true, habit: withAChild, mayEnd: allEnd,
			begin: signals(syscall.SIGTERM), rest: never,
		},
	}
}

// delegate creates a cgroup that a master may manage.
func delegate() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		sweepCgroups(fields[1])
		dir, err := os.MkdirTemp(fields[1], fmt.Sprintf("hsu-e2e-%d-", os.Getpid()))
		if err != nil {
			return "", err
		}
		if err := unix.Setxattr(dir, "user.delegate", []byte("1"), 0); err != nil {
			return "", errors.Join(err, os.Remove(dir))
		}
		return dir, nil
	}
	return "", errors.New("no cgroups of version 2")
}

// sweepCgroups removes the cgroups of tests that were killed.
func sweepCgroups(mount string) {
	all, _ := filepath.Glob(filepath.Join(mount, "hsu-e2e-*-*"))
	for _, dir := range all {
		pid := strings.Split(filepath.Base(dir), "-")[2]
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			below, _ := filepath.Glob(filepath.Join(dir, "worker-*"))
			for _, name := range append(below, dir) {
				_ = os.Remove(name)
			}
		}
	}
}

// leaveCgroup removes the rig's cgroup once the processes in it have ended. The master has to remove the groups of
// instances below it: without force, a remaining one is an error.
func (ms *masters) leaveCgroup(force bool) error {
	if ms.cgroup == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(ms.cgroup, "worker-*"))
	if len(left) > 0 && !force {
		return fmt.Errorf("cgroups are left: %v", left)
	}
	for _, dir := range append(left, ms.cgroup) {
		err = harness.Poll(func() error { return os.Remove(dir) })
	}
	return err
}
