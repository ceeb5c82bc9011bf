package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
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
			printHeadline(b, headline(state, now))
			if err := printWorkers(b, state.GetWorkers(), now); err != nil {
				return err
			}
			return overview(b, state.GetServices())
		},
		"unit list":      func(b *strings.Builder) error { return printSummaries(b, summarize(state)) },
		"state dump":     func(b *strings.Builder) error { return printUnitRecords(b, state.GetUnits()) },
		"worker inspect": func(b *strings.Builder) error { printInspection(b, inspection, true, now); return nil },
		"worker inspect, stopping": func(b *strings.Builder) error {
			printInspection(b, stopping, true, now)
			return nil
		},
		"why": func(b *strings.Builder) error {
			printUnwell(b, state, []*adminpb.Inspection{inspection, stopping}, now)
			b.WriteString(explained(inspection, true, now) + explained(stopping, true, now))
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
		"top": func(b *strings.Builder) error {
			lines := loadTable{width: pageWidth}.lines(loads(sample{}, sample{now, state.GetWorkers()}))
			b.WriteString(strings.Join(lines, "\n"))
			return nil
		},
	}
	for name, printTo := range prints {
		var b strings.Builder
		if err := printTo(&b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for line := range strings.Lines(b.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > pageWidth {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
		if b.Len() == 0 {
			t.Errorf("%s prints nothing", name)
		}
	}
}

// On a terminal, a table is as wide as that: the last column is wrapped, others are cut. Elsewhere, nothing is.
func TestTableOnATerminal(t *testing.T) {
	table := newTable("WORKER", "STATUS", "EMPTY", "REASON")
	table.row("a-worker-with-a-very-long-name-0", "running", "", "it lives and is the recorded one, and stays as it is")
	table.row("b-0", "in ü", "", "")
	for width, want := range map[int]string{
		0: `WORKER                            STATUS   REASON
a-worker-with-a-very-long-name-0  running  it lives and is the recorded one, and stays as it is
b-0                               in ü
`,
		80: `WORKER                            STATUS   REASON
a-worker-with-a-very-long-name-0  running  it lives and is the recorded one, and
                                           stays as it is
b-0                               in ü
`,
		50: `WORKER           STATUS   REASON
a-worker-with-…  running  it lives and is the
                          recorded one, and stays
                          as it is
b-0              in ü
`,
	} {
		got := table.text(width)
		if got != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, got, want)
		}
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 0 && n > width {
				t.Errorf("width %d: %q has %d", width, line, n)
			}
		}
	}
}

// A table that a terminal is too narrow for is not cut: the terminal wraps its lines.
func TestTableOnATerminalThatIsTooNarrow(t *testing.T) {
	table := newTable("WORKER", "STATUS", "REASON")
	table.row("a-worker-with-a-very-long-name-0", "running", "it lives and is the recorded one")
	if got, want := table.text(20), table.text(0); got != want {
		t.Errorf("20 columns:\n%s\nwant\n%s", got, want)
	}
}

// A text that is indented stays so in all of its lines.
func TestParagraphIsIndented(t *testing.T) {
	for text, want := range map[string]string{
		"a short text":            "a short\n  text",
		"  of 3 workers, 2 run":   "  of 3\n    workers,\n    2 run",
		"  well":                  "  well",
		"unbreakableword and two": "unbreakableword\n  and two",
		"ääääää ääää":             "ääääää\n  ääää",
		"ääää ääää":               "ääää ääää", // characters count, not bytes
	} {
		if got := paragraph(text, 12, 2); got != want {
			t.Errorf("%q becomes\n%s\nwant\n%s", text, got, want)
		}
	}
}
