package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/deploy"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/placement"
)

// checkRunning returns an error if the installed service, or one of the scopes of its workers, has processes of a user
// other than owner. They may be running normally or be left over from a master that died. The next master, running as
// owner, could neither inspect nor terminate them. proc is the mount point of procfs.
func checkRunning(proc string, o deploy.Options, scopes []string, owner Account) error {
	if owner.uid == 0 && slices.Contains(o.Rights.Capabilities, "CAP_KILL") {
		return nil // it can stop the workers of each user
	}
	units := append([]string{o.ServiceName()}, scopes...)
	folders, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return err
	}
	for _, folder := range folders {
		cgroups, err := os.ReadFile(filepath.Join(folder, "cgroup"))
		if err != nil || !inUnit(cgroups, units) {
			continue // most probably the process has just ended
		}
		status, err := os.ReadFile(filepath.Join(folder, "status"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the running service: %w", err)
		}
		_, uid, err := procfs.UserOf(status)
		if err != nil || int(uid) == owner.uid { // the process is just ending, or belongs to owner
			continue
		}
		return exit.Hint(fmt.Errorf("process %s of %s belongs to user %d: a master of user %s (%d) could not stop it",
			filepath.Base(folder), o.ServiceName(), uid, owner.name, owner.uid),
			"stop it first: systemctl stop %s %s (if no master runs: start the service, then stop it)",
			o.SocketName(), o.ServiceName())
	}
	return nil
}

// workerScopes returns the names of the scopes that contain workers of a service: they are ordered before it.
func workerScopes(ctx context.Context, service string) ([]string, error) {
	output, err := exec.CommandContext(ctx, "systemctl", "show", "--property=Id,Before", placement.AnyScope).Output()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for the scopes of workers: %w", err)
	}
	return orderedBefore(service, string(output)), nil
}

// orderedBefore returns those units that are ordered before another, of the properties Id and Before that systemctl
// shows. A blank line separates units.
func orderedBefore(other, shown string) (units []string) {
	for block := range strings.SplitSeq(shown, "\n\n") {
		id, before := "", false
		for line := range strings.Lines(block) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
			case "Id":
				id = value
			case "Before":
				before = slices.Contains(strings.Fields(value), other)
			}
		}
		if before {
			units = append(units, id)
		}
	}
	return units
}

// inUnit reports whether a process with these cgroups (/proc/PID/cgroup, cgroups(7)) is in the cgroup of one of the
// units or below it. A unit of the same name in a container or under a user's manager does not count: its path contains
// names other than slices.
func inUnit(cgroups []byte, units []string) bool {
	for line := range strings.Lines(string(cgroups)) {
		_, path, _ := strings.Cut(strings.TrimSpace(line), ":/")
		for name := range strings.SplitSeq(path, "/") {
			if slices.Contains(units, name) {
				return true
			}
			if !strings.HasSuffix(name, ".slice") {
				break
			}
		}
	}
	return false
}
