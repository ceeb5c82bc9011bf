package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/recovery"
	"github.com/core-tools/hsu-master/supervisor/schedule"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// agenda decides when a worker runs by the schedule of its unit. The worker's goroutine owns it.
type agenda struct {
	clock *schedule.Clock
	alarm *schedule.Alarm
	times schedule.Schedule // zero if the unit has no schedule
}

// lateness is how late a due time may be noticed and still be run as usual. A due time that comes while the machine
// sleeps, or that a step of the clock skips, is noticed later.
const lateness = 5 * time.Minute

func newAgenda(c *schedule.Clock, u *unit.Spec) agenda {
	return agenda{clock: c, alarm: c.NewAlarm(), times: recovery.ScheduleOf(u)}
}

// arrival is the decision about the due times that have come.
type arrival struct {
	due   records.Due // to be recorded
	notes []note      // for the history
	run   bool        // a run begins
}

// note is an event of the history that is still to be made.
type note struct {
	kind   eventKind
	detail string
}

// arrived decides about the due times that have come. late is as in [schedule.Situation].
func (a *agenda) arrived(u *unit.Spec, s lifecycle.State, rec records.Worker, late time.Duration) (r arrival) {
	at := recovery.SituationOf(u, s, a.clock.Now())
	at.Late = late
	v := schedule.Judge(a.times, recovery.MarkOf(a.times, rec), at)
	r.due = records.Due{Schedule: a.times.String(), Next: v.Mark.Next, Last: v.Mark.Last}
	if !s.Wanted {
		return r
	}
	if v.Passed > 0 {
		kind, why := eventRunMissed, "it was noticed too late"
		switch {
		case at.Busy:
			kind, why = eventRunSkipped, "the run before has not ended"
		case late == 0:
			why = "no master ran"
		}
		r.notes = append(r.notes, note{kind, a.passed(v) + ": " + why})
	}
	if !v.Run.IsZero() {
		detail := "due at " + a.text(v.Run)
		if ago := at.Now.Sub(v.Run); ago > late {
			detail += fmt.Sprintf(", made up for %s later", ago.Round(time.Second))
		}
		r.notes, r.run = append(r.notes, note{eventRunDue, detail}), true
	}
	return r
}

// follow replaces the schedule. One that is new or different begins now.
func (a *agenda) follow(u *unit.Spec) {
	a.times = recovery.ScheduleOf(u)
	a.alarm.Set(time.Time{})
}

// cancelled returns the event of a run that was to begin and did not because the master stops, if the step between the
// states was that.
func (a *agenda) cancelled(due *records.Due, before, after lifecycle.State) (n note, cancelled bool) {
	begun := before.Status != records.StatusStarting || before.Slot != lifecycle.Vacant
	if due == nil || begun || after.Status != records.StatusStopped {
		return note{}, false
	}
	return note{eventRunMissed, "due at " + a.text(due.Last) + ": the master was stopping"}, true
}

// checkDue decides about the due times that have come, records that, and begins the run if one is due. late is as in
// [schedule.Situation].
func (w *owner) checkDue(ctx context.Context, late time.Duration) {
	switch {
	case w.done || w.state.Retired:
		return
	case w.agenda.times.IsZero():
		if w.rec.Due != nil {
			w.rec.Due = nil
			w.record(ctx)
		}
		return
	case closed(w.shutdown):
		return // the next master decides
	}
	r := w.agenda.arrived(w.unit, w.state, w.rec, late)
	w.rec.Due = &r.due
	for _, n := range r.notes {
		w.journal.add(w.event(n.kind, n.detail))
	}
	if r.run {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvDue}) // records the due time with the intent
	} else {
		w.record(ctx)
	}
	w.agenda.alarm.Set(r.due.Next)
}

// reschedule has the worker follow the schedule of its present unit, if it had another one before.
func (w *owner) reschedule(ctx context.Context, before *unit.Spec) {
	if w.unit.Schedule.Cron == before.Schedule.Cron && w.unit.Schedule.TimeZone == before.Schedule.TimeZone {
		return
	}
	w.agenda.follow(w.unit)
	changed := (w.unit.Schedule.Cron == "") != (before.Schedule.Cron == "")
	if changed && w.state.Slot == lifecycle.Vacant {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvBegin}) // it waits for its due time, or does not any more
	}
	w.checkDue(ctx, 0)
}

func (a *agenda) passed(v schedule.Verdict) string {
	switch {
	case v.Passed == 1:
		return "due at " + a.text(v.First)
	case v.Passed >= schedule.MaxPassed:
		return fmt.Sprintf("%d or more due times since %s", v.Passed, a.text(v.First))
	}
	return fmt.Sprintf("%d due times since %s", v.Passed, a.text(v.First))
}

func (a *agenda) text(t time.Time) string { return a.times.Local(t).Format(time.RFC3339) }
