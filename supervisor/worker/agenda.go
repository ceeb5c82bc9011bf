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

// agenda runs a worker at the times of its unit's schedule. The worker's goroutine owns it.
type agenda struct {
	clock *schedule.Clock
	alarm *schedule.Alarm
	times schedule.Schedule // zero if the unit has no schedule
}

// lateness is how late a due time may be noticed and still be run as usual. A due time that comes while the machine
// sleeps, or that a step of the clock skips, is noticed later.
const lateness = 5 * time.Minute

func newAgenda(c *schedule.Clock, u unit.Spec) agenda {
	return agenda{clock: c, alarm: c.NewAlarm(), times: recovery.ScheduleOf(u)}
}

// settle decides about the due times that have come, records that, and begins the run if one is due. late is as in
// [schedule.Situation].
func (a *agenda) settle(ctx context.Context, w *owner, late time.Duration) {
	switch {
	case w.done || w.state.Retired:
		return
	case a.times.IsZero():
		if w.rec.Due != nil {
			w.rec.Due = nil
			w.record(ctx)
		}
		return
	case closed(w.shutdown):
		return // the next master decides
	}
	now := a.clock.Now()
	at := recovery.SituationOf(w.unit, w.state, now)
	at.Late = late
	v := schedule.Judge(a.times, recovery.MarkOf(a.times, w.rec), at)
	w.rec.Due = &records.Due{Schedule: a.times.String(), Next: v.Mark.Next, Last: v.Mark.Last}
	if v.Passed > 0 && w.state.Wanted {
		kind, why := eventRunMissed, "it was noticed too late"
		switch {
		case at.Busy:
			kind, why = eventRunSkipped, "the run before has not ended"
		case late == 0:
			why = "no master ran"
		}
		w.journal.add(w.event(kind, a.passed(v)+": "+why))
	}
	if v.Run.IsZero() || !w.state.Wanted {
		w.record(ctx)
	} else {
		detail := "due at " + a.text(v.Run)
		if ago := now.Sub(v.Run); ago > late {
			detail += fmt.Sprintf(", made up for %s later", ago.Round(time.Second))
		}
		w.journal.add(w.event(eventRunDue, detail))
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvDue}) // records the due time with the intent
	}
	a.alarm.Set(v.Mark.Next)
}

// change has the worker follow the schedule of its present unit, which was another one before. A schedule that is new
// or different begins now.
func (a *agenda) change(ctx context.Context, w *owner, before unit.Spec) {
	if w.unit.Schedule == before.Schedule && w.unit.TimeZone == before.TimeZone {
		return
	}
	a.times = recovery.ScheduleOf(w.unit)
	a.alarm.Set(time.Time{})
	if vacant := w.state.Slot == lifecycle.Vacant; vacant && (w.unit.Schedule == "") != (before.Schedule == "") {
		w.step(ctx, lifecycle.Event{Kind: lifecycle.EvBegin}) // it waits for its due time, or does not any more
	}
	a.settle(ctx, w, 0)
}

// cancelled records that a run that was to begin did not, because the master stops, if the step from before was that.
func (a *agenda) cancelled(w *owner, before lifecycle.State) {
	begun := before.Status != records.StatusStarting || before.Slot != lifecycle.Vacant
	if d := w.rec.Due; d != nil && !begun && w.state.Status == records.StatusStopped {
		w.journal.add(w.event(eventRunMissed, "due at "+a.text(d.Last)+": the master was stopping"))
	}
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
