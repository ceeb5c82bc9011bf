package schedule

import (
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const layout = "2006-01-02 15:04"
	at := func(s string) time.Time {
		if s == "" {
			return time.Time{}
		}
		v, err := time.ParseInLocation(layout, s, time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	const hourly, daily = "0 * * * *", "0 3 * * *"
	for name, test := range map[string]struct {
		schedule, next, last, now string
		late                      time.Duration
		catchUp, busy             bool

		wantNext, wantLast, run, first string
		passed                         int
	}{
		"new": {schedule: daily, now: "2026-05-01 12:00", wantNext: "2026-05-02 03:00"},
		"not due": {
			schedule: daily, next: "2026-05-02 03:00", now: "2026-05-02 02:59", wantNext: "2026-05-02 03:00",
		},
		"on time": {
			schedule: daily, next: "2026-05-02 03:00", now: "2026-05-02 03:00",
			wantNext: "2026-05-03 03:00", wantLast: "2026-05-02 03:00", run: "2026-05-02 03:00",
		},
		"a little late": {
			schedule: daily, next: "2026-05-02 03:00", now: "2026-05-02 03:04", late: 5 * time.Minute,
			wantNext: "2026-05-03 03:00", wantLast: "2026-05-02 03:00", run: "2026-05-02 03:00",
		},
		"too late": {
			schedule: daily, next: "2026-05-02 03:00", now: "2026-05-02 03:06", late: 5 * time.Minute,
			wantNext: "2026-05-03 03:00", wantLast: "2026-05-02 03:00", first: "2026-05-02 03:00", passed: 1,
		},
		"too late, made up for": {
			schedule: daily, next: "2026-05-02 03:00", now: "2026-05-02 03:06", late: 5 * time.Minute, catchUp: true,
			wantNext: "2026-05-03 03:00", wantLast: "2026-05-02 03:00", run: "2026-05-02 03:00",
		},
		"many missed": {
			schedule: hourly, next: "2026-05-02 03:00", last: "2026-05-02 02:00", now: "2026-05-04 10:30",
			wantNext: "2026-05-04 11:00", wantLast: "2026-05-04 10:00", first: "2026-05-02 03:00", passed: 56,
		},
		"many missed, made up for by one": {
			schedule: hourly, next: "2026-05-02 03:00", last: "2026-05-02 02:00", now: "2026-05-04 10:30",
			catchUp:  true,
			wantNext: "2026-05-04 11:00", wantLast: "2026-05-04 10:00", run: "2026-05-04 10:00",
			first: "2026-05-02 03:00", passed: 55,
		},
		"more missed than are counted": {
			schedule: "* * * * *", next: "2026-05-02 03:00", now: "2026-06-02 03:00", late: -1,
			wantNext: "2026-06-02 03:01", wantLast: "2026-06-02 03:00", first: "2026-05-02 03:00", passed: MaxPassed,
		},
		"the last of several is on time": {
			schedule: "* * * * *", next: "2026-05-02 03:00", now: "2026-05-02 03:02", late: 5 * time.Minute,
			wantNext: "2026-05-02 03:03", wantLast: "2026-05-02 03:02", run: "2026-05-02 03:02",
			first: "2026-05-02 03:00", passed: 2,
		},
		"during a run": {
			schedule: hourly, next: "2026-05-02 03:00", now: "2026-05-02 03:00", busy: true, catchUp: true,
			wantNext: "2026-05-02 04:00", wantLast: "2026-05-02 03:00", first: "2026-05-02 03:00", passed: 1,
		},
		"the clock was set back": {
			schedule: hourly, next: "2026-05-02 04:00", last: "2026-05-02 03:00", now: "2026-05-01 23:00",
			wantNext: "2026-05-02 04:00", wantLast: "2026-05-02 03:00",
		},
		"the clock was set back, and nothing was due": {
			schedule: hourly, next: "2099-05-02 04:00", now: "2026-05-01 23:30",
			wantNext: "2026-05-02 00:00",
		},
		"the clock was years ahead": {
			schedule: hourly, next: "2099-05-02 04:00", last: "2099-05-02 03:00", now: "2026-05-01 23:30",
			wantNext: "2026-05-02 00:00",
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := Judge(parse(t, test.schedule, "UTC"), Mark{at(test.next), at(test.last)}, Situation{
				Now: at(test.now), Late: test.late, CatchUp: test.catchUp, Busy: test.busy,
			})
			want := Verdict{
				Mark: Mark{at(test.wantNext), at(test.wantLast)}, Run: at(test.run),
				Passed: test.passed, First: at(test.first),
			}
			if v != want {
				t.Errorf("verdict = %+v\nwant      %+v", v, want)
			}
		})
	}
}
