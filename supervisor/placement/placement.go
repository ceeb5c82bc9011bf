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

	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// Cgroups are the places for the cgroups of instances. Its methods may be called from any goroutine.
type Cgroups struct {
	scope *scope // nil if this master makes none
	// scoped is the folder that the scope has while it exists, empty if that is not known.
	scoped string
	// own is the delegated cgroup of this master, empty if none is, for the reason notDelegated.
	own          string
	notDelegated string
}

// New returns the places of a master's instances. A warning is logged if one cannot be used.
func New(masterID string, log *slog.Logger) *Cgroups {
	own, err := cgroup.Delegated()
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	c := Below(own, reason)
	c.scoped = scopeFolder(masterID)
	if c.scoped != "" && isService() {
		c.scope = newScope(masterID, c.scoped, log)
	}
	return c
}

// Below returns the places of instances without a scope: a cgroup, or none for the given reason.
func Below(own, notDelegated string) *Cgroups { return &Cgroups{own: own, notDelegated: notDelegated} }

// Find returns the places of the instances of another process, of which only the scope is known.
func Find(masterID string) *Cgroups { return &Cgroups{scoped: scopeFolder(masterID)} }

// scopeFolder returns the folder that the scope of a master has while it exists, empty if that is not known.
func scopeFolder(masterID string) string {
	top, known := top()
	if !known || masterID == "" {
		return ""
	}
	return filepath.Join(top, slice, scopeName(masterID))
}

// Make makes the cgroup of a new instance, with a name that no other instance has, and returns its folder, or an empty
// one if the instance gets none. The caller calls placed when the instance is in it, or has not started.
func (c *Cgroups) Make(name string) (folder string, placed func(), err error) {
	if c.scope != nil {
		folder, placed, ok := c.scope.make(name)
		if ok {
			return folder, placed, nil
		}
	}
	if c.own == "" {
		return "", func() {}, nil
	}
	folder, err = cgroup.Create(c.own, name)
	return folder, func() {}, err
}

// Without returns the reason why Make makes no cgroup outside of a scope, empty if it does.
func (c *Cgroups) Without() string { return c.notDelegated }

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
func Vanished(folder string) bool {
	if folder == "" {
		return false
	}
	_, err := os.Stat(folder)
	return errors.Is(err, os.ErrNotExist)
}
