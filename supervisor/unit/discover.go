package unit

import "fmt"

// Starts reports whether the master starts the workers of the unit.
func (u Spec) Starts() bool { return u.Kind != Unmanaged }

// checkDiscover returns the faults of how a process is found.
func (u Spec) checkDiscover() (errs []error) {
	if u.Starts() {
		if !u.Discover.IsZero() {
			errs = append(errs, fmt.Errorf("discover: is for units of kind %s", Unmanaged))
		}
		return errs
	}
	if err := u.Discover.Check(); err != nil {
		errs = append(errs, fmt.Errorf("discover: %w", err))
	}
	if u.Replicas > 1 {
		errs = append(errs, fmt.Errorf("worker count %d: an unmanaged unit is one process", u.Replicas))
	}
	if u.Path != "" {
		errs = append(errs, fmt.Errorf("command %s: an unmanaged unit is not started", u.Path))
	}
	return errs
}
