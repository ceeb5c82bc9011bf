package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/internal/procfs"
)

func cpuTime(t *testing.T, f Family) Usage {
	t.Helper()
	ctx, cancel := testDeadline()
	defer cancel()
	u, err := f.CPUTime(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A spinning child of the instance counts, and goes on counting.
func TestCPUTimeOfASpinningDescendant(t *testing.T) {
	w := startWorker(t, "spawn", "spin")
	for range 2 {
		w.expect(t, "ready")
	}
	for last, deadline := time.Duration(0), time.Now().Add(patience); last < 300*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatalf("%s of processor time after %s", last, patience)
		}
		now := cpuTime(t, w.family).CPU
		if now < last {
			t.Fatalf("the processor time shrank from %s to %s", last, now)
		}
		last = now
	}
}

func TestCPUTimeOfASleepingFamilyStandsStill(t *testing.T) {
	w := startWorker(t, "spawn", "sleep")
	for range 2 {
		w.expect(t, "ready")
	}
	began, first := time.Now(), cpuTime(t, w.family).CPU
	time.Sleep(time.Second) // the time over which it is measured
	used, passed := cpuTime(t, w.family).CPU-first, time.Since(began)
	if used*20 >= passed {
		t.Errorf("%s of processor time in %s, want less than 5%%", used, passed)
	}
}

// The time of a child that has ended and was reaped is that of its parent.
func TestCPUTimeIncludesReapedChildren(t *testing.T) {
	const burnt = 300 * time.Millisecond
	w := startWorker(t, "reap-burner", burnt.String())
	w.expect(t, "ready")
	if got := cpuTime(t, w.family).CPU; got < burnt-2*procfs.Tick {
		t.Errorf("%s of processor time, want the %s of the child that has ended", got, burnt)
	}
}

func TestCPUTimeOfACgroupIncludesEveryoneInIt(t *testing.T) {
	const burnt = 300 * time.Millisecond
	w := prepareWorker(t)
	w.family.Cgroup = testCgroup(t)
	if _, err := os.Stat(filepath.Join(w.family.Cgroup, "cpu.stat")); err != nil {
		t.Skip(err)
	}
	// The burner is nobody's child any more when it ends, so that only the cgroup knows of it.
	w.start(t, Spec{Args: childArgs("double-fork", "burn", burnt.String()), Cgroup: w.family.Cgroup})
	w.expect(t, "burnt")
	if got := cpuTime(t, w.family).CPU; got < burnt-2*procfs.Tick {
		t.Errorf("%s of processor time, want the %s of the child that was left", got, burnt)
	}
}

// statOf writes the stat of a task with its state, its number of threads and 4 ticks of processor time.
func statOf(t *testing.T, folder string, state byte, threads int) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("4711 (a) %c 1 4711 4710 0 -1 4194560 35 0 0 0 1 1 1 1 20 0 %d 0 151241 1024 10 "+
		"0 1 2 3 4 5 6 7 8 9 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 140721 140733 768\n", state, threads)
	if err := os.WriteFile(filepath.Join(folder, "stat"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

// No test can put a process into state D at will.
func TestUsageOfABlockedProcess(t *testing.T) {
	for name, test := range map[string]struct {
		leader  byte
		threads string
		want    bool
	}{
		"sleeps":                         {'S', "SS", false},
		"is blocked":                     {'D', "D", true},
		"another thread of it":           {'S', "SDS", true},
		"its first thread has ended":     {'Z', "ZD", true},
		"runs":                           {'R', "RR", false},
		"is idle, as kernel threads are": {'I', "I", false},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			statOf(t, folder, test.leader, len(test.threads))
			for i := range len(test.threads) {
				statOf(t, filepath.Join(folder, "task", strconv.Itoa(4711+i)), test.threads[i], len(test.threads))
			}
			want := Usage{CPU: 4 * procfs.Tick, Blocked: test.want}
			if got := usageOf(folder); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
	if got := usageOf(t.TempDir()); got != (Usage{}) {
		t.Errorf("of a process that has ended: %+v", got)
	}
}
