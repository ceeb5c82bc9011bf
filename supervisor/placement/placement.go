// Package placement decides in which cgroup the processes of workers start, and finds their cgroups again.
//
// A master of root that is the main process of a systemd service puts them into a transient scope, in which systemd
// leaves them alone whatever happens to the service: see [scope]. If there is no scope, they start below the master's
// own cgroup if that is delegated, and otherwise in it.
package placement

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/supervisor/process"
)

// Cgroups are the places for the cgroups of instances. Its methods may be called from any goroutine.
type Cgroups struct {
	scope *scope // nil if this master makes none
	// scoped is the folder that the scope has while it exists, empty if that is not known.
	scoped string
	// own is the delegated cgroup of this master, empty if none is.
	own string
}

// New returns the places of a master's instances. A warning is logged if one cannot be used.
func New(masterID string, log *slog.Logger) *Cgroups {
	c := Find(masterID)
	if dir, delegated := process.DelegatedCgroup(); delegated {
		c.own = dir
	}
	if c.scoped != "" && isService() {
		c.scope = newScope(masterID, c.scoped, log)
	}
	return c
}

// Find returns the places of the instances of another process, of which only the scope is known.
func Find(masterID string) *Cgroups {
	c := &Cgroups{}
	if top, known := top(); known && masterID != "" {
		c.scoped = filepath.Join(top, slice, scopeName(masterID))
	}
	return c
}

// Make makes the cgroup of a new instance, with a name that no other instance has, and returns its folder, or an empty
// one if the instance gets none. The caller calls placed when the instance is in it, or has not started.
func (c *Cgroups) Make(name string) (cgroup string, placed func(), err error) {
	if c.scope != nil {
		cgroup, placed, ok := c.scope.make(name)
		if ok {
			return cgroup, placed, nil
		}
	}
	if c.own == "" {
		return "", func() {}, nil
	}
	cgroup, err = process.CreateCgroup(c.own, name)
	return cgroup, func() {}, err
}

// Of returns the folder of an instance's cgroup, empty if it has none.
func (c *Cgroups) Of(name string) string {
	for _, parent := range []string{c.scoped, c.own} {
		if parent == "" {
			continue
		}
		path := filepath.Join(parent, name)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			return path
		}
	}
	return ""
}

// Scope returns the name of the scope, empty if it does not exist.
func (c *Cgroups) Scope() string {
	if _, err := os.Stat(c.scoped); err != nil {
		return ""
	}
	return filepath.Base(c.scoped)
}

// Vanished reports whether a cgroup that Make has returned does not exist any more, because the scope has ended.
func Vanished(cgroup string) bool {
	if cgroup == "" {
		return false
	}
	_, err := os.Stat(cgroup)
	return errors.Is(err, os.ErrNotExist)
}
