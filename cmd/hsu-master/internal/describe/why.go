package describe

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
)

// Well reports whether a worker is as an operator wants it.
func Well(w *adminpb.Worker) bool {
	if w.GetDesired() == string(records.DesiredStopped) {
		return w.GetStatus() == string(records.StatusStopped)
	}
	return good(w) && !slices.ContainsFunc(w.GetChecks(), missed)
}

// screen is the number of lines that the explanation of one worker has at most, besides the prompt.
const screen = 23

// leastOutput is the number of lines of output that a narrow page has at least.
const leastOutput = 4

// shortened bounds the workers of a unit that are explained one by one.
const shortened = 5

// Why explains the worker or the unit that was named.
func Why(w io.Writer, name string, resp *adminpb.InspectResponse, live bool, now time.Time) {
	list := resp.GetInspections()
	switch {
	case len(list) == 1:
		fmt.Fprint(w, explained(render.PageFor(w), list[0], live, now))
	case len(list) == 0:
		for _, u := range resp.GetUnits() {
			fmt.Fprint(w, withoutWorkers(render.PageFor(w), u, live))
		}
		if len(resp.GetUnits()) == 0 {
			fmt.Fprintf(w, "%s has no workers\n", render.Printable(name))
		}
	default:
		fmt.Fprintf(w, "%s\n\n", render.OnTerminal(w, fmt.Sprintf("%s has %s:", render.Printable(name),
			render.Printable(StatusCounts(statusesOf(list))))))
		printShort(w, list, live, now)
	}
}

// withoutWorkers explains a unit that has no workers. live is false while no master runs: then it is not known whether
// the file disables the unit.
func withoutWorkers(p render.Page, u *adminpb.Unit, live bool) string {
	p.Add(u.GetName() + " has no workers")
	switch {
	case u.GetRetired():
		p.Field("why", "it is not in the configuration any more", 1)
	case u.GetDisabled():
		do := "hsu-master unit enable " + u.GetName()
		if u.GetReplicas() == 0 {
			do += "  or, if its file disables it: enabled: true there, then hsu-master reload"
		}
		p.Field("why", "it is disabled", 1)
		p.Field("do", do, 2)
	case u.Scale != nil && u.GetScale() == 0:
		p.Field("why", fmt.Sprintf("an operator has scaled it to 0, the configuration says %d", u.GetReplicas()), 2)
		p.Field("do", fmt.Sprintf("hsu-master worker scale %s=%d", u.GetName(), max(1, u.GetReplicas())), 2)
	case !live:
		p.Field("why", "its configuration says replicas: 0 or enabled: false", 1)
		p.Field("do", "change that, then start the master", 1)
	default:
		p.Field("why", "its configuration says replicas: 0", 1)
		p.Field("do", "hsu-master worker scale "+u.GetName()+"=1", 2)
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
	shown := slices.DeleteFunc(slices.Clone(list), func(in *adminpb.Inspection) bool { return Well(in.GetWorker()) })
	if len(shown) == 0 {
		shown = list
	}
	p := render.PageFor(w)
	for i, in := range shown {
		if i == shortened {
			p.Add(fmt.Sprintf("and %d more: hsu-master worker list", len(shown)-i))
			break
		}
		e := Explain(in, live, now)
		p.Add(headOf(in, now))
		p.Field("why", e.Why, 2)
		if e.Next != "goes on" {
			p.Field("next", e.Next, 2)
		}
	}
	fmt.Fprint(w, p.String())
	more := "more: hsu-master why " + render.Printable(shown[0].GetWorker().GetId())
	fmt.Fprintf(w, "\n%s\n", render.OnTerminal(w, more))
}

// Unwell explains the master and each worker that is not as an operator wants it, or reports that all are.
func Unwell(w io.Writer, state *adminpb.State, list []*adminpb.Inspection, now time.Time) {
	live := state.GetSource() == api.SourceLive
	Offline(w, state)
	WriteError(w, state)
	if live && state.GetStatus() != string(supervisor.Running) {
		fmt.Fprintf(w, "the master is %s\n\n", render.Printable(state.GetStatus()))
	}
	switch {
	case len(list) == 1:
		fmt.Fprint(w, explained(render.PageFor(w), list[0], live, now))
	case len(list) > 1:
		fmt.Fprintf(w, "%d of %s are not well:\n\n", len(list), render.Count(len(state.GetWorkers()), "worker"))
		printShort(w, list, live, now)
	case !live:
		fmt.Fprintf(w, "each of %s was well\n", render.Count(len(state.GetWorkers()), "worker"))
	case state.GetWriteError() == "" && state.GetStatus() == string(supervisor.Running):
		fmt.Fprintln(w, render.OnTerminal(w, "all is well: "+wellText(state.GetWorkers())))
	}
	BadRecords(w, state)
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
	text := render.Printable(StatusCounts(statusesOf(list)))
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
		head += fmt.Sprintf(" since %s, %s ago", render.At(in.GetSince(), now), render.Age(in.GetSince(), now))
	}
	return head
}

// explained returns one screen about a worker. The output gets the lines that the rest leaves.
func explained(p render.Page, in *adminpb.Inspection, live bool, now time.Time) string {
	w, e := in.GetWorker(), Explain(in, live, now)
	p.Add(headOf(in, now))
	p.Field("why", e.Why, 3)
	p.Field("next", e.Next, 2)
	p.Field("do", e.Do, 3)
	if in.GetPolicy().GetSpent() > 0 {
		p.Field("budget", fmt.Sprintf("%s; %d in all", budgetText(in.GetPolicy()), w.GetRestarts()), 1)
	}
	p.List("exits", exitLines(in, 4, now))
	addChecks(&p, w, now)
	p.Field("calls", callsText(w.GetCalls()), 1)
	if w.GetPid() != 0 {
		p.Field("process", processText(in, now), 1)
	}
	p.List("limits", unenforcedKeys(w))
	rest := screen - p.Len()
	if p.Narrow() {
		rest = max(rest, leastOutput)
	}
	p.Output("output", w.GetLastOutput(), rest)
	return p.String()
}

// exitLines describes the last exits, the newest first.
func exitLines(in *adminpb.Inspection, most int, now time.Time) []string {
	var lines []string
	for _, e := range in.GetExits() {
		lines = append(lines, render.At(e.GetExit().GetAt(), now)+"  "+exitCause(e, in.GetEvents()))
	}
	if last := in.GetWorker().GetLastExit(); len(lines) == 0 && last != nil { // recorded by an earlier release
		cause := exitCause(&adminpb.Inspection_PastExit{Exit: last}, in.GetEvents())
		lines = append(lines, render.At(last.GetAt(), now)+"  "+cause)
	}
	return lines[:min(len(lines), most)]
}

// addChecks adds the last answers to the checks, and when the next ones are due.
func addChecks(p *render.Page, w *adminpb.Worker, now time.Time) {
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
			line += "passed " + render.Age(c.GetAnsweredAt(), now) + " ago"
		default:
			line += "missed " + render.Age(c.GetAnsweredAt(), now) + " ago"
		}
		line += ", asked again " + dueText(c, now) + ": " + c.GetProbe()
		if c.GetAnswer() != "" {
			line += ": " + c.GetAnswer()
		}
		p.Field(label, line, 2)
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
	if bound, _ := api.LatencyAt(f.GetLatency(), 0.99); bound > 0 {
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
	parts = append(parts, "started "+render.At(w.GetStartedAt(), now))
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

// outputLines returns the lines marked as output.
func outputLines(output []string) []string {
	lines := make([]string, 0, len(output))
	for _, line := range output {
		lines = append(lines, "| "+line)
	}
	return lines
}
