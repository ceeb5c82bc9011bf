package launcher

import (
	"fmt"
	"strings"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// confinement is the cgroup of a worker that is being started.
type confinement struct {
	dir     string       // "" means none
	placed  func()       // is called when the worker is in it, or has not started
	confine func() error // sets its limits; nil if there are none
}

// confine creates the cgroup of an instance, if the master may manage cgroups. The error names limits that are required
// and that cannot be enforced.
func (l *osLauncher) confine(worker string, rec records.Instance, limits cgroup.Limits) (c confinement, err error) {
	if c.dir, c.placed, err = l.cgroups.Make(cgroupName(worker, rec)); err != nil {
		return c, err
	}
	limit := func() error {
		unenforced := enforce(c.dir, l.cgroups.Without(), limits)
		if len(unenforced) > 0 && limits.Required {
			return fmt.Errorf("limits.enforce is required: %s", strings.Join(unenforced, "; "))
		}
		return nil
	}
	if c.dir == "" {
		return c, limit()
	}
	if !limits.None() {
		c.confine = limit
	}
	return c, nil
}

// enforce sets the limits of a cgroup and returns those that are not enforced. Without a cgroup these are all, for the
// given reason.
func enforce(dir, noCgroup string, limits cgroup.Limits) []string {
	if dir == "" {
		return limits.Unenforced(noCgroup)
	}
	return cgroup.Apply(dir, limits)
}

// noCgroup returns the reason why an instance with the folder of a cgroup has none, "" if it has one.
func (l *osLauncher) noCgroup(dir string) string {
	switch {
	case dir != "":
		return ""
	case l.cgroups.Without() != "":
		return l.cgroups.Without()
	}
	return "the worker was started without a cgroup that this master manages: restart it"
}

func (f osFamily) Limit(limits cgroup.Limits) (unenforced []string) {
	return enforce(f.Cgroup, f.noCgroup, limits)
}

func (f osFamily) OutOfMemory() string {
	if f.Cgroup == "" {
		return ""
	}
	return cgroup.OutOfMemory(f.Cgroup)
}
