package unit

import (
	"errors"
	"fmt"

	"github.com/core-tools/hsu-master/supervisor/schedule"
)

// checkSchedule returns the faults of the schedule, and of what does not go with one.
func (u Spec) checkSchedule() (errs []error) {
	if u.Missed != "" && u.Missed != MissedSkip && u.Missed != MissedRunOnce {
		errs = append(errs, fmt.Errorf("missed %q: must be %s or %s", u.Missed, MissedSkip, MissedRunOnce))
	}
	if u.Schedule == "" {
		return errs
	}
	if _, err := schedule.Parse(u.Schedule, u.TimeZone); err != nil {
		errs = append(errs, fmt.Errorf("schedule %q: %w", u.Schedule, err))
	}
	if u.Kind != Managed {
		errs = append(errs, errors.New("schedule: is for managed units"))
	}
	if u.Replicas > 1 {
		errs = append(errs, fmt.Errorf("worker count %d: a unit with a schedule has one replica", u.Replicas))
	}
	if m := u.Restart.Mode; m != "" && m != RestartNever {
		errs = append(errs, fmt.Errorf("restart policy %q: a unit with a schedule is not restarted", m))
	}
	return errs
}
