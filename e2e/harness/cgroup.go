//go:build e2e && linux

package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// DelegateCgroup creates a cgroup that a master in it may manage, as systemd allows with Delegate=yes. Here the test
// delegates, which only root can, and only if cgroups of version 2 are mounted.
func DelegateCgroup() (string, error) {
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

// HasController reports whether the kernel lets a cgroup of [DelegateCgroup] limit the resource of a controller.
func HasController(name string) bool {
	dir, err := DelegateCgroup()
	if err != nil {
		return false
	}
	defer func() { _ = os.Remove(dir) }()
	controllers, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	return slices.Contains(strings.Fields(string(controllers)), name)
}

// sweepCgroups removes the cgroups of tests that were killed.
func sweepCgroups(mount string) {
	all, _ := filepath.Glob(filepath.Join(mount, "hsu-e2e-*-*"))
	for _, dir := range all {
		pid := strings.Split(filepath.Base(dir), "-")[2]
		if _, err := os.Stat("/proc/" + pid); errors.Is(err, fs.ErrNotExist) {
			below, _ := filepath.Glob(filepath.Join(dir, "*"))
			for _, name := range append(below, dir) {
				_ = os.Remove(name) // a file of a cgroup stays
			}
		}
	}
}

// LeaveCgroup removes a cgroup of [DelegateCgroup] once the processes in it have ended. The master has to remove those
// of its workers: without force, a remaining one is an error.
func LeaveCgroup(dir string, force bool) error {
	left, err := filepath.Glob(filepath.Join(dir, "*-*.*")) // WORKER.TOKEN
	if len(left) > 0 && !force {
		return fmt.Errorf("cgroups are left: %v", left)
	}
	for _, dir := range append(left, filepath.Join(dir, "hsu-master"), dir) {
		err = Poll(func() error {
			if err := os.Remove(dir); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
	}
	return err
}

// StartInCgroup starts a master in a cgroup of [DelegateCgroup]. If an earlier master has enabled controllers there, no
// process may be in it. The master then starts in the one below it into which that master has moved, as with systemd's
// DelegateSubgroup=.
func StartInCgroup(cmd *exec.Cmd, dir string) error {
	if below := filepath.Join(dir, "hsu-master"); isFolder(below) {
		dir = below
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(folder.Fd())
	return errors.Join(cmd.Start(), folder.Close())
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
