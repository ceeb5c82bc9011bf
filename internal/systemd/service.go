package systemd

import (
	"os"
	"strconv"
	"strings"
)

// Service is a service of the system's service manager, or of that of a user.
type Service struct {
	Unit string // such as hsu-master.service
	User bool
}

// ServiceOfThisProcess returns the service whose main process this one is, the zero value if there is none. It asks no
// service manager.
func ServiceOfThisProcess() Service {
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Service{}
	}
	return serviceOf(os.Getpid(), os.Getenv("SYSTEMD_EXEC_PID"), string(cgroups))
}

// serviceOf returns the service whose main process has this PID, these cgroups (cgroups(7)) and the given value of
// SYSTEMD_EXEC_PID (systemd.exec(5)). Descendants of the main process inherit the variable, and none has its PID.
func serviceOf(pid int, executed, cgroups string) Service {
	if executed != strconv.Itoa(pid) {
		return Service{}
	}
	for line := range strings.Lines(cgroups) {
		// Version 2, or the hierarchy in which systemd keeps its units under version 1.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] != "" && fields[1] != "name=systemd" {
			continue
		}
		found := Service{}
		for name := range strings.SplitSeq(fields[2], "/") {
			switch {
			case strings.HasPrefix(name, "user@") && strings.HasSuffix(name, ".service"):
				found.User = true
			case strings.HasSuffix(name, ".service"):
				found.Unit = name
			}
			if found.Unit != "" {
				return found
			}
		}
	}
	return Service{}
}
