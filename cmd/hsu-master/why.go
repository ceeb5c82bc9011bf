package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

func whyCommand() *cli.Command {
	cmd := leafOf("why", "explain why a worker is in its state, and what happens next", "ID|UNIT", false, why,
		jsonOutput())
	cmd.Description = `Without an argument, it explains each worker that is not well. It reads the
state files if no master runs.`
	return cmd
}

// whyJSON is what "why --json" prints.
type (
	whyJSON struct {
		Source  string            `json:"source"`
		Well    bool              `json:"well"` // whether all that was asked for is as wanted
		Workers []explanationJSON `json:"workers"`
	}
	explanationJSON struct {
		ID     string     `json:"id"`
		Unit   string     `json:"unit"`
		Status string     `json:"status"`
		Since  *time.Time `json:"since,omitempty"`
		Well   bool       `json:"well"`
		Why    string     `json:"why"`
		Next   string     `json:"next"`
		Do     string     `json:"do,omitempty"`
	}
)

func why(c *cli.Context, name string) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	var names []string
	if name != "" {
		names = []string{name}
	} else {
		for _, w := range state.GetWorkers() {
			if !well(w) {
				names = append(names, w.GetId())
			}
		}
	}
	resp := &adminpb.InspectResponse{}
	if len(names) > 0 {
		if resp, err = inspect(c.Context, f, state, &adminpb.InspectRequest{Names: names}); err != nil {
			return err
		}
	}
	live, now := state.GetSource() == api.SourceLive, time.Now()
	switch {
	case c.Bool(jsonFlag):
		return printJSON(c.App.Writer, whyToJSON(state.GetSource(), resp.GetInspections(), live, now))
	case name == "":
		printUnwell(c.App.Writer, state, resp.GetInspections(), now)
	default:
		printOffline(c.App.Writer, state)
		printWhy(c.App.Writer, name, resp, live, now)
	}
	return nil
}

// well reports whether a worker is as an operator wants it.
func well(w *adminpb.Worker) bool {
	if w.GetDesired() == string(records.DesiredStopped) {
		return w.GetStatus() == string(records.StatusStopped)
	}
	return good(w) && !slices.ContainsFunc(w.GetChecks(), missed)
}

// inspect returns the inspections of workers from the master whose state was read, or from the state files.
func inspect(
	ctx context.Context, f folders, state *adminpb.State, req *adminpb.InspectRequest,
) (*adminpb.InspectResponse, error) {
	if state.GetSource() == api.SourceLive {
		return liveInspect(ctx, f, req)
	}
	snap, err := store.ReadSnapshot(f.state)
	if err != nil {
		return nil, offline(f, err)
	}
	entries, err := store.ReadEvents(f.state)
	if err != nil {
		return nil, offline(f, err)
	}
	resp, err := api.OfflineInspect(snap, entries, f.state, req.GetNames())
	if unknown, ok := errors.AsType[*supervisor.UnknownError](err); ok {
		return nil, unknownName(unknown.Error())
	}
	return resp, err
}

func liveInspect(ctx context.Context, f folders, req *adminpb.InspectRequest) (*adminpb.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := dialAdmin(ctx, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	resp, err := adminpb.NewAdminClient(conn).Inspect(ctx, req)
	said := printable(status.Convert(err).Message())
	switch status.Code(err) {
	case codes.OK:
		return resp, nil
	case codes.NotFound:
		return nil, unknownName(said)
	case codes.Unimplemented:
		return nil, hint(errors.New("the running master is of an older release"),
			"restart it, its workers keep running")
	default:
		return nil, fmt.Errorf("ask the master: %s", said)
	}
}

func unknownName(said string) error {
	return hint(errors.New(printable(said)), `"hsu-master worker list" lists the workers`)
}

// screen is the number of lines that the explanation of one worker has at most, besides the prompt.
const screen = 23

// shortened bounds the workers of a unit that are explained one by one.
const shortened = 5

// printWhy explains the worker or the unit that was named.
func printWhy(w io.Writer, name string, resp *adminpb.InspectResponse, live bool, now time.Time) {
	list := resp.GetInspections()
	switch {
	case len(list) == 1:
		fmt.Fprint(w, explained(list[0], live, now))
	case len(list) == 0:
		for _, u := range resp.GetUnits() {
			fmt.Fprint(w, withoutWorkers(u))
		}
		if len(resp.GetUnits()) == 0 {
			fmt.Fprintf(w, "%s has no workers\n", printable(name))
		}
	default:
		fmt.Fprintf(w, "%s has %s:\n\n", printable(name), printable(statusCounts(statusesOf(list))))
		printShort(w, list, live, now)
	}
}

// withoutWorkers explains a unit that has no workers.
func withoutWorkers(u *adminpb.Unit) string {
	var p page
	p.add(u.GetName() + " has no workers")
	switch {
	case u.GetRetired():
		p.field("why", "it is not in the configuration any more", 1)
	case u.GetDisabled():
		do := "hsu-master unit enable " + u.GetName()
		if u.GetReplicas() == 0 {
			do += "  or, if its file disables it: enabled: true there, then hsu-master reload"
		}
		p.field("why", "it is disabled", 1)
		p.field("do", do, 2)
	case u.Scale != nil && u.GetScale() == 0:
		p.field("why", fmt.Sprintf("an operator has scaled it to 0, the configuration says %d", u.GetReplicas()), 2)
		p.field("do", fmt.Sprintf("hsu-master worker scale %s=%d", u.GetName(), max(1, u.GetReplicas())), 2)
	default:
		p.field("why", "its configuration says replicas: 0", 1)
		p.field("do", "hsu-master worker scale "+u.GetName()+"=1", 2)
	}
	return p.String()
}

// statusesOf returns the number of workers in each status.
func statusesOf(list []*adminpb.Inspection) map[string]int {
	counts := map[string]int{}
	for _, in := range list {
		counts[in.GetWorker().GetStatus()]++
	}
	return counts
}

// printShort explains in short the workers that are not well, and the others if all are.
func printShort(w io.Writer, list []*adminpb.Inspection, live bool, now time.Time) {
	shown := slices.DeleteFunc(slices.Clone(list), func(in *adminpb.Inspection) bool { return well(in.GetWorker()) })
	if len(shown) == 0 {
		shown = list
	}
	var p page
	for i, in := range shown {
		if i == shortened {
			p.add(fmt.Sprintf("and %d more: hsu-master worker list", len(shown)-i))
			break
		}
		e := explain(in, live, now)
		p.add(headOf(in, now))
		p.field("why", e.why, 2)
		if e.next != "goes on" {
			p.field("next", e.next, 2)
		}
	}
	fmt.Fprint(w, p.String())
	fmt.Fprintf(w, "\nmore: hsu-master why %s\n", printable(shown[0].GetWorker().GetId()))
}

// printUnwell explains all that is not well.
func printUnwell(w io.Writer, state *adminpb.State, list []*adminpb.Inspection, now time.Time) {
	live := state.GetSource() == api.SourceLive
	printOffline(w, state)
	printWriteError(w, state)
	if live && state.GetStatus() != string(supervisor.Running) {
		fmt.Fprintf(w, "the master is %s\n\n", printable(state.GetStatus()))
	}
	switch {
	case len(list) == 1:
		fmt.Fprint(w, explained(list[0], live, now))
	case len(list) > 1:
		fmt.Fprintf(w, "%d of %s are not well:\n\n", len(list), count(len(state.GetWorkers()), "worker"))
		printShort(w, list, live, now)
	case !live:
		fmt.Fprintf(w, "each of %s was well\n", count(len(state.GetWorkers()), "worker"))
	case state.GetWriteError() == "" && state.GetStatus() == string(supervisor.Running):
		fmt.Fprintf(w, "all is well: %s\n", wellText(state.GetWorkers()))
	}
	printBadRecords(w, state)
}

// wellText counts workers that are well, by status.
func wellText(workers []*adminpb.Worker) string {
	if len(workers) == 0 {
		return "there are no workers"
	}
	list := make([]*adminpb.Inspection, 0, len(workers))
	outdated := 0
	for _, w := range workers {
		list = append(list, &adminpb.Inspection{Worker: w})
		if w.GetOutdated() {
			outdated++
		}
	}
	text := printable(statusCounts(statusesOf(list)))
	if outdated > 0 {
		text += fmt.Sprintf("; %d outdated", outdated)
	}
	return text
}

// headOf is the first line about a worker: "web-0 is failed since 03:12:16, 4m ago".
func headOf(in *adminpb.Inspection, now time.Time) string {
	w := in.GetWorker()
	head := fmt.Sprintf("%s is %s", w.GetId(), phrase(w.GetStatus()))
	if in.GetSince() != nil {
		head += fmt.Sprintf(" since %s, %s ago", at(in.GetSince(), now), age(in.GetSince(), now))
	}
	return head
}

// explained returns one screen about a worker. The output gets the lines that the rest leaves.
func explained(in *adminpb.Inspection, live bool, now time.Time) string {
	w, e := in.GetWorker(), explain(in, live, now)
	var p page
	p.add(headOf(in, now))
	p.field("why", e.why, 3)
	p.field("next", e.next, 2)
	p.field("do", e.do, 2)
	if in.GetPolicy().GetSpent() > 0 {
		p.field("budget", fmt.Sprintf("%s; %d in all", budgetText(in.GetPolicy()), w.GetRestarts()), 1)
	}
	p.list("exits", exitLines(in, 4, now))
	addChecks(&p, w, now)
	p.field("calls", callsText(w.GetCalls()), 1)
	if w.GetPid() != 0 {
		p.field("process", processText(in, now), 1)
	}
	p.list("limits", unenforcedKeys(w))
	output := lastLines(w.GetLastOutput(), screen-len(p.lines))
	if len(output) == 1 { // there is room for all of it
		p.field("output", output[0], 3)
		return p.String()
	}
	p.list("output", output)
	return p.String()
}

// exitLines describes the last exits, the newest first.
func exitLines(in *adminpb.Inspection, most int, now time.Time) []string {
	var lines []string
	for _, e := range in.GetExits() {
		lines = append(lines, at(e.GetExit().GetAt(), now)+"  "+exitCause(e))
	}
	if last := in.GetWorker().GetLastExit(); len(lines) == 0 && last != nil { // recorded by an earlier release
		lines = append(lines, at(last.GetAt(), now)+"  "+exitCause(&adminpb.Inspection_PastExit{Exit: last}))
	}
	return lines[:min(len(lines), most)]
}

// addChecks adds the last answers to the checks, and when the next ones are due.
func addChecks(p *page, w *adminpb.Worker, now time.Time) {
	label := "health"
	for _, c := range w.GetChecks() {
		line := ""
		if c.GetUse() != "health" && c.GetUse() != "start" {
			line = c.GetUse() + " "
		}
		switch {
		case c.GetAnsweredAt() == nil:
			line += "no answer yet"
		case c.GetPassed():
			line += "passed " + age(c.GetAnsweredAt(), now) + " ago"
		default:
			line += "missed " + age(c.GetAnsweredAt(), now) + " ago"
		}
		line += ", asked again " + dueText(c, now) + ": " + c.GetProbe()
		if c.GetAnswer() != "" {
			line += ": " + c.GetAnswer()
		}
		p.field(label, line, 2)
		label = ""
	}
}

func callsText(f *adminpb.Figures) string {
	if f == nil {
		return ""
	}
	var failed uint64
	for _, n := range f.GetFailures() {
		failed += n
	}
	text := fmt.Sprintf("%d in flight, %d ended, %d failed", f.GetInFlight(), f.GetCalls(), failed)
	if bound, _ := latencyAt(f.GetLatency(), 0.99); bound > 0 {
		text += ", p99 up to " + bound.String()
	}
	return text
}

func processText(in *adminpb.Inspection, now time.Time) string {
	w := in.GetWorker()
	parts := []string{fmt.Sprintf("pid %d", w.GetPid())}
	if w.GetPort() != 0 {
		parts = append(parts, fmt.Sprintf("port %d", w.GetPort()))
	}
	parts = append(parts, "started "+at(w.GetStartedAt(), now))
	for _, column := range usageColumns[:3] {
		if value := column.of(w); value != "-" {
			parts = append(parts, strings.ToLower(column.title)+" "+value)
		}
	}
	return strings.Join(parts, ", ")
}

// unenforcedKeys returns the limits that are not enforced.
func unenforcedKeys(w *adminpb.Worker) []string {
	var lines []string
	for _, limit := range w.GetUnenforced() {
		keys, _, _ := strings.Cut(limit, ":")
		lines = append(lines, keys+" not enforced")
	}
	return lines
}

// lastLines returns the last of the lines, marked as output.
func lastLines(output []string, most int) []string {
	var lines []string
	for _, line := range output[max(0, len(output)-max(0, most)):] {
		lines = append(lines, "| "+line)
	}
	return lines
}

func whyToJSON(source string, list []*adminpb.Inspection, live bool, now time.Time) whyJSON {
	shown := whyJSON{Source: source, Well: true, Workers: make([]explanationJSON, 0, len(list))}
	for _, in := range list {
		w, e := in.GetWorker(), explain(in, live, now)
		shown.Well = shown.Well && well(w)
		shown.Workers = append(shown.Workers, explanationJSON{
			ID: w.GetId(), Unit: w.GetUnit(), Status: w.GetStatus(), Since: timeOf(in.GetSince()), Well: well(w),
			Why: e.why, Next: e.next, Do: e.do,
		})
	}
	return shown
}
