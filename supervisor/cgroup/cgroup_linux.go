package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Delegated returns the cgroup that this process may manage: the service manager has marked it as delegated (systemd's
// Delegate=yes sets the attribute user.delegate or trusted.delegate to 1) and the folder is writable. Being writable is
// not enough, because root can write to every cgroup. It is the cgroup of this process, or the parent of that if its
// name is [Master]. The error has the reason and the next step.
func Delegated() (dir string, err error) {
	dir, err = of("self")
	if err != nil {
		return "", err
	}
	if !marked(dir) && filepath.Base(dir) == Master {
		dir = filepath.Dir(dir)
	}
	if !marked(dir) {
		return "", fmt.Errorf("cgroup %s is not delegated to the master: let systemd do that (Delegate=yes)", dir)
	}
	for _, name := range []string{dir, filepath.Join(dir, "cgroup.procs")} {
		if err := unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK, unix.AT_EACCESS); err != nil {
			return "", fmt.Errorf("cgroup %s is delegated to the master, which may not write to it: %w: give the "+
				"folder to ReadWritePaths= of the service", dir, err)
		}
	}
	return dir, nil
}

func marked(dir string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		if n, err := unix.Getxattr(dir, name, value[:]); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// Of returns the folder of a process's cgroup in the v2 hierarchy.
func Of(pid int) (string, error) { return of(strconv.Itoa(pid)) }

func of(pid string) (string, error) {
	cgroups, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dir, ok := folder(cgroups, mounts)
	if !ok {
		return "", errors.New("this host has no cgroups of version 2, or does not show them here: " +
			"mount them at /sys/fs/cgroup")
	}
	return dir, nil
}

// Create makes a cgroup below dir and returns its folder. It returns an error if the cgroup exists already,
// because that one may have members.
func Create(dir, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", fmt.Errorf("create cgroup %q: %w", name, fs.ErrInvalid)
	}
	path := filepath.Join(dir, name)
	if err := crashpoint.Do(crashpoint.Cgroup, func() error { return os.Mkdir(path, 0o755) }); err != nil {
		return "", fmt.Errorf("create cgroup: %w", err)
	}
	return path, nil
}

// Remove removes a cgroup and the cgroups that its members made below it. It returns an error if a process
// lives in one of them, and nil if the cgroup is already gone.
func Remove(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := Remove(filepath.Join(path, e.Name())); err != nil {
				return err
			}
		}
	}
	err = crashpoint.Do(crashpoint.CgroupGone, func() error { return unix.Rmdir(path) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}
	return nil
}

// Members returns the processes in a cgroup and below it. A cgroup that cannot be read counts as empty.
func Members(dir string) []int {
	found, _ := direct(dir)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, Members(filepath.Join(dir, e.Name()))...)
		}
	}
	return found
}

// Kill kills the processes in a cgroup and below it in one operation, so that no fork escapes (Linux 5.14).
func Kill(dir string) error {
	return crashpoint.Do(crashpoint.CgroupKill, func() error { return writeFile(dir, "cgroup.kill", "1") })
}
