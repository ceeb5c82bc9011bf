package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// checkRunning returns an error if the installed service has processes of a user other than owner. They may be
// running normally or be left over from a master that died. The next master, running as owner, could neither
// inspect nor terminate them. proc is the mount point of procfs.
func checkRunning(proc string, o deploy.Options, owner account) error {
	if owner.uid == 0 && slices.Contains(o.Rights.Capabilities, "CAP_KILL") {
		return nil // it can stop the workers of each user
	}
	folders, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		cgroups, err := os.ReadFile(filepath.Join(folder, "cgroup"))
		if err != nil || !ofService(cgroups, o.ServiceName()) {
			continue // most probably the process has just ended
		}
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the running service: %w", err)
		}
		_, uid, err := process.UserOf(status)
		if err != nil || int(uid) == owner.uid { // the process is just ending, or belongs to owner
			continue
		}
		return hint(fmt.Errorf("process %s of %s belongs to user %d: a master of user %s (%d) could not stop it",
			filepath.Base(folder), o.ServiceName(), uid, owner.name, owner.uid),
			"stop it first: systemctl stop %s %s (if no master runs: start the service, then stop it)",
			o.SocketName(), o.ServiceName())
	}
	return nil
}

// ofService reports whether a process with these cgroups (/proc/PID/cgroup, cgroups(7)) is in the service's
// cgroup or below it. A service of the same name in a container or under a user's manager does not count: its
// path contains names other than slices.
func ofService(cgroups []byte, service string) bool {
	for line := range strings.Lines(string(cgroups)) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), ":/")
		for name := range strings.SplitSeq(path, "/") {
			if name == service {
				return true
			}
			if !strings.HasSuffix(name, ".slice") {
				break
			}
		}
	}
	return false
}
