package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// Master is the name of the cgroup into which the master is moved from the cgroup that is delegated to it. It can also
// be started there: systemd does so with DelegateSubgroup=hsu-master.
const Master = "hsu-master"

// errService means that no controller is enabled in the cgroup of the master's service.
var errService = errors.New("the master is in its service's own cgroup, where systemd could not start the next " +
	"master while workers live: set DelegateSubgroup=" + Master + " for the service (systemd 254 or later)")

// enabling is held while a controller is enabled: two starts that do so would move the same processes.
var enabling sync.Mutex

// enable lets the cgroups below dir limit the resource of a controller.
func enable(dir, controller string) error {
	enabling.Lock()
	defer enabling.Unlock()
	enabled, err := words(dir, "cgroup.subtree_control")
	if err != nil || slices.Contains(enabled, controller) {
		return err
	}
	available, err := words(dir, "cgroup.controllers")
	if err != nil {
		return err
	}
	if !slices.Contains(available, controller) {
		return fmt.Errorf("%s does not have the controller %s: let systemd delegate it (Delegate=yes), and boot the "+
			"host without cgroups of version 1 (systemd.unified_cgroup_hierarchy=1)", dir, controller)
	}
	if err := vacate(dir); err != nil {
		return err
	}
	err = crashpoint.Do(crashpoint.CgroupEnable, func() error {
		return writeFile(dir, "cgroup.subtree_control", "+"+controller)
	})
	if err != nil {
		return fmt.Errorf("enable the controller %s: %w", controller, err)
	}
	return nil
}

// vacate moves the processes in a cgroup, not those below it, into its cgroup [Master].
func vacate(dir string) error {
	members, err := direct(dir)
	if err != nil || len(members) == 0 {
		return err
	}
	if slices.Contains(members, os.Getpid()) && strings.HasSuffix(dir, ".service") {
		return errService
	}
	to := filepath.Join(dir, Master)
	if err := os.Mkdir(to, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("move the master: %w", err)
	}
	// Processes that are forked meanwhile need another pass. If the last one leaves some, enabling the controller
	// fails, and the next start tries again.
	const passes = 10
	for i := 0; i < passes && len(members) > 0; i++ {
		for _, pid := range members {
			err := crashpoint.Do(crashpoint.CgroupMove, func() error { return Join(to, pid) })
			if err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("move process %d into cgroup %s: %w", pid, to, err)
			}
		}
		if members, err = direct(dir); err != nil {
			return err
		}
	}
	return nil
}

// Join moves a process into a cgroup.
func Join(dir string, pid int) error { return writeFile(dir, "cgroup.procs", strconv.Itoa(pid)) }

// direct returns the processes in a cgroup, without those below it.
func direct(dir string) ([]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	return parseMembers(text), err
}

// words returns the words in a file of a cgroup.
func words(dir, name string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, name))
	return strings.Fields(string(text)), err
}

// writeFile writes to a file of a cgroup. The file must exist.
func writeFile(dir, name, value string) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(value)
	return errors.Join(err, file.Close())
}
