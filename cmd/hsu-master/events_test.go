package main

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/store/records"
)

func TestParseSince(t *testing.T) {
	zone := time.FixedZone("X", 3600)
	now := time.Date(2026, 3, 4, 15, 0, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"10m":                  now.Add(-10 * time.Minute),
		"0s":                   now,
		"14:30":                time.Date(2026, 3, 4, 14, 30, 0, 0, zone),
		"14:30:05":             time.Date(2026, 3, 4, 14, 30, 5, 0, zone),
		"2026-01-31":           time.Date(2026, 1, 31, 0, 0, 0, 0, zone),
		"2026-01-31 14:30":     time.Date(2026, 1, 31, 14, 30, 0, 0, zone),
		"2026-01-31 14:30:05":  time.Date(2026, 1, 31, 14, 30, 5, 0, zone),
		"2026-01-31T14:30":     time.Date(2026, 1, 31, 14, 30, 0, 0, zone),
		"2026-01-31T14:30:00Z": time.Date(2026, 1, 31, 14, 30, 0, 0, time.UTC),
	} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-5m", "yesterday", "25:00", "10", "2026-02-30"} {
		if got, err := parseSince(text, now); err == nil {
			t.Errorf("%q is %v, want an error", text, got)
		}
	}
}

func FuzzParseSince(f *testing.F) {
	for _, text := range []string{"10m", "14:30", "2026-01-31T14:30:00Z", "-1h", "\x00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseSince(text, time.Now()); err != nil && exit.Code(err) != exit.WrongUsage {
			t.Errorf("%q: exit code %d", text, exit.Code(err))
		}
	})
}

// The text of an event cannot control the terminal.
func TestEventText(t *testing.T) {
	at := time.Date(2026, 3, 4, 15, 0, 0, 0, time.Local)
	for _, test := range []struct {
		e    records.Event
		want string
	}{
		{
			records.Event{Time: at, Worker: "web-0", Type: "exited", Detail: "exit code 1\x1b[2J\n"},
			`2026-03-04 15:00:00  web-0         exited      exit code 1\x1b[2J\n`,
		},
		{
			records.Event{
				Time: at, Unit: "web", Type: "scale",
				Operator: &records.Operator{UID: 4294967294, Command: "worker scale web=2"},
			},
			"2026-03-04 15:00:00  web           scale       by uid 4294967294: worker scale web=2",
		},
		{records.Event{Time: at, Type: "reload"}, "2026-03-04 15:00:00  -             reload"},
	} {
		if got := eventText(records.Entry{Event: test.e}); got != test.want {
			t.Errorf("%+v is\n%q, want\n%q", test.e, got, test.want)
		}
	}
}
