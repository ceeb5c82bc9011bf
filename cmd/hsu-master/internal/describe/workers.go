// Package describe explains the state of a master to people: its workers in a table, why each is in its status and
// what comes next, one worker in all its details. It is pure: messages of the admin API in, text out.
package describe

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/history"
)

// Workers prints a table, and below it the reason why a worker is not running and the checks that it missed. A wide
// table has the resources that the processes of each worker use, too.
func Workers(w io.Writer, state *adminpb.State, now time.Time, wide bool) error {
	workers := state.GetWorkers()
	if len(workers) == 0 {
		text := "no workers"
		if recovering(state) {
			text = "the master is recovering its workers"
		}
		_, err := fmt.Fprintln(w, text)
		return err
	}
	titles := []string{"WORKER", "STATUS", "PID", "PORT", "AGE", "RESTARTS", "LAST EXIT", "CHECK"}
	var more []column
	if wide {
		more = usageColumns
	}
	for _, column := range more {
		titles = append(titles, column.title)
	}
	table := render.NewTable(append(titles, "NOTE")...)
	for _, item := range workers {
		cells := []string{
			render.Printable(item.GetId()), render.Printable(item.GetStatus()),
			render.Number(item.GetPid()), render.Number(item.GetPort()),
			render.Age(item.GetStartedAt(), now), strconv.FormatUint(item.GetRestarts(), 10),
			render.Printable(exitText(item.GetLastExit(), now)), lastCheck(item.GetChecks(), now),
		}
		for _, column := range more {
			cells = append(cells, column.of(item))
		}
		table.Row(append(cells, note(item, now))...)
	}
	if err := table.Print(w); err != nil {
		return err
	}
	for _, item := range workers {
		printMissed(w, item, now)
		reason := reasonText(item, now)
		if reason == "" && len(item.GetLastOutput()) == 0 {
			continue
		}
		text := fmt.Sprintf("%s is %s: %s", item.GetId(), phrase(item.GetStatus()), reason)
		fmt.Fprintf(w, "\n%s\n", render.OnTerminal(w, render.Printable(text)))
		for _, line := range item.GetLastOutput() {
			fmt.Fprintf(w, "  | %s\n", render.Printable(line))
		}
		if item.GetStatus() == string(records.StatusFailed) {
			fmt.Fprintf(w, "  next: mend it, then \"hsu-master worker restart %s\"\n", render.Printable(item.GetId()))
		}
	}
	return nil
}

// lastCheck returns how long ago a worker was checked last, or when it is checked first. Of several checks it shows the
// first that was missed.
func lastCheck(checks []*adminpb.Check, now time.Time) string {
	if len(checks) == 0 {
		return "-"
	}
	shown := checks[0]
	if i := slices.IndexFunc(checks, missed); i >= 0 {
		shown = checks[i]
	}
	result := "passed "
	switch at := shown.GetAnsweredAt(); {
	case at == nil && shown.GetDueAt() == nil:
		return "no answer yet"
	case at == nil:
		return "next " + dueText(shown, now)
	case !shown.GetPassed():
		result = "missed "
	}
	return result + render.Age(shown.GetAnsweredAt(), now)
}

func missed(c *adminpb.Check) bool { return c.GetAnsweredAt() != nil && !c.GetPassed() }

// dueText returns when a check is made next.
func dueText(c *adminpb.Check, now time.Time) string {
	if due := c.GetDueAt(); due != nil && due.AsTime().After(now) {
		return "in " + render.ShortAge(due.AsTime().Sub(now))
	}
	return "now"
}

// printMissed prints the last answers to the checks that a started worker has missed.
func printMissed(w io.Writer, item *adminpb.Worker, now time.Time) {
	if item.GetStatus() == string(records.StatusStarting) {
		return // its reason has the answer
	}
	for _, c := range item.GetChecks() {
		if missed(c) {
			fmt.Fprintf(w, "\n%s\n",
				render.OnTerminal(w, fmt.Sprintf("%s missed its check of %s %s ago, next %s: %s: %s",
					render.Printable(item.GetId()), render.Printable(c.GetUse()), render.Age(c.GetAnsweredAt(), now),
					dueText(c, now),
					render.Printable(c.GetProbe()), render.Printable(c.GetAnswer()))))
		}
	}
}

// reasonText returns the reason why a worker is not running and when it is started again, or "" if none is known.
func reasonText(w *adminpb.Worker, now time.Time) string {
	if w.GetWaitingFor() != "" {
		return strings.TrimPrefix(w.GetReason()+"; waiting for "+w.GetWaitingFor(), "; ")
	}
	if w.GetRetryAt() == nil {
		return w.GetReason()
	}
	again := "started again in "
	if w.GetStatus() == string(records.StatusFailed) {
		again = "tried again in "
	}
	return w.GetReason() + "; " + again + render.ShortAge(w.GetRetryAt().AsTime().Sub(now))
}

// phrase returns a status as it follows "is" in a sentence.
func phrase(status string) string {
	if status == string(records.StatusBackoff) {
		return "in backoff"
	}
	return status
}

func note(w *adminpb.Worker, now time.Time) string {
	var notes []string
	if due := render.LocalTime(w.GetNextDueAt()); due != nil {
		notes = append(notes, nextDue(*due, now))
	}
	if w.GetUnmanaged() {
		notes = append(notes, strings.TrimSuffix("unmanaged: "+render.Printable(w.GetProgram()), ": "))
	}
	if by := w.GetStoppedBy(); by != nil {
		notes = append(notes, fmt.Sprintf("stopped by user %d", by.GetUid()))
	}
	if w.GetAdopted() {
		notes = append(notes, "adopted")
	}
	if w.GetOutdated() {
		notes = append(notes, "outdated")
	}
	for _, limit := range w.GetUnenforced() {
		keys, _, _ := strings.Cut(limit, ":")
		notes = append(notes, render.Printable(keys)+" not enforced")
	}
	if probe := w.GetProbe(); probe != "" && probe != "ping" {
		notes = append(notes, "probe "+render.Printable(probe))
	}
	if text := w.GetStatusText(); text != "" {
		notes = append(notes, "status "+render.Printable(text))
	}
	return strings.Join(notes, ", ")
}

// nextDue returns when a worker is run next, such as "next 03:00 in 4h".
func nextDue(due, now time.Time) string {
	format := "15:04"
	if due.Sub(now) >= 24*time.Hour {
		format = time.DateOnly + " " + format
	}
	if !due.After(now) {
		return "was due " + due.Format(time.DateOnly+" 15:04")
	}
	return "next " + due.Format(format) + " in " + render.ShortAge(due.Sub(now))
}

// exitText returns how a worker ended last, and how long ago.
func exitText(e *adminpb.Exit, now time.Time) string {
	switch {
	case e == nil:
		return "-"
	case !e.GetKnown():
		return "unknown " + render.Age(e.GetAt(), now)
	case e.Signal != nil:
		return e.GetSignal() + " " + render.Age(e.GetAt(), now)
	}
	return fmt.Sprintf("code %d %s", e.GetCode(), render.Age(e.GetAt(), now))
}

// StatusCounts returns the statuses with their numbers, such as "1 failed, 2 running".
func StatusCounts(statuses map[string]int) string {
	var parts []string
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		parts = append(parts, fmt.Sprintf("%d %s", statuses[status], phrase(status)))
	}
	return render.OrDash(strings.Join(parts, ", "))
}

// OperatorText returns the user and the command of an operator.
func OperatorText(o *records.Operator) string {
	text := history.UserName(o.UID)
	if text == "" {
		text = fmt.Sprintf("uid %d", o.UID)
	}
	if o.Command != "" {
		text += ": " + o.Command
	}
	return render.Printable(text)
}
