package top

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

// threeAM is the present of these tests.
var threeAM = time.Date(2026, 2, 3, 3, 12, 16, 0, time.Local)

// loaded returns a worker with its use of the processor and its calls: the counts are those of the buckets.
func loaded(id string, cpu float64, resident int64, restarts uint64, counts ...uint64) *adminpb.Worker {
	w := &adminpb.Worker{
		Id: id, Status: "running", Restarts: restarts,
		Usage:     &adminpb.Usage{CpuShare: &cpu, Resident: resident},
		StartedAt: timestamppb.New(threeAM.Add(-time.Minute)),
	}
	if counts != nil {
		w.Calls = &adminpb.Figures{Latency: &adminpb.Latency{Counts: counts}}
		for _, n := range counts {
			w.Calls.Calls += n
		}
	}
	return w
}

func twoSamples() []load {
	return loads(
		sample{threeAM.Add(-2 * time.Second), []*adminpb.Worker{
			loaded("web-0", 0.5, 2<<20, 0, 100), loaded("web-1", 0.25, 3<<20, 1, 500), loaded("db-0", 0, 1<<20, 2),
		}},
		sample{threeAM, []*adminpb.Worker{
			// Of the new calls, 99 took up to 64 microseconds, and one a millisecond.
			loaded("web-0", 0.5, 2<<20, 0, 100, 99, 0, 0, 0, 1),
			loaded("web-1", 0.25, 3<<20, 1, 10), // a new master counts from 0
			loaded("db-0", 0, 1<<20, 2),
		}})
}

func TestTopTable(t *testing.T) {
	want := `3 of 3 workers running, CPU 75.0%, MEM 6MiB, 50.0 calls/s, 0 in flight
WORKER          STATUS     CPU       MEM RESTARTS   CALLS/S ACTIVE      P99  AGE
web-0          running   50.0%      2MiB        0      50.0      0     64µs   1m
web-1          running   25.0%      3MiB        1       0.0      0        -   1m
db-0           running    0.0%      1MiB        2       0.0      0        -   1m`
	lines := loadTable{width: 80, order: ByCPU}.lines(twoSamples())
	if diff := cmp.Diff(want, strings.Join(lines, "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTopOrders(t *testing.T) {
	for order, want := range map[string]string{
		ByCPU: "web-0 web-1 db-0", byMemory: "web-1 web-0 db-0", byRestarts: "db-0 web-1 web-0",
		byCalls: "web-0 web-1 db-0", byName: "web-0 web-1 db-0",
	} {
		var ids []string
		for _, line := range (loadTable{width: 80, order: order}).lines(twoSamples())[2:] {
			ids = append(ids, strings.Fields(line)[0])
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("by %s: %s, want %s", order, got, want)
		}
	}
}

// Of many workers, those are shown that fit, with the totals of all.
func TestTopFitsTheTerminal(t *testing.T) {
	var workers []*adminpb.Worker
	for i := range 300 {
		workers = append(workers, loaded(fmt.Sprintf("%s-%d\x1b[2J", strings.Repeat("w", i%60), i), 0.1, 1<<20, 0))
	}
	list := loads(sample{}, sample{threeAM, workers})
	for width := 1; width <= 200; width += 7 {
		for height := 1; height <= 60; height += 3 {
			table := loadTable{width: width, height: height, order: byName, offset: 290, note: "no master answers"}
			lines := table.lines(list)
			if len(lines) > max(height, 3) {
				t.Fatalf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				if utf8.RuneCountInString(line) > max(width, 3) || strings.ContainsRune(line, '\x1b') {
					t.Fatalf("%dx%d: line %q", width, height, line)
				}
			}
		}
	}
	lines := loadTable{width: 80, height: 24, order: byName, offset: 1000}.lines(list)
	if len(lines) != 23 || !strings.Contains(lines[0], "300 of 300 workers running, 21 shown, ") ||
		!strings.Contains(lines[22], "w") {
		t.Errorf("%q", lines)
	}
}

func TestTopColours(t *testing.T) {
	list := []load{{id: "web-0", status: "failed"}, {id: "web-1", status: "running"}}
	painted := strings.Join(loadTable{width: 80, order: byName, colour: true}.lines(list), "\n")
	if !strings.Contains(painted, "\x1b[31m   failed\x1b[0m") || strings.Count(painted, "\x1b[0m") != 2 {
		t.Errorf("%q", painted)
	}
	if plain := strings.Join(loadTable{width: 80, order: byName}.lines(list), "\n"); strings.Contains(plain, "\x1b") {
		t.Errorf("without colours: %q", plain)
	}
}

func TestTopKeys(t *testing.T) {
	w := watcher{list: make([]load, 3), table: loadTable{order: ByCPU}}
	for _, key := range []byte("\x1b[B\x1b[B\x1b[B\x1b[B\x1b[A") {
		if !w.press(key) {
			t.Fatalf("key %q ends it", key)
		}
	}
	if w.table.offset != 1 {
		t.Errorf("scrolled to %d, want 1", w.table.offset)
	}
	if w.press('m'); w.table.order != byMemory || w.table.offset != 0 {
		t.Errorf("m: order %s from %d", w.table.order, w.table.offset)
	}
	if w.press('q') {
		t.Error("q does not end it")
	}
}

// With usual names, all columns fit into the width of a page.
func TestTopOfUsualNames(t *testing.T) {
	lines := loadTable{width: render.PageWidth}.lines(twoSamples())
	if len(lines) != 5 {
		t.Errorf("%d lines, want 5", len(lines))
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > render.PageWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
