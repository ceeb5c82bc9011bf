package render

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// Age returns how long ago a time is, or "-" if it is not known.
func Age(since *timestamppb.Timestamp, now time.Time) string {
	if since == nil {
		return "-"
	}
	return ShortAge(now.Sub(since.AsTime()))
}

// ShortAge formats a duration in its largest unit: 42s, 3m, 5h, 12d.
func ShortAge(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// LocalTime returns the local time, nil if it is not known.
func LocalTime(t *timestamppb.Timestamp) *time.Time {
	if t == nil || t.CheckValid() != nil {
		return nil
	}
	shown := t.AsTime().Local()
	if shown.Year() < 1 || shown.Year() > 9999 {
		shown = shown.UTC() // time.Time marshals only the years 0 to 9999
	}
	return &shown
}

// At returns a time of the day, with the date if that is not today.
func At(t *timestamppb.Timestamp, now time.Time) string {
	shown := LocalTime(t)
	if shown == nil {
		return "at an unknown time"
	}
	local := now.Local()
	if shown.YearDay() != local.YearDay() || shown.Year() != local.Year() {
		return shown.Format(time.DateTime)
	}
	return shown.Format(time.TimeOnly)
}

// Moment returns when something happens: "at 03:12:20, in 4s".
func Moment(t *timestamppb.Timestamp, now time.Time) string {
	if t == nil {
		return "at an unknown time"
	}
	if !t.AsTime().After(now) {
		return "now"
	}
	return "at " + At(t, now) + ", in " + ShortAge(t.AsTime().Sub(now).Round(time.Second))
}
