// Package schedule is the times at which a unit is run. [Schedule.Next] returns the times of a schedule, [Judge]
// decides about one that has come, and [Clock] notices that one has come.
//
// A time zone in which the clocks are changed has local times that do not exist, and others that exist twice. For a
// schedule that leaves out hours of the day, such as "30 2 * * *", a time that is skipped is due at the first instant
// after it, and a time that is repeated is due once, the first time. A schedule that is due in every hour, such as
// "*/5 * * * *" or "30 * * * *", follows the clock on the wall: it has no times in the skipped hour and twice as many
// in the repeated one, so the time between two runs does not change.
package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is a set of instants. The zero value is none.
type Schedule struct {
	times  cron.Schedule  // the local times, as those of UTC
	zone   *time.Location // nil for the zero value
	hourly bool           // it is due in every hour of its days
	name   string
}

// everyHour has a bit for each hour of the day, as the field of [cron.SpecSchedule].
const everyHour = 1<<24 - 1

// Parse returns the schedule of a text with five fields: minute, hour, day of the month, month, day of the week. zone
// is the name of a time zone; "" is the local one.
func Parse(text, zone string) (Schedule, error) {
	if strings.Contains(text, "TZ=") {
		return Schedule{}, errors.New("must not set a time zone")
	}
	if fault := notFiveFields(text); fault != "" {
		return Schedule{}, errors.New(`must be five fields such as "0 3 * * *": ` + fault)
	}
	times, err := cron.ParseStandard(text)
	if err != nil {
		return Schedule{}, faultyField(text, err)
	}
	if zone == "" {
		zone = "Local"
	}
	location, err := time.LoadLocation(zone)
	if err != nil {
		return Schedule{}, fmt.Errorf("time zone %q is not known on this host", zone)
	}
	s := Schedule{times: times, zone: location, name: text + " " + zone}
	if spec, ok := times.(*cron.SpecSchedule); ok {
		s.hourly = spec.Hour&everyHour == everyHour
	}
	if s.nextReading(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Schedule{}, errors.New("is never due: no such day exists")
	}
	return s, nil
}

// shorthands are schedules of other programs that have no fields.
var shorthands = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// notFiveFields returns why a text does not have five fields and what to write instead, or "".
func notFiveFields(text string) string {
	const names = "minute, hour, day of the month, month, day of the week"
	fields := strings.Fields(text)
	switch {
	case shorthands[text] != "":
		return "write " + strconv.Quote(shorthands[text])
	case strings.HasPrefix(text, "@"):
		return names
	case len(fields) == 6:
		return "there are six: leave out the seconds if it begins with them, or the year at the end"
	case len(fields) != 5:
		return names
	}
	return ""
}

// faultyField returns the error of the first field that is not valid. err is that of the whole.
func faultyField(text string, err error) error {
	for i, of := range []struct{ name, allowed string }{
		{"minute", "numbers from 0 to 59"},
		{"hour", "numbers from 0 to 23"},
		{"day of the month", "numbers from 1 to 31"},
		{"month", "numbers from 1 to 12, or JAN to DEC"},
		{"day of the week", "numbers from 0 (Sunday) to 6, or SUN to SAT"},
	} {
		alone := []string{"*", "*", "*", "*", "*"}
		alone[i] = strings.Fields(text)[i]
		if _, err := cron.ParseStandard(strings.Join(alone, " ")); err != nil {
			return fmt.Errorf("has the %s %.40q: it must be * or %s, such as 1,3 or 1-5 or */2", of.name, alone[i],
				of.allowed)
		}
	}
	return err
}

// IsZero reports whether s has no times.
func (s Schedule) IsZero() bool { return s.zone == nil }

// String returns the text and the time zone that the schedule was made of.
func (s Schedule) String() string { return s.name }

// Local returns t in the time zone of the schedule.
func (s Schedule) Local(t time.Time) time.Time { return t.In(s.zone) }

// Next returns the first instant after t, in UTC.
func (s Schedule) Next(t time.Time) time.Time {
	if s.IsZero() {
		return time.Time{}
	}
	if s.hourly {
		return s.nextOnWall(t)
	}
	// A reading never maps to an earlier instant than a reading before it, and reading(t) to none after t.
	for r := s.nextReading(reading(t.In(s.zone))); !r.IsZero(); r = s.nextReading(r) {
		if due := s.instant(r); due.After(t) {
			return due.UTC()
		}
	}
	return time.Time{}
}

// nextOnWall returns the first instant after t at which the clock on the wall shows one of the times.
func (s Schedule) nextOnWall(t time.Time) time.Time {
	// Each round ends at a change of the clocks. There are a few in a year, and the last one has no end.
	for from := t.In(s.zone); ; {
		r := s.nextReading(reading(from))
		if r.IsZero() {
			return time.Time{}
		}
		_, end := from.ZoneBounds()
		due := r.Add(-offset(from))
		if end.IsZero() || due.Before(end) {
			return due.UTC()
		}
		from = end.In(s.zone)
		if r := s.nextReading(reading(from).Add(-1)); r.Equal(reading(from)) {
			return from.UTC() // the first instant after the change
		}
	}
}

// nextReading returns the next of the local times after r. cron gives up after five years, and a 29 February may be
// eight years away.
func (s Schedule) nextReading(r time.Time) time.Time {
	next := s.times.Next(r)
	if next.IsZero() {
		next = s.times.Next(time.Date(r.Year()+5, 1, 1, 0, 0, 0, 0, time.UTC).Add(-1))
	}
	return next
}

// instant returns the first instant at which the clock on the wall shows r. If r is skipped, that is the first instant
// after the change.
func (s Schedule) instant(r time.Time) time.Time {
	from := r.Add(-48 * time.Hour).In(s.zone) // no clock on a wall is that far from UTC
	for {
		start, end := from.ZoneBounds()
		due := r.Add(-offset(from))
		if !end.IsZero() && !due.Before(end) {
			from = end.In(s.zone)
			continue
		}
		if due.Before(start) {
			return start
		}
		return due
	}
}

// reading returns the local time that the clock on the wall shows at t, as a time of UTC.
func reading(t time.Time) time.Time { return t.Add(offset(t)).UTC() }

func offset(t time.Time) time.Duration {
	_, seconds := t.Zone()
	return time.Duration(seconds) * time.Second
}

// before returns the last instant in (from, to], or from if there is none.
func (s Schedule) before(from, to time.Time) time.Time {
	// Most of the time the last instant is near, and there may be a great many between.
	start := to
	for window := time.Minute; start.After(from); window *= 2 {
		if start = to.Add(-window); start.Before(from) {
			start = from
		}
		if next := s.Next(start); next.IsZero() || next.After(to) {
			continue
		}
		break
	}
	last := from
	for next := s.Next(start); !next.IsZero() && !next.After(to); next = s.Next(next) {
		last = next
	}
	return last
}
