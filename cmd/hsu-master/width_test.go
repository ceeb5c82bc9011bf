package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/describe"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/recovery"
)

// usualState is a state with names as they are usual.
func usualState(now time.Time) *adminpb.State {
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	check := &adminpb.Check{
		Use: "health", Probe: "ping", Passed: true, AnsweredAt: ago(3 * time.Second), DueAt: ago(-2 * time.Second),
	}
	return &adminpb.State{
		Source: "live", Status: "running", Version: "v1.12.3", Listen: "127.0.0.1:50051", MasterPid: 123456,
		MasterStartedAt: ago(72 * time.Hour), ProcessedCount: 123_456_789,
		Units: []*adminpb.Unit{
			{Name: "search", Kind: "integrated", Replicas: 3},
			{Name: "web", Kind: "managed", Replicas: 2, Disabled: true},
		},
		Workers: []*adminpb.Worker{
			{
				Id: "search-0", Unit: "search", Desired: "running", Status: "running", Pid: 123456, Port: 40001,
				StartedAt: ago(time.Hour), Restarts: 12, Checks: []*adminpb.Check{check}, Adopted: true, Ready: true,
				LastExit: &adminpb.Exit{Code: new(int32(0)), Known: true, At: ago(time.Hour)},
			},
			{
				Id: "search-1", Unit: "search", Desired: "running", Status: "unhealthy", Pid: 123457, Port: 40002,
				StartedAt: ago(time.Hour), Checks: []*adminpb.Check{check},
			},
			{Id: "search-2", Unit: "search", Desired: "running", Status: "backoff", Reason: "exited with code 3"},
		},
		Services: []*adminpb.Service{{Name: "proto.MyBusinessService", Endpoints: []*adminpb.Endpoint{
			{Address: "127.0.0.1:40001", Worker: "search-0", Healthy: true, Source: "worker"},
		}}},
	}
}

// What commands print for people has at most 80 columns with usual names, also if the output is no terminal.
func TestTextFitsIntoEightyColumns(t *testing.T) {
	now := time.Now()
	state := usualState(now)
	inspection := &adminpb.Inspection{
		Worker: state.GetWorkers()[0], Since: state.GetMasterStartedAt(), SpecHash: strings.Repeat("ab", 32),
		Policy: &adminpb.Inspection_Policy{
			Restart: "on-failure", Restarts: 10, Window: durationpb.New(5 * time.Minute), Spent: 2,
			StopGrace: durationpb.New(10 * time.Second), StartTimeout: durationpb.New(time.Minute),
		},
		CommandLine: []string{"/srv/search/bin/search", "--port", "40001", "--index", "/srv/search/index", "--verbose"},
		Log:         "/var/lib/hsu-master/logs/search-0.log",
		Settings: []*adminpb.Inspection_Setting{
			{Key: "command", Value: "/srv/search/bin/search --port {port} --index /srv/search/index --verbose"},
		},
		Events: []*adminpb.Event{{
			Time: timestamppb.New(now), Type: "stop", Operator: &adminpb.Operator{Command: "worker stop search-0"},
		}},
	}
	stopping := &adminpb.Inspection{
		Worker: &adminpb.Worker{Id: "search-0", Unit: "search", Desired: "stopped", Status: "stopping"},
		Since:  inspection.GetSince(), Policy: inspection.GetPolicy(), Events: inspection.GetEvents(),
	}
	prints := map[string]func(*strings.Builder) error{
		"status": func(b *strings.Builder) error {
			describe.PrintHeadline(b, describe.Headline(state, now))
			if err := describe.Workers(b, state, now, false); err != nil {
				return err
			}
			return describe.Overview(b, state.GetServices())
		},
		"unit list":      func(b *strings.Builder) error { return printSummaries(b, summarize(state)) },
		"worker inspect": func(b *strings.Builder) error { describe.Inspection(b, inspection, true, now); return nil },
		"worker inspect, stopping": func(b *strings.Builder) error {
			describe.Inspection(b, stopping, true, now)
			return nil
		},
		"why": func(b *strings.Builder) error {
			describe.Unwell(b, state, []*adminpb.Inspection{inspection, stopping}, now)
			for _, in := range []*adminpb.Inspection{inspection, stopping} {
				describe.Why(b, "search-0", &adminpb.InspectResponse{Inspections: []*adminpb.Inspection{in}}, true, now)
			}
			return nil
		},
		"state plan": func(b *strings.Builder) error {
			d := recovery.Decision{
				ID: "search-0", Action: recovery.ActionAdopt, Reason: "process 123456 lives and is the recorded one",
				Evidence: recovery.Evidence{
					Found: &recovery.Found{State: recovery.FoundAlive, PID: 123456},
					Port:  &recovery.PortOwner{Port: 40001, Owner: process.PortOurs.String()},
				},
			}
			return plan{MasterPID: 123456, Workers: []recovery.Decision{d}}.print(b, false)
		},
		"events": func(b *strings.Builder) error {
			for _, e := range []records.Event{
				{Time: now, Unit: "search", Type: "enable", Operator: &records.Operator{Command: "unit enable search"}},
				{Time: now, Worker: "search-0", Type: "running", Detail: "pid 123456 port 40001"},
			} {
				r := eventReader{out: b}
				if err := r.printEntry(records.Entry{Event: e}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for name, printTo := range prints {
		var b strings.Builder
		if err := printTo(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > render.PageWidth {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
		if b.Len() == 0 {
			t.Errorf("%s prints nothing", name)
		}
	}
}
