package offsets

import (
	"testing"
	"time"

	"github.com/core-tools/hsu-master/supervisor/logs/layout"
)

func TestRotated(t *testing.T) {
	var tables Tables
	table := tables.Of("a.log")
	if tables.Of("a.log") != table || tables.Of("b.log") == table {
		t.Fatal("the tables are mixed up")
	}
	table.Rotate(layout.Marker{ID: 7, N: 1, End: 110}, 10)
	table.Rotate(layout.Marker{ID: 8, N: 2, End: 50}, 0)
	check := func(at int64, want Rotated, found bool) {
		t.Helper()
		if got, ok := table.Rotated(at); got != want || ok != found {
			t.Errorf("at %d: %+v, %v, want %+v, %v", at, got, ok, want, found)
		}
	}
	first, second := Rotated{0, 100, 1, 7}, Rotated{100, 150, 2, 8}
	check(0, first, true)
	check(99, first, true)
	check(100, second, true)
	check(150, Rotated{}, false)
	if table.Base() != 150 || table.Moves() != 2 {
		t.Errorf("base %d, %d moves", table.Base(), table.Moves())
	}
	table.Skip(3) // NULs
	check(151, Rotated{100, 153, 2, 8}, true)
	table.Forget(1)
	check(0, Rotated{100, 153, 2, 8}, true)
	// All files are gone, and the numbers begin anew.
	table.Rotate(layout.Marker{ID: 9, N: 1, End: 7}, 0)
	check(0, Rotated{153, 160, 1, 9}, true)
	table.Forget(-1)
	check(0, Rotated{}, false)
}

func TestGaps(t *testing.T) {
	table := &Table{}
	table.Rotate(layout.Marker{N: 1, End: 100}, 0)
	gaps := table.Gaps()
	table.Remove(0, 50, 10)   // before the first line
	table.Remove(150, 50, 20) // 100 bytes behind it: at the logical offset 200
	for at, want := range map[int64]int64{100: 100, 200: 200, 210: 200, 220: 200, 230: 210} {
		if got, all := table.Adjust(at, gaps); got != want || all != 1 {
			t.Errorf("%d is %d now, want %d; %d gaps", at, got, want, all)
		}
	}
	if got, _ := table.Adjust(210, 1); got != 210 {
		t.Errorf("an offset from after the gap is %d", got)
	}
}

func TestHistory(t *testing.T) {
	start := time.Unix(1e9, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	var h history
	check := func(when time.Time, want int64) {
		t.Helper()
		got, known := h.before(when)
		if known != (want >= 0) || known && got != want {
			t.Errorf("before %s: %d, %v, want %d", when.Sub(start), got, known, want)
		}
	}
	check(at(1), -1)
	h.add(at(0), 10)
	h.add(at(0).Add(time.Millisecond), 11) // too soon
	h.add(at(2), 20)
	check(at(0), -1)
	check(at(1), 10)
	check(at(2), 10)
	check(at(3), 20)
	h.add(at(1), 15) // the clock was set back
	check(at(3), 15)
	h.add(at(4), 5) // the log was truncated
	check(at(3), -1)
	check(at(5), 5)
	for i := range 1000 { // it does not grow
		h.add(at(5+i), 5)
	}
	if check(at(2000), 5); len(h.sights) > 3 {
		t.Errorf("%d sights of a log that does not grow", len(h.sights))
	}
	for i := range 100_000 {
		h.add(at(2000+i), int64(10+i))
	}
	if len(h.sights) > mostSights {
		t.Errorf("%d sights", len(h.sights))
	}
	for _, ago := range []int{90_000, 50_000, 10_000, 2000} {
		got, known := h.before(at(2000 + 100_000 - ago))
		if off := 10 + 100_000 - ago - int(got); !known || off < 0 || off > 2000 {
			t.Errorf("%d s ago: %d, %v, %d s too early", ago, got, known, off)
		}
	}
}
