package placement

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// slice is the parent of the scopes of all masters of a host, where an administrator sets limits for their workers.
const slice = "hsu.slice"

// managerSocket is where systemd takes calls of root without a D-Bus daemon.
const managerSocket = "/run/systemd/private"

// AnyScope is the pattern of the names of all masters' scopes.
const AnyScope = "hsu-workers-*.scope"

func scopeName(masterID string) string { return strings.Replace(AnyScope, "*", masterID, 1) }

// top returns the folder of the cgroup at the top of systemd's hierarchy, and whether PID 1 is a systemd.
func top() (folder string, known bool) {
	init, err := cgroup.Of(1)
	if err != nil || filepath.Base(init) != "init.scope" {
		return "", false
	}
	return filepath.Dir(init), true
}

// isService reports whether this process is in a service of the system's systemd, as root.
func isService() bool {
	if os.Geteuid() != 0 {
		return false
	}
	if info, err := os.Stat(managerSocket); err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	return err == nil && inService(string(text))
}

// inService reports whether a process with these cgroups (cgroups(7)) is in a service of the system: the first name of
// its path that is no slice is that of its unit. The services of a user are in that user's one.
func inService(cgroups string) bool {
	for line := range strings.Lines(cgroups) {
		path, found := strings.CutPrefix(strings.TrimSpace(line), "0::/")
		if !found {
			continue
		}
		for name := range strings.SplitSeq(path, "/") {
			if !strings.HasSuffix(name, ".slice") {
				return strings.HasSuffix(name, ".service") && !strings.HasPrefix(name, "user@")
			}
		}
	}
	return false
}
