//go:build linux && amd64

package store

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// TestErrorOfEachCall makes each system call fail that writes, syncs, renames or truncates, one call in each run.
// The process that got the error continues until it is killed. Nothing may be acknowledged after the error until
// the state has been rewritten, and service must resume by itself. Everything acknowledged must survive both the
// kill and a power cut at any moment after the error. Data of a failed sync is not on the disk in that case.
func TestErrorOfEachCall(t *testing.T) {
	const master = "open change count change backup change count close open count change count die"
	const requester = "open once count once again change once count close open count once die"
	const operator = operatorScript + " die"
	notDone, done := meddling{errno: syscall.EIO}, meddling{errno: syscall.EIO, done: true}
	syncs := func(c *sysCall) bool { return c.sync }
	others := func(c *sysCall) bool { return !c.sync }
	for _, c := range []struct {
		name string
		mode SyncMode
		meddling
		which  func(*sysCall) bool
		script string
		step   int
	}{
		{"sync", SyncAlways, done, syncs, master, pick(t, oneOfEachKind, 1, 1)},
		{"sync at intervals", SyncInterval, done, syncs, master, pick(t, 13, 1, 1)},
		{"sync of an operator", SyncAlways, done, syncs, operator, pick(t, 23, 1, 1)},
		{"not done", SyncAlways, notDone, others, master, pick(t, oneOfEachKind, 1, 1)},
		{"not done for an operator", SyncAlways, notDone, others, operator, pick(t, 43, 5, 1)},
		{"done all the same", SyncAlways, done, others, master, pick(t, 29, 5, 1)},
		{"sync, requests", SyncAlways, done, syncs, requester, pick(t, oneOfEachKind, 1, 1)},
		{"sync, requests at intervals", SyncInterval, done, syncs, requester, pick(t, 13, 1, 1)},
		{"not done, requests", SyncAlways, notDone, others, requester, pick(t, 29, 1, 1)},
		{"no space", SyncAlways, meddling{errno: syscall.ENOSPC}, (*sysCall).needsSpace, master, pick(t, 29, 1, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			eachCall(t, c.mode, c.meddling, c.which, c.step, func(x *experiment) bool {
				status, said, err := x.run(c.script, retryEnv+"=1")
				switch {
				case err != nil:
					x.fail("%v", err)
				case !status.Signaled() || status.Signal() != unix.SIGKILL:
					x.fail("service has not resumed: %#x %s", status, said)
				case len(x.tracer.meddled) == 0:
					return false
				default:
					if err := x.acknowledgedTooEarly(); err != nil {
						x.fail("%v", err)
					}
					e := someCuts(t)
					// Failing syncs are the main subject of this test.
					e.singles = e.singles || c.name == "sync" && pick(t, false, true, true)
					x.cutFrom(x.tracer.meddled[0].start, e)
				}
				return true
			})
		})
	}
}

// TestPowerLossAfterCrash kills the process at each such system call, and the next process during its recovery. A
// third process continues, and then the power is cut.
func TestPowerLossAfterCrash(t *testing.T) {
	// The disk is the same before a call as after the previous call.
	for _, done := range pick(t, []bool{true}, []bool{true}, []bool{true, false}) {
		for i := range pick(t, 1, 1, 16) {
			t.Run(fmt.Sprintf("done %t, %d", done, i), func(t *testing.T) {
				t.Parallel()
				m := meddling{kill: true, done: done}
				every := func(*sysCall) bool { return true }
				eachCall(t, SyncAlways, m, every, pick(t, oneOfEachKind, 1, 1), func(x *experiment) bool {
					return x.crashTwice("open change count change backup close open count change count", m, i)
				})
				eachCall(t, SyncAlways, m, every, pick(t, 43, 5, 1), func(x *experiment) bool {
					return x.crashTwice(operatorScript, m, i)
				})
			})
		}
	}
}

// crashTwice returns false if the first process was not killed. The second process is killed in a call that shift
// and the seed select, or not at all.
func (x *experiment) crashTwice(script string, m meddling, shift int) bool {
	if _, said, err := x.run(script); err != nil {
		x.fail("%v: %s", err, said)
	}
	if len(x.tracer.meddled) == 0 {
		return false
	}
	from := x.tracer.rec.end
	chance := rand.New(rand.NewPCG(seedOf(x.t), uint64(from)))
	left := (min(chance.IntN(16), chance.IntN(16)) + shift) % 16 // prefer early calls, which matter most
	x.tracer.meddle = func(c *sysCall) meddling {
		if left--; left != 0 {
			return meddling{}
		}
		x.doing += ", then " + c.what
		return m
	}
	if _, said, err := x.run("open"); err != nil {
		x.fail("%v: %s", err, said)
	}
	x.tracer.meddle = nil
	if status, said, err := x.run("open count change change count"); err != nil || status != 0 {
		x.fail("the last one ended with %#x, %v: %s", status, err, said)
	}
	x.cutFrom(from, someCuts(x.t))
	return true
}

// needsSpace reports whether the call writes data or creates a file or directory.
func (c *sysCall) needsSpace() bool {
	return slices.ContainsFunc(c.acts, func(a *diskAct) bool {
		return a.kind == kindData || a.kind == kindEntry && a.to != nil && a.from == ""
	})
}

// eachCall runs try once for each selected system call, with an experiment in which that call is meddled with. It
// selects from the calls for which which returns true: every stepth call, or one call of each kind. try returns
// false if there was no such call.
func eachCall(
	t *testing.T, mode SyncMode, m meddling, which func(*sysCall) bool, step int, try func(*experiment) bool,
) {
	j := newJudge(t, false)
	attempt := func(meddle func(x *experiment, n int, c *sysCall) meddling) bool {
		x := newExperiment(t, mode)
		x.judge = j
		var err error
		if x.tracer, err = newTracer(x.dir); err != nil {
			t.Error(err)
			return false
		}
		seen := 0
		x.tracer.meddle = func(c *sysCall) meddling {
			if !which(c) {
				return meddling{}
			}
			seen++
			return meddle(x, seen, c)
		}
		return try(x)
	}
	var calls []int
	if step == oneOfEachKind {
		calls = kindsOfCalls(t, attempt)
	} else {
		for n := 1 + int(seedOf(t)%uint64(step)); n < 500; n += step {
			calls = append(calls, n)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // most of them wait most of the time
	var tried atomic.Int64
	var over atomic.Bool
	for _, n := range calls {
		slots <- struct{}{}
		if over.Load() {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			there := attempt(func(x *experiment, seen int, c *sysCall) meddling {
				if seen != n {
					return meddling{}
				}
				x.doing = fmt.Sprintf("call %d, %s", n, c.what)
				return m
			})
			if there {
				tried.Add(1)
			} else {
				over.Store(true)
			}
		})
	}
	wg.Wait()
	least := 5
	if step != oneOfEachKind {
		least = max(1, 15/step)
	}
	if int(tried.Load()) < least {
		t.Errorf("only %d calls were meddled with, want %d", tried.Load(), least)
	}
	t.Logf("SEED=%d: %d calls, then the power cut in %d ways, %d of them different states",
		seedOf(t), tried.Load(), j.cuts, len(j.seen))
}

// oneOfEachKind is a step of eachCall: of the calls that do the same to the same file, only one is meddled with.
const oneOfEachKind = 0

var number = regexp.MustCompile("[0-9]+")

// kindsOfCalls makes an attempt without meddling and returns, in order, the number of one call of each kind.
func kindsOfCalls(t *testing.T, attempt func(func(*experiment, int, *sysCall) meddling) bool) (chosen []int) {
	kinds := make(map[string][]int)
	attempt(func(_ *experiment, n int, c *sysCall) meddling {
		kind := number.ReplaceAllString(c.what, "")
		kinds[kind] = append(kinds[kind], n)
		return meddling{}
	})
	for _, calls := range kinds {
		chosen = append(chosen, calls[seedOf(t)%uint64(len(calls))])
	}
	slices.Sort(chosen)
	return chosen
}

// someCuts returns the effort for each of hundreds of recordings.
func someCuts(t testing.TB) effort {
	return pick(t, effort{moments: 40}, effort{moments: 24, random: 1},
		effort{moments: 1, singles: true, tears: 2, random: 10})
}

func (x *experiment) fail(format string, args ...any) {
	x.t.Errorf(x.doing+": "+format, args...)
}

// cutFrom cuts the power at every moment from position from on.
func (x *experiment) cutFrom(from int, e effort) {
	broken := x.powerLoss(from, nil, e)
	if len(broken) > 0 {
		v := broken[0]
		x.fail("%d promises broken: power cut at %s; %s: %v",
			len(broken), x.tracer.rec.where(v.cut.moment), v.cut.what, v.err)
	}
}

// acknowledgedTooEarly returns an error if a mark acknowledges something after a call on the state's own files has
// failed and before both files were replaced.
func (x *experiment) acknowledgedTooEarly() error {
	r, failed := x.tracer.rec, x.tracer.meddled[0]
	name := ""
	replaced := make(map[string]int)
	for _, a := range r.acts {
		switch {
		case a.kind != kindEntry:
		case a.start < failed.start && a.to == failed.node:
			name = a.name
		case a.start > failed.start && a.from == a.name+statefile.TempSuffix && replaced[a.name] == 0:
			replaced[a.name] = a.end
		}
	}
	if name != statedir.DatabaseName && name != statedir.CounterName {
		return nil // a temporary file or a directory
	}
	for _, m := range r.marks {
		what, _, _ := strings.Cut(m.text, " ")
		switch {
		case m.at < failed.start && (what == "open!" || what == "close?"):
			name = what
		case m.at < failed.start:
		case name != "open!":
			return nil // a start or shutdown that failed: the next start settles the state
		case what == "change!" || x.mode == SyncAlways && (what == "count!" || what == "backup!"):
			db, counter := replaced[statedir.DatabaseName], replaced[statedir.CounterName]
			if db != 0 && db < m.at && counter != 0 && counter < m.at {
				return nil
			}
			if err := x.lackedAt(failed.start, m); err != nil {
				return fmt.Errorf("%q at %d, before both files were replaced: %v; at the error: %w",
					m.text, m.at, replaced, err)
			}
		}
	}
	return nil
}

// lackedAt returns an error if the disk at moment p lacked something that mark m acknowledges. A mark may
// legitimately come after a failed call: the commit that it acknowledges came before, then the committer continued
// with other work while the goroutine that makes the mark was waiting for a processor.
func (x *experiment) lackedAt(p int, m mark) error {
	want, err := x.tracer.rec.promises(m.at+1, x.mode, x.base)
	if err != nil {
		return err
	}
	return x.judge.check(x.judge.look(x.tracer.rec.after(powerCut{moment: p})), want)
}
