//go:build e2e && crash && linux

package crash

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// elsewhere returns the reason why no operation here passes a point; empty if one does.
func elsewhere(p crashpoint.Point) string {
	cgroups := []crashpoint.Point{crashpoint.Cgroup, crashpoint.CgroupKill, crashpoint.CgroupGone}
	collapsing := []crashpoint.Point{crashpoint.LogBlank, crashpoint.LogBlankSync, crashpoint.LogCollapse}
	limits := []crashpoint.Point{crashpoint.CgroupMove, crashpoint.CgroupEnable, crashpoint.CgroupLimit}
	switch {
	case slices.Contains(append(cgroups, limits...), p) && operationsOnCgroups() == nil:
		return "only root can delegate a cgroup, where those of version 2 are mounted"
	case slices.Contains(limits, p) && !harness.HasController("pids"):
		return "the cgroups of version 2 have no controllers here"
	case p == crashpoint.Scope:
		return "the masters here are no services of systemd: the tests of e2e/systemd kill one at this point"
	case slices.Contains([]crashpoint.Point{crashpoint.LogTruncate, crashpoint.LogRest}, p):
		return "the file systems here can make holes: the tests of supervisor/logs/rotate kill where they cannot"
	case slices.Contains(collapsing, p) && !collapses():
		return "the file system of temporary files cannot remove blocks of a file"
	case row(p) == string(crashpoint.UnitFile) && underSystemd():
		return "the systemd of this machine would load the unit"
	}
	return ""
}

// table is the matrix: for each point and operation, how often a master was killed there first, and how often every
// promise was kept.
type table struct {
	ops   []*operation
	cells map[crashpoint.Point]map[*operation]*tally
	kinds map[int]*tally // by the number of kills
}

type tally struct{ tried, held, missed int }

func (c *tally) add(more tally) {
	c.tried += more.tried
	c.held += more.held
	c.missed += more.missed
}

func tabulate(ops []*operation, outcomes ...[]outcome) *table {
	tb := &table{
		ops: ops, cells: map[crashpoint.Point]map[*operation]*tally{}, kinds: map[int]*tally{1: {}, 2: {}, 3: {}},
	}
	for _, some := range outcomes {
		for _, o := range some {
			tb.count(o)
		}
	}
	return tb
}

func (tb *table) count(o outcome) {
	p := o.kills[0].point()
	if tb.cells[p] == nil {
		tb.cells[p] = map[*operation]*tally{}
	}
	if tb.cells[p][o.op] == nil {
		tb.cells[p][o.op] = &tally{}
	}
	for _, c := range []*tally{tb.cells[p][o.op], tb.kinds[len(o.kills)]} {
		switch {
		case o.reached < len(o.kills) && o.err == nil:
			c.missed++
		case o.err == nil:
			c.held++
			fallthrough
		default:
			c.tried++
		}
	}
}

// check fails if a point was passed by no operation and is not excused.
func (tb *table) check(t *testing.T) {
	if len(tb.ops) != len(operations()) {
		t.Log("not all operations were tried, so not all points can have been")
		return
	}
	for _, p := range crashpoint.All() {
		tried := 0
		for _, c := range tb.cells[p] {
			tried += c.tried
		}
		why := elsewhere(p)
		switch {
		case tried == 0 && why == "":
			t.Errorf("point %s was not passed by any operation", p)
		case tried == 0:
			t.Logf("point %s was not passed: %s", p, why)
		}
	}
}

func (c *tally) String() string {
	if c == nil || c.tried == 0 {
		return "-"
	}
	if c.held == c.tried {
		return fmt.Sprint(c.tried)
	}
	return fmt.Sprintf("**%d of %d**", c.held, c.tried)
}

// row returns the line of the table for a point; the four steps of replacing a file share one.
func row(p crashpoint.Point) string {
	for _, step := range crashpoint.Point("").Steps() {
		name, found := strings.CutSuffix(string(p), string(step))
		if found && slices.Contains(crashpoint.All(), crashpoint.Point(name).Rename()) {
			return name
		}
	}
	return string(p)
}

// String returns the matrix in Markdown. The steps of replacing a file share a row.
func (tb *table) String() string {
	var rows []string
	sums := map[string]map[*operation]*tally{}
	for _, p := range crashpoint.All() {
		name := row(p)
		if sums[name] == nil {
			rows, sums[name] = append(rows, name), map[*operation]*tally{}
		}
		for op, c := range tb.cells[p] {
			if sums[name][op] == nil {
				sums[name][op] = &tally{}
			}
			sums[name][op].add(*c)
		}
	}
	var b strings.Builder
	b.WriteString("| point |")
	for i := range tb.ops {
		fmt.Fprintf(&b, " %d |", i+1)
	}
	b.WriteString(" all |\n|---|" + strings.Repeat("---:|", len(tb.ops)+1) + "\n")
	for _, name := range rows {
		fmt.Fprintf(&b, "| %s |", name)
		var all tally
		for _, op := range tb.ops {
			fmt.Fprintf(&b, " %s |", sums[name][op])
			if c := sums[name][op]; c != nil {
				all.add(*c)
			}
		}
		fmt.Fprintf(&b, " %s |\n", &all)
	}
	b.WriteString("\n")
	for i, op := range tb.ops {
		fmt.Fprintf(&b, "%d %s", i+1, op.name)
		if i+1 < len(tb.ops) {
			b.WriteString(" · ")
		}
	}
	b.WriteString("\n\n| kills | tried | held | not reached |\n|---|---:|---:|---:|\n")
	for n, name := range []string{"one", "two", "three"} {
		c := tb.kinds[n+1]
		fmt.Fprintf(&b, "| %s | %d | %d | %d |\n", name, c.tried, c.held, c.missed)
	}
	return b.String()
}
