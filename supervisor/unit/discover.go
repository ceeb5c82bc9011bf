package unit

import (
	"errors"
	"fmt"
)

// Starts reports whether the master starts the workers of the unit.
func (u *Spec) Starts() bool { return u.Kind != Unmanaged }

// Allow lists the acts that are allowed on a process that the master has not started.
type Allow struct {
	Signal, Stop bool
	Restart      bool // by systemd, which must have started it
}

// checkDiscover returns the faults of how a process is found.
func (u *Spec) checkDiscover() (errs []error) {
	if u.Starts() {
		if !u.Discover.IsZero() {
			errs = append(errs, fmt.Errorf("discover: is for units of kind %s", Unmanaged))
		}
		if u.Allow != (Allow{}) {
			errs = append(errs, fmt.Errorf("allow: is for units of kind %s", Unmanaged))
		}
		return errs
	}
	if err := u.Discover.Check(); err != nil {
		errs = append(errs, fmt.Errorf("discover: %w", err))
	}
	if u.Allow.Restart && u.Discover.Systemd == "" {
		errs = append(errs, errors.New("allow: restart needs a systemd unit: only systemd can start the process"))
	}
	if u.Replicas > 1 {
		errs = append(errs, fmt.Errorf("worker count %d: an unmanaged unit is one process", u.Replicas))
	}
	if u.Path != "" {
		errs = append(errs, fmt.Errorf("command %s: an unmanaged unit is not started", u.Path))
	}
	return errs
}
