//go:build linux && amd64

package store

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestErrorOfEachCall has each system call fail that writes, syncs, renames or
// truncates, one in each run, and the process that got the error goes on until it
// is killed. Nothing may be acknowledged after the error until the state was
// written anew; service resumes by itself; and what was acknowledged in all of
// that survives the kill, and a power cut at any moment after the error; what a
// failed sync should have written is not on the disk then.
func TestErrorOfEachCall(t *testing.T) {
	const master = "open change count change backup change count close open count change count die"
	const requester = "open once count once again change once count close open count once die"
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
		{"sync", SyncAlways, meddling{errno: syscall.EIO, done: true}, syncs, master, 1},
		{"sync at intervals", SyncInterval, meddling{errno: syscall.EIO, done: true}, syncs, master, 1},
		{"sync of an operator", SyncAlways, meddling{errno: syscall.EIO, done: true}, syncs, operatorScript + " die", 1},
		{"not done", SyncAlways, meddling{errno: syscall.EIO}, others, master, 1},
		{"not done for an operator", SyncAlways, meddling{errno: syscall.EIO}, others, operatorScript + " die", pick(t, 3, 5, 1)},
		{"done all the same", SyncAlways, meddling{errno: syscall.EIO, done: true}, others, master, pick(t, 5, 5, 1)},
		{"sync, requests", SyncAlways, meddling{errno: syscall.EIO, done: true}, syncs, requester, 1},
		{"sync, requests at intervals", SyncInterval, meddling{errno: syscall.EIO, done: true}, syncs, requester, 1},
		{"not done, requests", SyncAlways, meddling{errno: syscall.EIO}, others, requester, 1},
		{"no space", SyncAlways, meddling{errno: syscall.ENOSPC}, (*sysCall).needsSpace, master, 1},
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
					e.singles = e.singles || c.name == "sync" && !underRace // it is what this is most about
					x.cutFrom(x.tracer.meddled[0].start, e)
				}
				return true
			})
		})
	}
}

// TestPowerLossAfterCrash kills the process at each such system call, and the next one
// while it recovers; a third one goes on, and then the power is cut.
func TestPowerLossAfterCrash(t *testing.T) {
	// Before a call it is on the disk as after the one before it.
	for _, done := range pick(t, []bool{true}, []bool{true}, []bool{true, false}) {
		for i := range pick(t, 1, 1, 16) {
			t.Run(fmt.Sprintf("done %t, %d", done, i), func(t *testing.T) {
				t.Parallel()
				m := meddling{kill: true, done: done}
				every := func(*sysCall) bool { return true }
				eachCall(t, SyncAlways, m, every, 1, func(x *experiment) bool {
					return x.crashTwice("open change count change backup close open count change count", m, i)
				})
				eachCall(t, SyncAlways, m, every, pick(t, 3, 5, 1), func(x *experiment) bool {
					return x.crashTwice(operatorScript, m, i)
				})
			})
		}
	}
}

// crashTwice returns false where the first process was not killed. The second one is
// killed in a call that shift and the seed choose, or not at all.
func (x *experiment) crashTwice(script string, m meddling, shift int) bool {
	if _, said, err := x.run(script); err != nil {
		x.fail("%v: %s", err, said)
	}
	if len(x.tracer.meddled) == 0 {
		return false
	}
	from := x.tracer.rec.end
	chance := rand.New(rand.NewPCG(seedOf(x.t), uint64(from)))
	left := (min(chance.IntN(16), chance.IntN(16)) + shift) % 16 // most is at stake early
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

// needsSpace tells whether the call writes or makes something.
func (c *sysCall) needsSpace() bool {
	return slices.ContainsFunc(c.acts, func(a *diskAct) bool { return a.kind == kindData || a.kind == kindEntry && a.to != nil && a.from == "" })
}

// eachCall runs try with an experiment for each system call that which picks, or one
// of so many, in which that one is meddled with. Try returns false where there was no
// such call.
func eachCall(t *testing.T, mode SyncMode, m meddling, which func(*sysCall) bool, step int, try func(*experiment) bool) {
	j := newJudge(t, false)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0)) // most wait most of the time
	var calls atomic.Int64
	var over atomic.Bool
	step *= pick(t, 9, 1, 1)
	for n := 1 + int(seedOf(t)%uint64(step)); n < 500; n += step {
		slots <- struct{}{}
		if over.Load() {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			x := newExperiment(t, mode)
			x.judge = j
			var err error
			if x.tracer, err = newTracer(x.dir); err != nil {
				t.Error(err)
				return
			}
			seen := 0
			x.tracer.meddle = func(c *sysCall) meddling {
				if !which(c) {
					return meddling{}
				}
				if seen++; seen != n {
					return meddling{}
				}
				x.doing = fmt.Sprintf("call %d, %s", n, c.what)
				return m
			}
			if try(x) {
				calls.Add(1)
			} else {
				over.Store(true)
			}
		})
	}
	wg.Wait()
	if int(calls.Load())*step < 15 {
		t.Errorf("only %d calls were meddled with", calls.Load())
	}
	t.Logf("SEED=%d: %d calls, then the power cut in %d ways, %d of them different states", seedOf(t), calls.Load(), j.cuts, len(j.seen))
}

// someCuts is for one of hundreds of recordings.
func someCuts(t testing.TB) effort {
	return pick(t, effort{moments: 40}, effort{moments: 24, random: 1}, effort{moments: 1, singles: true, tears: 2, random: 10})
}

func (x *experiment) fail(format string, args ...any) {
	x.t.Errorf(x.doing+": "+format, args...)
}

// cutFrom cuts the power at every moment from position from on.
func (x *experiment) cutFrom(from int, e effort) {
	broken := x.powerLoss(from, nil, e)
	if len(broken) > 0 {
		v := broken[0]
		x.fail("%d promises broken: power cut at %s; %s: %v", len(broken), x.tracer.rec.where(v.cut.moment), v.cut.what, v.err)
	}
}

// acknowledgedTooEarly returns an error where something was acknowledged after the
// failure of a call on the state's own files and before both were replaced.
func (x *experiment) acknowledgedTooEarly() error {
	r, failed := x.tracer.rec, x.tracer.meddled[0]
	name := ""
	replaced := make(map[string]int)
	for _, a := range r.acts {
		switch {
		case a.kind != kindEntry:
		case a.start < failed.start && a.to == failed.node:
			name = a.name
		case a.start > failed.start && a.from == a.name+tempSuffix && replaced[a.name] == 0:
			replaced[a.name] = a.end
		}
	}
	if name != dbName && name != counterName {
		return nil // about to replace another, or a folder
	}
	for _, m := range r.marks {
		what, _, _ := strings.Cut(m.text, " ")
		switch {
		case m.at < failed.start && (what == "open!" || what == "close?"):
			name = what
		case m.at < failed.start:
		case name != "open!":
			return nil // a start or an end that failed: the next start settles it
		case what == "change!" || x.mode == SyncAlways && (what == "count!" || what == "backup!"):
			if replaced[dbName] == 0 || replaced[dbName] > m.at || replaced[counterName] == 0 || replaced[counterName] > m.at {
				return fmt.Errorf("%q at %d, before both files were replaced: %v", m.text, m.at, replaced)
			}
			return nil
		}
	}
	return nil
}
