//go:build !linux

package cgroup

import (
	"errors"
	"fmt"
)

// Delegated returns the cgroup that this process may manage.
func Delegated() (dir string, err error) { return "", unsupported("use cgroups") }

// Of returns the folder of a process's cgroup.
func Of(int) (string, error) { return "", unsupported("find a cgroup") }

// Create makes a cgroup below dir.
func Create(string, string) (string, error) { return "", unsupported("create a cgroup") }

// Remove removes an empty cgroup.
func Remove(string) error { return unsupported("remove a cgroup") }

func unsupported(what string) error {
	return fmt.Errorf("%s: %w on this system", what, errors.ErrUnsupported)
}
