package describe

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

// section prints a title and the rows that have a value, wrapped. A word that does not fit has a line of its own.
func section(w io.Writer, title string, rows ...[2]string) {
	const width, indent = 18, 2
	room := render.WidthFor(w) - width - indent
	begun := false
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if !begun {
			fmt.Fprintf(w, "\n%s\n", title)
			begun = true
		}
		label, text := render.Printable(row[0]), render.Printable(row[1])
		parts := render.Wrap(text, max(1, room))
		if slices.ContainsFunc(parts, func(part string) bool { return utf8.RuneCountInString(part) > room }) {
			fmt.Fprintf(w, "  %s\n    %s\n", label, render.Paragraph(text, render.WidthFor(w), 2*indent))
			continue
		}
		fmt.Fprintf(w, "  %s%s\n", render.Padded(label, width),
			strings.Join(parts, "\n"+strings.Repeat(" ", width+indent)))
	}
}

// Inspection prints the sections of one worker. Nothing is left out, so a long word may be wider than a terminal.
func Inspection(w io.Writer, in *adminpb.Inspection, live bool, now time.Time) {
	item, e := in.GetWorker(), Explain(in, live, now)
	fmt.Fprintln(w, render.Printable(headOf(in, now)))
	section(
		w, "state", [2]string{"why", e.Why}, [2]string{"next", e.Next}, [2]string{"do", e.Do},
		[2]string{"unit", item.GetUnit()}, [2]string{"desired", item.GetDesired()},
		[2]string{"notes", note(item, now)},
		[2]string{"outdated", strings.Join(in.GetOutdated(), ", ")},
		[2]string{"starts", fmt.Sprintf("%d, %s by policy", item.GetIncarnation(),
			render.Count(int(item.GetRestarts()), "restart"))}, //nolint:gosec // a count
		[2]string{"budget", budgetText(in.GetPolicy())},
		[2]string{"modules", modulesText(item.GetAnnouncements())},
		[2]string{"calls", callsText(item.GetCalls())},
		[2]string{"spec hash", in.GetSpecHash()},
		[2]string{"log", in.GetLog()},
	)
	section(
		w, "process", [2]string{"pid", joined(present(item.GetPid()))}, [2]string{"family", joined(in.GetPids())},
		[2]string{"port", joined(present(item.GetPort()))}, [2]string{"listens on", joined(in.GetListens())},
		[2]string{"started", orNothing(item.GetStartedAt() != nil, render.At(item.GetStartedAt(), now))},
		[2]string{"command line", strings.Join(in.GetCommandLine(), " ")},
		[2]string{"cgroup", in.GetCgroup()}, [2]string{"not seen", in.GetHidden()},
		[2]string{"usage", allUsage(item)},
		[2]string{"token", item.GetToken()},
	)
	var settings [][2]string
	for _, s := range in.GetSettings() {
		settings = append(settings, [2]string{s.GetKey(), s.GetValue()})
	}
	section(w, "unit in force", settings...)
	printLines(w, "limits that are not enforced", item.GetUnenforced())
	p := render.PageFor(w)
	addChecks(&p, item, now)
	if p.Len() > 0 {
		fmt.Fprintf(w, "\nchecks\n%s", p.String())
	}
	printLines(w, "exits, the newest first", exitLines(in, len(in.GetExits())+1, now))
	printLines(w, "events, the newest first", eventLines(in, now))
	printLines(w, "output", outputLines(item.GetLastOutput()))
}

func printLines(w io.Writer, title string, lines []string) {
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", title)
	}
	for _, line := range lines {
		fmt.Fprintf(w, "  %s\n", render.Paragraph(render.Printable(line), render.WidthFor(w)-2, 2*2))
	}
}

func orNothing(known bool, text string) string {
	if !known {
		return ""
	}
	return text
}

// present returns the number, or nothing if it is 0.
func present(n int32) []int32 {
	if n == 0 {
		return nil
	}
	return []int32{n}
}

func joined(numbers []int32) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(int(n))
	}
	return strings.Join(texts, " ")
}

func budgetText(p *adminpb.Inspection_Policy) string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%d of %s within %s spent", p.GetSpent(), render.Count(int(p.GetRestarts()), "restart"),
		render.ShortAge(p.GetWindow().AsDuration()))
}

func modulesText(announcements []*adminpb.Announcement) string {
	var modules []string
	for _, a := range announcements {
		modules = append(modules, fmt.Sprintf("%s (pid %d)", a.GetModule(), a.GetPid()))
	}
	return strings.Join(modules, ", ")
}

func allUsage(w *adminpb.Worker) string {
	var parts []string
	for _, column := range usageColumns {
		if value := column.of(w); value != "-" {
			parts = append(parts, strings.ToLower(column.title)+" "+value)
		}
	}
	return strings.Join(parts, ", ")
}

func eventLines(in *adminpb.Inspection, now time.Time) []string {
	var lines []string
	for _, e := range in.GetEvents() {
		line := render.At(e.GetTime(), now) + "  " + render.Padded(e.GetType(), 12) + e.GetDetail()
		if by := api.OperatorOf(e.GetOperator()); by != nil {
			line += " by " + OperatorText(by)
		}
		lines = append(lines, line)
	}
	return lines
}
