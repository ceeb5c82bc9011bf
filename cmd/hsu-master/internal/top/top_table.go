// Package top shows the usage of the workers, again and again, on a terminal or for machines.
package top

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// sample is the state of the workers at one moment.
type sample struct {
	at      time.Time
	workers []*adminpb.Worker
}

// load is the present use and rate of calls of a worker.
type load struct {
	id, status string
	cpu        *float64 // 1 is a whole core; nil: not known
	resident   int64
	restarts   uint64
	calls      float64 // a second
	inFlight   int64
	p99        time.Duration // of the calls since the sample before; 0: there were none
	slow       bool          // p99 is above all bounds
	age        string
}

// loads compares two samples. Without an earlier one, there are no rates.
func loads(before, now sample) []load {
	earlier := make(map[string]*adminpb.Worker, len(before.workers))
	for _, w := range before.workers {
		earlier[w.GetId()] = w
	}
	list := make([]load, 0, len(now.workers))
	for _, w := range now.workers {
		l := load{
			id: w.GetId(), status: w.GetStatus(), restarts: w.GetRestarts(), resident: w.GetUsage().GetResident(),
			inFlight: w.GetCalls().GetInFlight(), age: render.Age(w.GetStartedAt(), now.at),
		}
		if w.GetUsage() != nil {
			l.cpu = w.GetUsage().CpuShare
		}
		if old, passed := earlier[l.id], now.at.Sub(before.at).Seconds(); old != nil && passed > 0 {
			l.addCalls(old.GetCalls(), w.GetCalls(), passed)
		}
		list = append(list, l)
	}
	return list
}

// addCalls sets what follows from the figures of the calls before and now. A master that was restarted counts from 0.
func (l *load) addCalls(before, now *adminpb.Figures, seconds float64) {
	if now.GetCalls() < before.GetCalls() {
		return
	}
	l.calls = float64(now.GetCalls()-before.GetCalls()) / seconds
	counts := slices.Clone(now.GetLatency().GetCounts())
	for i, n := range before.GetLatency().GetCounts() {
		if i < len(counts) && counts[i] >= n {
			counts[i] -= n
		}
	}
	bound, ended := api.LatencyAt(&adminpb.Latency{Counts: counts}, 0.99)
	l.p99, l.slow = bound, ended && bound == 0
}

// The orders of the table.
const (
	ByCPU      = "cpu"
	byMemory   = "mem"
	byRestarts = "restarts"
	byCalls    = "calls"
	byName     = "name"
)

// Orders are the orders of the table.
var Orders = []string{ByCPU, byMemory, byRestarts, byCalls, byName}

// sortLoads sorts the largest first. Equal ones stay in the order of the master, which is that of the names.
func sortLoads(list []load, by string) {
	slices.SortStableFunc(list, func(a, b load) int {
		switch by {
		case ByCPU:
			return cmp.Compare(share(b), share(a))
		case byMemory:
			return cmp.Compare(b.resident, a.resident)
		case byRestarts:
			return cmp.Compare(b.restarts, a.restarts)
		case byCalls:
			return cmp.Compare(b.calls, a.calls)
		}
		return 0
	})
}

func share(l load) float64 {
	if l.cpu == nil {
		return 0
	}
	return *l.cpu
}

// loadColumn is a column of the table. The first one takes the width that the others leave.
type loadColumn struct {
	title string
	width int
	of    func(load) string
}

var loadColumns = []loadColumn{
	{"STATUS", 9, func(l load) string { return l.status }},
	{"CPU", 7, func(l load) string {
		if l.cpu == nil {
			return "-"
		}
		return fmt.Sprintf("%.1f%%", *l.cpu*100)
	}},
	{"MEM", 9, func(l load) string {
		if l.resident == 0 {
			return "-"
		}
		return unit.SizeText(l.resident)
	}},
	{"RESTARTS", 8, func(l load) string { return strconv.FormatUint(l.restarts, 10) }},
	{"CALLS/S", 9, func(l load) string { return rateText(l.calls) }},
	{"ACTIVE", 6, func(l load) string { return strconv.FormatInt(l.inFlight, 10) }},
	{"P99", 8, func(l load) string {
		switch {
		case l.slow:
			return "> 67s"
		case l.p99 == 0:
			return "-"
		}
		return l.p99.Round(l.p99 / 100).String()
	}},
	{"AGE", 4, func(l load) string { return l.age }},
}

func rateText(perSecond float64) string {
	if perSecond < 100 {
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	}
	return strconv.FormatFloat(perSecond, 'f', 0, 64)
}

// loadTable lays the table out for a terminal, or for a file if height is 0: then it has every worker.
type loadTable struct {
	width, height int
	colour        bool
	order         string
	offset        int    // the first worker shown
	note          string // the last line, such as that no master answers
}

const (
	longestName = 40
	leastName   = 12
)

// lines returns the lines of the table, each at most as wide as the terminal: totals, titles, a line a worker.
func (t loadTable) lines(list []load) []string {
	list = slices.Clone(list)
	sortLoads(list, t.order)
	shown := list
	if t.height > 0 {
		room := t.height - 3 // the last line of a terminal stays free
		if t.note != "" {
			room--
		}
		from := min(t.offset, max(0, len(list)-room))
		shown = list[from:min(len(list), from+max(0, room))]
	}
	columns, name := t.columns(shown)
	lines := []string{render.CutAt(totals(list, len(shown)), t.width)}
	title := []string{left("WORKER", name)}
	for _, c := range columns {
		title = append(title, right(c.title, c.width))
	}
	lines = append(lines, t.paint(strings.Join(title, " "), "\x1b[7m"))
	for _, l := range shown {
		line := []string{left(render.Printable(l.id), name)}
		for _, c := range columns {
			text := right(render.Printable(c.of(l)), c.width)
			if c.title == "STATUS" {
				text = t.paint(text, statusColour(l.status))
			}
			line = append(line, text)
		}
		lines = append(lines, strings.Join(line, " "))
	}
	if t.note != "" {
		lines = append(lines, render.CutAt(t.note, t.width))
	}
	return lines
}

// columns returns the columns for which there is room beside the names, and the width of the names.
func (t loadTable) columns(shown []load) (columns []loadColumn, name int) {
	name = leastName
	for _, l := range shown {
		name = max(name, min(utf8.RuneCountInString(render.Printable(l.id)), longestName))
	}
	for len(columns) < len(loadColumns) {
		next := append(slices.Clone(columns), loadColumns[len(columns)])
		if widthOf(next)+leastName > t.width {
			break
		}
		columns = next
	}
	return columns, max(1, min(name, t.width-widthOf(columns)))
}

func widthOf(columns []loadColumn) (sum int) {
	for _, c := range columns {
		sum += 1 + c.width
	}
	return sum
}

// left and right return the text with exactly the width, or three dots if that is less.
func left(text string, width int) string {
	text = render.CutAt(text, width)
	return text + blanks(text, width)
}

func right(text string, width int) string {
	text = render.CutAt(text, width)
	return blanks(text, width) + text
}

func blanks(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

func (t loadTable) paint(text, code string) string {
	if !t.colour || code == "" {
		return text
	}
	return code + text + "\x1b[0m"
}

func statusColour(status string) string {
	switch records.Status(status) {
	case records.StatusFailed, records.StatusAbsent:
		return "\x1b[31m"
	case records.StatusBackoff, records.StatusUnhealthy, records.StatusStarting, records.StatusStopping,
		records.StatusWaiting:
		return "\x1b[33m"
	case records.StatusRunning, records.StatusStopped, records.StatusCompleted, records.StatusScheduled:
	}
	return ""
}

// totals is the first line: the number of workers, and their use together.
func totals(list []load, shown int) string {
	running := 0
	var cpu, calls float64
	var resident, inFlight int64
	for _, l := range list {
		if l.status == string(records.StatusRunning) {
			running++
		}
		cpu, calls, resident, inFlight = cpu+share(l), calls+l.calls, resident+l.resident, inFlight+l.inFlight
	}
	text := fmt.Sprintf("%d of %s running, ", running, render.Count(len(list), "worker"))
	if shown < len(list) {
		text += fmt.Sprintf("%d shown, ", shown)
	}
	return text + fmt.Sprintf("CPU %.1f%%, MEM %s, %s calls/s, %d in flight",
		cpu*100, unit.SizeText(resident), rateText(calls), inFlight)
}
