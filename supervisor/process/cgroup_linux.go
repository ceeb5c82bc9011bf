package process

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

// DelegatedCgroup returns the cgroup v2 folder of this process if the process may manage it: the service manager
// has marked the cgroup as delegated (systemd's Delegate=yes sets the attribute user.delegate or trusted.delegate
// to 1) and the folder is writable. Being writable is not enough, because root can write to every cgroup.
func DelegatedCgroup() (dir string, ok bool) {
	dir, err := cgroupOf("self")
	if err != nil || !marked(dir) {
		return "", false
	}
	for _, name := range []string{dir, filepath.Join(dir, "cgroup.procs")} {
		if unix.Faccessat(unix.AT_FDCWD, name, unix.W_OK, unix.AT_EACCESS) != nil {
			return "", false
		}
	}
	return dir, true
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

// CgroupOf returns the folder of a process's cgroup in the v2 hierarchy.
func CgroupOf(pid int) (string, error) { return cgroupOf(strconv.Itoa(pid)) }

func cgroupOf(pid string) (string, error) {
	cgroups, err := os.ReadFile(filepath.Join("/proc", pid, "cgroup"))
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	dir, ok := cgroupFolder(cgroups, mounts)
	if !ok {
		return "", errors.New("no cgroup v2 hierarchy")
	}
	return dir, nil
}

// CreateCgroup makes a cgroup below dir and returns its folder. It returns an error if the cgroup exists already,
// because that one may have members.
func CreateCgroup(dir, name string) (string, error) {
	if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return "", fmt.Errorf("create cgroup %q: %w", name, fs.ErrInvalid)
	}
	path := filepath.Join(dir, name)
	if err := crashpoint.Do(crashpoint.Cgroup, func() error { return os.Mkdir(path, 0o755) }); err != nil {
		return "", fmt.Errorf("create cgroup: %w", err)
	}
	return path, nil
}

// RemoveCgroup removes a cgroup and the cgroups that its members made below it. It returns an error if a process
// lives in one of them, and nil if the cgroup is already gone.
func RemoveCgroup(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := RemoveCgroup(filepath.Join(path, e.Name())); err != nil {
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

// cgroupMembers returns the processes in a cgroup and below it. A cgroup that cannot be read counts as empty.
func cgroupMembers(dir string) []int {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	found := parseMembers(text)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, cgroupMembers(filepath.Join(dir, e.Name()))...)
		}
	}
	return found
}

// writeCgroup writes to a file of a cgroup. The file must exist.
func writeCgroup(dir, name, value string) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}
