package recovery

import (
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// ScheduleOf returns the schedule of a unit that has been checked, the zero value if it has none.
func ScheduleOf(u *unit.Spec) schedule.Schedule {
	if u.Schedule.Cron == "" {
		return schedule.Schedule{}
	}
	s, _ := schedule.Parse(u.Schedule.Cron, u.Schedule.TimeZone)
	return s
}

// MarkOf returns how far a worker has come in the schedule. If the record is of another schedule, this one begins now,
// but not with a due time that has come.
func MarkOf(s schedule.Schedule, rec records.Worker) schedule.Mark {
	switch {
	case rec.Due == nil:
		return schedule.Mark{}
	case rec.Due.Schedule != s.String():
		return schedule.Mark{Last: rec.Due.Last}
	}
	return schedule.Mark{Next: rec.Due.Next, Last: rec.Due.Last}
}

// SituationOf returns the situation of a worker of the unit after a time without a master.
func SituationOf(u *unit.Spec, s lifecycle.State, now time.Time) schedule.Situation {
	return schedule.Situation{
		Now: now, CatchUp: u.Schedule.Missed == unit.MissedRunOnce,
		// A start that failed for a fault of the master is tried again.
		Busy: s.Slot != lifecycle.Vacant || s.Status == records.StatusStarting || s.Status == records.StatusBackoff,
	}
}

// due returns the decision of a starting master about the due times that have come. after is the state of the worker
// once it has recovered.
func (in inspection) due(now time.Time) func(after lifecycle.State) schedule.Verdict {
	times := ScheduleOf(in.s.Unit)
	if times.IsZero() {
		return nil
	}
	return func(after lifecycle.State) schedule.Verdict {
		return schedule.Judge(times, MarkOf(times, in.s.Rec), SituationOf(in.s.Unit, after, now))
	}
}

// wait decides about a worker that has recovered and waits for its next due time, or makes up for one.
func (f *Facts) wait(after lifecycle.State, what string) (action Action, reason string, startIn float64) {
	v := f.due(after)
	if !v.Run.IsZero() {
		return ActionRun, fmt.Sprintf("%s; its run due at %s was missed and is made up for", what, stampOf(v.Run)), 0
	}
	next := fmt.Sprintf("%s; its next run is due at %s", what, stampOf(v.Mark.Next))
	if v.Passed > 0 {
		next += fmt.Sprintf("; due times that were missed since %s: %d", stampOf(v.First), v.Passed)
	}
	return ActionKeepScheduled, next, v.Mark.Next.Sub(f.wall).Seconds()
}

func stampOf(t time.Time) string { return t.Local().Format(time.RFC3339) }
