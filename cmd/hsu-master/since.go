package main

import (
	"strings"
	"time"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
)

// parseSince reads a time, or a duration before now. A time of day is one of today, and without a zone a time is a
// local one.
func parseSince(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d < 0 {
			return time.Time{}, exit.Usagef("--since %s: must not be negative", text)
		}
		return now.Add(-d), nil
	}
	for _, form := range []string{
		time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateTime, "2006-01-02 15:04", time.DateOnly,
	} {
		if at, err := time.ParseInLocation(form, text, now.Location()); err == nil {
			return at, nil
		}
	}
	for _, form := range []string{time.TimeOnly, "15:04"} {
		today := now.Format(time.DateOnly) + " " + strings.TrimSpace(text)
		if at, err := time.ParseInLocation(time.DateOnly+" "+form, today, now.Location()); err == nil {
			return at, nil
		}
	}
	return time.Time{}, exit.Usagef("--since %q: must be a duration such as 10m, or a time such as 14:30, 2026-01-31, "+
		`"2026-01-31 14:30:00" or 2026-01-31T14:30:00Z`, text)
}
