package describe

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

func TestFailedWorkerComesWithWhatRevivesIt(t *testing.T) {
	var out strings.Builder
	failed := &adminpb.Worker{
		Id: "worker-0", Status: "failed", Reason: "restart budget 5/5m used up", LastOutput: []string{"no table"},
	}
	if err := Workers(&out, &adminpb.State{Workers: []*adminpb.Worker{failed}}, time.Now(), false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"worker-0 is failed: restart budget", "  | no table\n", "  next: ", `"hsu-master worker restart worker-0"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestWorkersComeWithTheirLastAndTheirNextCheck(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	soon := at(2500 * time.Millisecond)
	workers := []*adminpb.Worker{
		{Id: "new-0", Status: "running", Checks: []*adminpb.Check{{Use: "health", Probe: "ping", DueAt: soon}}},
		{Id: "good-0", Status: "running", Checks: []*adminpb.Check{
			{Use: "health", Probe: "ping", Passed: true, AnsweredAt: at(-3 * time.Second), DueAt: soon},
		}},
		{Id: "bad-0", Status: "unhealthy", Checks: []*adminpb.Check{
			{Use: "readiness", Probe: "tcp db:1", Passed: true, AnsweredAt: at(-time.Second), DueAt: at(time.Hour)},
			{
				Use: "liveness", Probe: "http http://h/", Answer: "503 Service\x1b Unavailable",
				AnsweredAt: at(-4 * time.Second),
			},
		}},
		{Id: "mute-0", Status: "starting", Checks: []*adminpb.Check{{Use: "start", Probe: "READY=1"}}},
		{Id: "gone-0", Status: "stopped"},
	}
	var out strings.Builder
	if err := Workers(&out, &adminpb.State{Workers: workers}, now, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"  CHECK\n", "  next in 2s\n", "  passed 3s\n", "  missed 4s\n", "  -\n",
		"  no answer yet\n",
		"\nbad-0 missed its check of liveness 4s ago, next now: http http://h/: 503 Service\\x1b Unavailable\n",
	} {
		if !strings.Contains(regexp.MustCompile(" +\n").ReplaceAllString(out.String(), "\n"), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestMasterWithoutAStartTimeHasNoAge(t *testing.T) {
	state, now := &adminpb.State{Source: "live", Status: "running"}, time.Now()
	if got := Headline(state, now); !strings.Contains(got, " for - ") {
		t.Errorf("%q, want no age", got)
	}
	state.MasterStartedAt = timestamppb.New(now.Add(-time.Hour))
	if got := Headline(state, now); !strings.Contains(got, " for 1h ") {
		t.Errorf("%q, want an age of 1h", got)
	}
}

// A master that has just started has not read which workers it has.
func TestWorkersOfARecoveringMasterAreNotKnownYet(t *testing.T) {
	state, now := &adminpb.State{Source: "live", Status: "recovering"}, time.Now()
	var out strings.Builder
	if err := Workers(&out, state, now, false); err != nil {
		t.Fatal(err)
	}
	text := Headline(state, now) + "\n" + out.String()
	if !strings.Contains(text, "workers not known yet") || !strings.Contains(text, "recovering its workers") {
		t.Errorf("want that the workers are not known yet:\n%s", text)
	}
	if strings.Contains(text, "standalone") || strings.Contains(text, "no workers") {
		t.Errorf("want that nothing is said of a master without workers:\n%s", text)
	}
}

func TestWorkerListShowsWhenAWorkerIsRunNext(t *testing.T) {
	now := time.Date(2026, 5, 1, 23, 0, 0, 0, time.Local)
	for want, in := range map[string]time.Duration{
		"next 03:00 in 4h": 4 * time.Hour, "next 2026-05-03 03:00 in 28h": 28 * time.Hour,
		"was due 2026-05-01 22:00": -time.Hour,
	} {
		w := &adminpb.Worker{
			Status: "scheduled", NextDueAt: timestamppb.New(now.Add(in)), LastDueAt: timestamppb.New(now),
		}
		if got := note(w, now); got != want {
			t.Errorf("note is %q, want %q", got, want)
		}
	}
}

func TestRecordsOfUnitsFitIntoAPage(t *testing.T) {
	var out strings.Builder
	err := unitRecords(&out, []*adminpb.Unit{
		{Name: "search", Kind: "integrated", Replicas: 3}, {Name: "web", Kind: "managed", Replicas: 2, Disabled: true},
	})
	if err != nil || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%v, %q, want a line for each unit", err, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > render.PageWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
