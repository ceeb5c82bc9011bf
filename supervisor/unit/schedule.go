package unit

import (
	"errors"
	"fmt"

	"github.com/core-tools/hsu-master/supervisor/schedule"
)

// Schedule is when a unit is run.
type Schedule struct {
	// Cron has the times in the five fields of cron; "" means that there is no schedule.
	Cron string
	// TimeZone is the name of the time zone of Cron; "" means the local one.
	TimeZone string
	// Missed decides about due times that came while no master ran; "" means [MissedSkip].
	Missed Missed
}

// Missed is the treatment of due times of a schedule that came while no master ran, the machine slept, or the
// clock was set forward past them.
type Missed string

// The values of Missed.
const (
	MissedSkip    Missed = "skip"     // nothing but an event
	MissedRunOnce Missed = "run-once" // one run makes up for all of them
)

// checkSchedule returns the faults of the schedule, and of what does not go with one.
func (u *Spec) checkSchedule() (errs []error) {
	if u.Schedule.Missed != "" && u.Schedule.Missed != MissedSkip && u.Schedule.Missed != MissedRunOnce {
		errs = append(errs, fmt.Errorf("missed %q: must be %s or %s", u.Schedule.Missed, MissedSkip, MissedRunOnce))
	}
	if u.Schedule.Cron == "" {
		return errs
	}
	if _, err := schedule.Parse(u.Schedule.Cron, u.Schedule.TimeZone); err != nil {
		errs = append(errs, fmt.Errorf("schedule %q: %w", u.Schedule.Cron, err))
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
