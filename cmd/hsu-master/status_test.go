package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

func TestWorkerThatIsStartedAgainComesWithTheTime(t *testing.T) {
	now := time.Now()
	at := timestamppb.New(now.Add(4*time.Minute + time.Second))
	for want, w := range map[string]*adminpb.Worker{
		"worker-0 is failed: why; tried again in 4m\n":       {Status: "failed", RetryAt: at},
		"worker-0 is in backoff: why; started again in 4m\n": {Status: "backoff", RetryAt: at},
		"worker-0 is completed: why\n":                       {Status: "completed"},
	} {
		w.Id, w.Reason = "worker-0", "why"
		var out strings.Builder
		if err := describe.Workers(&out, &adminpb.State{Workers: []*adminpb.Worker{w}}, now, false); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
	if got := workersToJSON([]*adminpb.Worker{{RetryAt: at}})[0].RetryAt; got == nil || !got.Equal(at.AsTime()) {
		t.Errorf("retry_at is %v in JSON, want %s", got, at.AsTime())
	}
}

func TestStatusIsGoodIfAllWorkersRunOrHaveCompleted(t *testing.T) {
	for status, good := range map[records.Status]bool{
		records.StatusRunning: true, records.StatusCompleted: true, records.StatusFailed: false,
		records.StatusBackoff: false, records.StatusStarting: false, records.StatusStopped: false,
		records.StatusWaiting:   false,
		records.StatusScheduled: true,
	} {
		state := &adminpb.State{Source: "live", Status: "running", Workers: []*adminpb.Worker{
			{Id: "worker-0", Desired: "running", Status: string(status)},
		}}
		if err := verdict(state); (err == nil) != good {
			t.Errorf("%s: %v", status, err)
		}
	}
}

// A spare worker, and one that is not wanted any more, do not count.
func TestStatusCountsTheWantedWorkersOnly(t *testing.T) {
	state := &adminpb.State{
		Source: "live", Status: "running", MasterStartedAt: timestamppb.Now(),
		Units: []*adminpb.Unit{
			{Name: "a", Replicas: 1},
			{Name: "b", Replicas: 4, Scale: new(int32(1))},
			{Name: "c", Replicas: 2, Retired: true},
		},
	}
	add := func(id, unit, status string) {
		state.Workers = append(state.Workers, &adminpb.Worker{
			Id: id, Unit: unit, Desired: "running", Status: status, Ready: status == "running",
		})
	}
	add("a-0", "a", "running")
	add("a-1", "a", "starting")
	add("b-0", "b", "running")
	add("b-1", "b", "stopping")
	add("c-0", "c", "stopping")
	if err := verdict(state); err != nil {
		t.Error(err)
	}
	if got := describe.Headline(state, time.Now()); !strings.Contains(got, ": 2 of 2 workers ready,") {
		t.Errorf("headline is %q", got)
	}
	state.Workers[2].Status = "starting"
	if err := verdict(state); err == nil || !strings.Contains(err.Error(), "running: b-0 is starting") {
		t.Errorf("verdict = %v, want the wanted worker", err)
	}
}

func TestStatusIsBadIfTheLastScheduledRunFailed(t *testing.T) {
	state := &adminpb.State{Source: "live", Status: "running", Workers: []*adminpb.Worker{
		{Id: "report-0", Desired: "running", Status: "scheduled", Reason: "exited with code 3"},
	}}
	const want = "report-0 is scheduled after a run that failed"
	if err := verdict(state); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want the failed run", err)
	}
}

// A plan shows which adopted workers do not run what their unit describes, also without --verbose.
func TestPlanShowsOutdatedWorkers(t *testing.T) {
	adopted := func(id string, e recovery.Evidence) recovery.Decision {
		return recovery.Decision{ID: id, Action: recovery.ActionAdopt, Evidence: e}
	}
	p := plan{Workers: []recovery.Decision{
		adopted("current-0", recovery.Evidence{}), adopted("changed-0", recovery.Evidence{Outdated: true}),
	}}
	var out strings.Builder
	if err := p.print(&out, false); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "\nchanged-0: adopt\n") ||
		!strings.Contains(got, "until a reload") || strings.Contains(got, "\ncurrent-0: adopt\n") {
		t.Errorf("the evidence is not that of changed-0 alone:\n%s", got)
	}
}

func TestWorkersInJSONHaveTheirDueTimes(t *testing.T) {
	now := time.Date(2026, 5, 1, 23, 0, 0, 0, time.Local)
	for _, in := range []time.Duration{4 * time.Hour, 28 * time.Hour, -time.Hour} {
		w := &adminpb.Worker{
			Status: "scheduled", NextDueAt: timestamppb.New(now.Add(in)), LastDueAt: timestamppb.New(now),
		}
		j := workersToJSON([]*adminpb.Worker{w})[0]
		if !j.NextDueAt.Equal(now.Add(in)) || !j.LastDueAt.Equal(now) {
			t.Errorf("JSON has %v and %v", j.NextDueAt, j.LastDueAt)
		}
	}
}
