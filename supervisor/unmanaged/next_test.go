package unmanaged

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

func foundPID(pid int, inode uint64) *records.Found {
	return &records.Found{
		Process: identity.Process{BootID: "boot", PIDNamespace: 1, PID: pid, Inode: inode, StartTicks: 7}, Name: "db",
	}
}

func TestNext(t *testing.T) {
	now := time.Unix(1700000000, 0)
	a, again, b := foundPID(12, 100), foundPID(12, 100), foundPID(12, 200)
	states := map[string]records.Worker{
		"new":       {},
		"absent":    {Status: records.StatusAbsent, Reason: "none"},
		"running":   {Status: records.StatusRunning, Found: a},
		"unhealthy": {Status: records.StatusUnhealthy, Found: a, Reason: "ill"},
	}
	events := map[string]event{
		"found":   {kind: evFound, found: again},
		"other":   {kind: evFound, found: b},
		"missing": {kind: evMissing, reason: "no such"},
		"ended":   {kind: evEnded, exit: identity.Exit{Code: 3, Source: identity.ExitPidfd}},
		"changed": {kind: evChanged, reason: "another program"},
		"sick":    {kind: evSick, reason: "refused"},
		"well":    {kind: evWell},
	}
	// Only a process that is watched can end, change or be checked.
	want := map[string]string{
		"new/found":         "running inode 100: found",
		"new/other":         "running inode 200: found",
		"new/missing":       "absent no such: absent",
		"absent/found":      "running inode 100: found",
		"absent/other":      "running inode 200: found",
		"absent/missing":    "absent no such:",
		"running/found":     "running inode 100:",
		"running/other":     "running inode 200: gone found",
		"running/missing":   "absent no such: gone",
		"running/ended":     "absent exited with code 3: gone",
		"running/changed":   "absent another program: gone",
		"running/sick":      "unhealthy inode 100 refused: unhealthy",
		"running/well":      "running inode 100:",
		"unhealthy/found":   "unhealthy inode 100 ill:",
		"unhealthy/other":   "running inode 200: gone found",
		"unhealthy/missing": "absent no such: gone",
		"unhealthy/ended":   "absent exited with code 3: gone",
		"unhealthy/changed": "absent another program: gone",
		"unhealthy/sick":    "unhealthy inode 100 refused:",
		"unhealthy/well":    "running inode 100: running",
	}
	for state, rec := range states {
		for name, e := range events {
			pair := state + "/" + name
			if rec.Found == nil && e.kind >= evEnded {
				continue
			}
			got, said := next(rec, e, now)
			text := string(got.Status)
			if got.Found != nil {
				text += fmt.Sprint(" inode ", got.Found.Inode)
			}
			if got.Reason != "" {
				text += " " + got.Reason
			}
			text += ":"
			for _, n := range said {
				text += " " + n.name
			}
			if text != want[pair] {
				t.Errorf("%s: %q, want %q", pair, text, want[pair])
			}
			if !got.Unmanaged() || got.Instance != nil {
				t.Errorf("%s: the record is %+v", pair, got)
			}
			ended, exit := name == "ended", got.LastExit
			if ended != (exit != nil) || ended && (exit.At != now || exit.Code != 3) {
				t.Errorf("%s: last exit %+v", pair, got.LastExit)
			}
		}
	}
}

// A change while no master ran is told as that.
func TestNextTellsWhatHappenedWithoutAMaster(t *testing.T) {
	_, said := next(records.Worker{Status: records.StatusRunning, Found: foundPID(12, 1)},
		event{kind: evMissing, reason: "there is no a.pid"}, time.Now())
	if len(said) != 1 || said[0].detail != "pid 12 (db) ended while no master watched it: there is no a.pid" {
		t.Errorf("%+v", said)
	}
}

func TestSame(t *testing.T) {
	a := foundPID(12, 100)
	for name, tt := range map[string]struct {
		change func(f *records.Found)
		want   bool
	}{
		"equal":             {func(*records.Found) {}, true},
		"another name":      {func(f *records.Found) { f.Name = "x" }, true},
		"another inode":     {func(f *records.Found) { f.Inode = 1 }, false},
		"no inode":          {func(f *records.Found) { f.Inode = 0 }, true},
		"no inode, later":   {func(f *records.Found) { f.Inode, f.StartTicks = 0, 8 }, false},
		"another boot":      {func(f *records.Found) { f.BootID = "x" }, false},
		"another namespace": {func(f *records.Found) { f.PIDNamespace = 2 }, false},
		"another pid":       {func(f *records.Found) { f.PID = 13 }, false},
	} {
		b := *a
		tt.change(&b)
		if same(a, &b) != tt.want || same(&b, a) != tt.want {
			t.Errorf("%s: %t", name, !tt.want)
		}
	}
	if same(a, nil) || same(nil, a) || same(nil, nil) {
		t.Error("no process is the same as one")
	}
}

func TestStreak(t *testing.T) {
	p := probe.Policy{Missed: 3, Passes: 2}
	// p: passed, m: missed; upper case: the verdict changes with it.
	for _, results := range []string{"Ppp", "mmMm", "mmPmmMpPm", "PmmpmmM", "mmMpmpP", "mP"} {
		var s streak
		var got strings.Builder
		for _, r := range strings.ToLower(results) {
			if s.add(r == 'p', p) {
				r += 'A' - 'a'
			}
			got.WriteRune(r)
		}
		if got.String() != results {
			t.Errorf("%s, want %s", &got, results)
		}
	}
}
