package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// parse returns the schedule of a text that is right.
func parse(t testing.TB, text, zone string) Schedule {
	t.Helper()
	s, err := Parse(text, zone)
	if err != nil {
		t.Fatalf("schedule %q in %q: %v", text, zone, err)
	}
	return s
}

// between returns the due times in (from, to], in the time zone of the schedule.
func between(s Schedule, from, to time.Time) []string {
	var list []string
	for due := s.Next(from); !due.IsZero() && !due.After(to); due = s.Next(due) {
		list = append(list, s.Local(due).Format("Jan 2 15:04 -0700"))
	}
	return list
}

func TestChangeOfTheClocks(t *testing.T) {
	for name, test := range map[string]struct {
		zone, text, from, to string
		want                 []string
	}{
		"Berlin, spring, skipped": {
			"Europe/Berlin", "30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z",
			[]string{"Mar 29 03:00 +0200", "Mar 30 02:30 +0200"},
		},
		"Berlin, spring, first and last skipped minute": {
			"Europe/Berlin", "0,59 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z",
			[]string{"Mar 29 03:00 +0200"},
		},
		"Berlin, spring, a time of its own at the change": {
			"Europe/Berlin", "0 2,3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z",
			[]string{"Mar 29 03:00 +0200"},
		},
		"Berlin, spring, just before and after": {
			"Europe/Berlin", "59 1,3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z",
			[]string{"Mar 29 01:59 +0100", "Mar 29 03:59 +0200"},
		},
		"Berlin, autumn, repeated": {
			"Europe/Berlin", "30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z",
			[]string{"Oct 25 02:30 +0200", "Oct 26 02:30 +0100"},
		},
		"Berlin, autumn, first and last repeated minute": {
			"Europe/Berlin", "0,59 2,3 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z",
			[]string{"Oct 25 02:00 +0200", "Oct 25 02:59 +0200", "Oct 25 03:00 +0100", "Oct 25 03:59 +0100"},
		},
		"Berlin, spring, every half hour": {
			"Europe/Berlin", "*/30 * * * *", "2026-03-29T00:15:00Z", "2026-03-29T01:45:00Z",
			[]string{"Mar 29 01:30 +0100", "Mar 29 03:00 +0200", "Mar 29 03:30 +0200"},
		},
		"Berlin, autumn, every half hour": {
			"Europe/Berlin", "*/30 * * * *", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z",
			[]string{"Oct 25 02:30 +0200", "Oct 25 02:00 +0100", "Oct 25 02:30 +0100", "Oct 25 03:00 +0100"},
		},
		"Berlin, every second hour": {
			"Europe/Berlin", "0 */2 * * *", "2026-03-28T22:30:00Z", "2026-03-29T03:00:00Z",
			[]string{"Mar 29 00:00 +0100", "Mar 29 03:00 +0200", "Mar 29 04:00 +0200"},
		},
		"New York, spring": {
			"America/New_York", "30 2 * * *", "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z",
			[]string{"Mar 8 03:00 -0400", "Mar 9 02:30 -0400"},
		},
		"New York, autumn": {
			"America/New_York", "30 1 * * *", "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z",
			[]string{"Nov 1 01:30 -0400", "Nov 2 01:30 -0500"},
		},
		"Lord Howe, spring, half an hour is skipped": {
			"Australia/Lord_Howe", "15,45 2 * * *", "2026-10-03T00:00:00Z", "2026-10-04T00:00:00Z",
			[]string{"Oct 4 02:30 +1100", "Oct 4 02:45 +1100"},
		},
		"Lord Howe, autumn, half an hour is repeated": {
			"Australia/Lord_Howe", "15,45 1,2 * * *", "2026-04-04T00:00:00Z", "2026-04-05T00:00:00Z",
			[]string{"Apr 5 01:15 +1100", "Apr 5 01:45 +1100", "Apr 5 02:15 +1030", "Apr 5 02:45 +1030"},
		},
		"Lord Howe, autumn, every quarter": {
			"Australia/Lord_Howe", "*/15 * * * *", "2026-04-04T14:30:00Z", "2026-04-04T15:31:00Z",
			[]string{
				"Apr 5 01:45 +1100", "Apr 5 01:30 +1030", "Apr 5 01:45 +1030", "Apr 5 02:00 +1030",
			},
		},
		"Samoa, a day is skipped": {
			"Pacific/Apia", "0 12 * * *", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z",
			[]string{"Dec 29 12:00 -1000", "Dec 31 00:00 +1400", "Dec 31 12:00 +1400", "Jan 1 12:00 +1400"},
		},
		"midnight is skipped": {
			"America/Asuncion", "0 0 * * *", "2023-09-30T12:00:00Z", "2023-10-02T12:00:00Z",
			[]string{"Oct 1 01:00 -0300", "Oct 2 00:00 -0300"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, err1 := time.Parse(time.RFC3339, test.from)
			to, err2 := time.Parse(time.RFC3339, test.to)
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			if got := between(parse(t, test.text, test.zone), from, to); !slices.Equal(got, test.want) {
				t.Errorf("%s is due at\n%q, want\n%q", test.text, got, test.want)
			}
		})
	}
}

// matches reports whether the clock on the wall shows one of the times at t.
func matches(s Schedule, t time.Time) bool {
	r := reading(t.In(s.zone))
	return s.times.Next(r.Add(-time.Second)).Equal(r)
}

// times are local times by hour, minute and day of the month; each list is sorted.
type times struct{ minutes, hours, days []int }

func (x times) String() string {
	list := func(values []int) string { return strings.Trim(strings.ReplaceAll(fmt.Sprint(values), " ", ","), "[]") }
	return list(x.minutes) + " " + list(x.hours) + " " + list(x.days) + " * *"
}

func (x times) has(r time.Time) bool {
	return slices.Contains(x.minutes, r.Minute()) && slices.Contains(x.hours, r.Hour()) &&
		slices.Contains(x.days, r.Day())
}

// bruteForce looks at each minute: the due times by the rules of the package, without its arithmetic and without cron.
func (x times) bruteForce(zone *time.Location, from, to time.Time) []time.Time {
	var list []time.Time
	last := reading(from.Add(-24 * time.Hour).In(zone)) // the latest reading so far
	for t := from.Add(-24 * time.Hour).Add(time.Minute); t.Before(to); t = t.Add(time.Minute) {
		now := reading(t.In(zone))
		due := x.has(now)
		if len(x.hours) < 24 {
			due = due && now.After(last)
			for r := last.Add(time.Minute); r.Before(now); r = r.Add(time.Minute) { // skipped
				due = due || x.has(r)
			}
		}
		if now.After(last) {
			last = now
		}
		if due && !t.Before(from) {
			list = append(list, t)
		}
	}
	return list
}

func TestNextIsThatOfBruteForce(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	some := func(least, most int) []int {
		list := random.Perm(most - least + 1)
		for i := range list {
			list[i] += least
		}
		if random.IntN(3) > 0 {
			list = list[:1+random.IntN(3)]
		}
		slices.Sort(list)
		return list
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.AddDate(1, 0, 0)
	for _, zone := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"} {
		for i := range 5 {
			x := times{some(0, 59), some(0, 4), some(1, 31)} // the clocks are changed at night
			if i == 0 {
				x.hours = some(0, 23)
			}
			s := parse(t, x.String(), zone)
			due := s.Next(from.Add(-1))
			for i, want := range x.bruteForce(s.zone, from, to) {
				if !due.Equal(want) {
					t.Fatalf("%s: due %s, want %s (number %d)", s, s.Local(due), s.Local(want), i)
				}
				due = s.Next(due)
			}
			if !due.IsZero() && due.Before(to) {
				t.Errorf("%s: due at %s too", s, s.Local(due))
			}
		}
	}
}

// FuzzNext checks that Next goes forward, leaves out nothing, and that before is its inverse.
func FuzzNext(f *testing.F) {
	f.Add("30 2 * * *", "Europe/Berlin", int64(1774740000), int64(86400))
	f.Add("*/7 1-3 * * 0", "Australia/Lord_Howe", int64(1775315000), int64(5000))
	f.Add("0 0 29 2 *", "America/New_York", int64(4000000000), int64(1))
	f.Fuzz(func(t *testing.T, text, zone string, at, more int64) {
		s, err := Parse(text, zone)
		const years = 4e9
		if err != nil || at < -years || at > 2*years || more < 0 || more > 1e7 {
			t.Skip()
		}
		from := time.Unix(at, 0)
		due := s.Next(from)
		if due.IsZero() {
			t.Skip()
		}
		if !due.After(from) {
			t.Fatalf("%s is due at %s after %s", s, due, from)
		}
		if other := s.Next(due.Add(-1)); !other.Equal(due) {
			t.Errorf("%s is due at %s, but right before that at %s", s, due, other)
		}
		if s.hourly && !matches(s, due) {
			t.Errorf("%s is due at %s", s, s.Local(due))
		}
		to := from.Add(time.Duration(more) * time.Second)
		last := from
		for next := due; !next.After(to) && !next.IsZero(); next = s.Next(next) {
			last = next
		}
		if got := s.before(from, to); !got.Equal(last) {
			t.Errorf("the last of %s in (%s, %s] is %s, want %s", s, from, to, got, last)
		}
	})
}

func TestParseNamesTheFault(t *testing.T) {
	const fields = `must be five fields such as "0 3 * * *": `
	for _, test := range []struct{ text, zone, want string }{
		{"TZ=UTC 0 3 * * *", "", "must not set a time zone"},
		{"@daily", "", fields + `write "0 0 * * *"`},
		{"@reboot", "", fields + "minute, hour, day of the month, month, day of the week"},
		{"0 3 * *", "", fields + "minute, hour, day of the month, month, day of the week"},
		{
			"0 3 * * * *", "",
			fields + "there are six: leave out the seconds if it begins with them, or the year at the end",
		},
		{"0 25 * * *", "", `has the hour "25": it must be * or numbers from 0 to 23, such as 1,3 or 1-5 or */2`},
		{
			"0 3 * * MON-", "",
			`has the day of the week "MON-": it must be * or numbers from 0 (Sunday) to 6, or SUN to SAT, such as ` +
				"1,3 or 1-5 or */2",
		},
		{"0 0 30 2 *", "", "is never due: no such day exists"},
		{"0 3 * * *", "Mars/Olympus", `time zone "Mars/Olympus" is not known on this host`},
	} {
		if _, err := Parse(test.text, test.zone); err == nil || err.Error() != test.want {
			t.Errorf("%q in %q: %v, want %s", test.text, test.zone, err, test.want)
		}
	}
}

// A 29 February may be eight years away, and cron looks five years ahead.
func TestLeapDayAcrossACenturyWithoutOne(t *testing.T) {
	s := parse(t, "0 0 29 2 *", "UTC")
	after := time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC)
	if got, want := s.Next(after), time.Date(2104, 2, 29, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("next is %s, want %s", got, want)
	}
}
