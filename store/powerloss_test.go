//go:build linux && amd64

package store

import (
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/statedir"
)

// usualScript exercises everything that a store does.
const usualScript = "open change change count count change burst count backup change close open count change"

// operatorScript exercises an operator's commands while no master runs.
const operatorScript = "open change backup change keep count change close " +
	"compact open change keep close restore open count change"

// TestPowerLoss records a process that uses a state, system call by system call. It opens the files that a power
// cut at each of these moments may leave on the disk.
//
// SEED selects the sample, here and in the tests below, and EXHAUSTIVE its size: see pick.
func TestPowerLoss(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   SyncMode
		old    bool // start from a state of the previous schema
		script string
	}{
		{"always", SyncAlways, false, usualScript},
		{"operator", SyncAlways, false, operatorScript},
		{
			"interval", SyncInterval, false,
			"open count change count count interval count burst interval count backup close " +
				"open count change interval count",
		},
		{
			"requests", SyncAlways, false,
			"open once count once change once again count mixed close open once again count once",
		},
		{
			"requests, interval", SyncInterval, false,
			"open count once count again change mixed once interval count once close open count once mixed",
		},
		{"migration", SyncAlways, true, "open change count close open count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			x := newExperiment(t, c.mode)
			if c.old {
				x.prepareOld()
			}
			x.mustRun(c.script)
			x.report(x.powerLoss(0, nil, pick(t,
				effort{moments: 4, singles: true, random: 1},
				effort{moments: 1, singles: true, tears: 2, random: 12},
				effort{moments: 1, singles: true, tears: 1 << 20, random: 200})))
		})
	}
}

// TestPowerLossDuringRecovery cuts the power a second time while the files left by the first power cut are opened
// and used.
func TestPowerLossDuringRecovery(t *testing.T) {
	first := newExperiment(t, SyncAlways)
	first.mustRun(usualScript)
	r, seed := first.tracer.rec, seedOf(t)
	chance := rand.New(rand.NewPCG(seed, 0))
	times := pick(t, 3, 6, 60)
	j := newJudge(t, false)
	for range times {
		p := 1 + chance.IntN(r.end)
		want, err := r.promises(p, first.mode, first.base)
		if err != nil {
			t.Fatal(err)
		}
		var cuts []powerCut
		r.cuts(p, effort{random: 5}, chance, func(c powerCut) { cuts = append(cuts, c) })
		c := cuts[chance.IntN(len(cuts))]
		x := &experiment{t: t, dir: inMemory(t), base: want, judge: j, doing: "first " + c.what + " at " + r.where(p)}
		if err := r.after(c).write(x.dir); err != nil {
			t.Fatal(err)
		}
		x.mustRun("open change count change")
		x.cutFrom(0, effort{moments: 1, singles: true, tears: 2, random: pick(t, 1, 5, 50)})
	}
	t.Logf("SEED=%d: %d states recovered, then the power cut in %d ways, %d of them different states",
		seed, times, j.cuts, len(j.seen))
}

// TestPowerLossNoticesAMissingSync treats each sync of a recording as if it had never been called. Each time a
// promise must break; otherwise the simulation proves nothing.
func TestPowerLossNoticesAMissingSync(t *testing.T) {
	x := newExperiment(t, SyncAlways)
	x.mustRun("open change change count count backup close open count change")
	r := x.tracer.rec
	missed := 0
	for i, s := range r.syncs {
		if r.redundant(i) {
			continue
		}
		missed++
		skip := func(other syncCall) bool { return other == s }
		if broken := x.powerLoss(s.start, skip, effort{moments: 1, singles: true, random: 5}); len(broken) == 0 {
			t.Errorf("sync of %s at %s was left out, and nothing has broken", s.node.label, r.where(s.start))
		}
	}
	if missed < 15 {
		t.Errorf("only %d syncs were left out", missed)
	}
	t.Logf("%d of %d syncs left out, one at a time", missed, len(r.syncs))
}

// redundant reports whether no promise depends on the ith sync: either the changes that it covers were already
// durable, or the next sync makes them durable before anything is acknowledged.
func (r *recording) redundant(i int) bool {
	s := r.syncs[i]
	if !slices.ContainsFunc(r.acts, func(a *diskAct) bool { return a.durable == s.end }) {
		return true
	}
	for _, m := range r.marks {
		if m.at > s.end && strings.Contains(m.text, "!") {
			return slices.ContainsFunc(r.syncs[i+1:], func(next syncCall) bool {
				return next.node == s.node && next.end < m.at
			}) && !r.ordering(i)
		}
	}
	return true // nothing was acknowledged after it
}

// ordering reports whether the ith sync separates the pages of a transaction from the meta page that leads to them:
// without it, the meta page could reach the disk alone.
func (r *recording) ordering(i int) bool {
	s := r.syncs[i]
	return slices.ContainsFunc(r.acts, func(a *diskAct) bool {
		return a.node == s.node && a.kind == kindData && a.start > s.end &&
			a.end < r.syncs[min(i+1, len(r.syncs)-1)].start && a.at < 2*4096
	}) && slices.ContainsFunc(r.acts, func(a *diskAct) bool {
		return a.kind == kindEntry && a.to == s.node && a.name == statedir.DatabaseName && a.end < s.start
	})
}

// The recorder must fail on any operation that it does not understand.
func TestRecorderOverlooksNothing(t *testing.T) {
	for _, word := range []string{"sneak-link", "sneak-copy", "sneak-map", "sneak-dup", "sneak-child"} {
		x := newExperiment(t, SyncAlways)
		if _, said, err := x.run("open change " + word); err == nil ||
			!strings.Contains(err.Error(), "record the child: the ") {
			t.Errorf("%s: %v, want an error of the recorder (%s)", word, err, said)
		}
	}
}

// A process may end between the report of a system call to the recorder and the recorder's look at its arguments.
func TestRecorderOutlivesTheProcess(t *testing.T) {
	for _, c := range []struct {
		name  string
		which func(tr *tracer, c *sysCall) bool
	}{
		{"mark", func(_ *tracer, c *sysCall) bool { return c.nr == unix.SYS_WRITE && c.args[0] == markFD }},
		{"write", func(tr *tracer, c *sysCall) bool {
			return c.nr == unix.SYS_WRITE && tr.open[int(c.args[0])] != nil
		}},
		{"write at", func(_ *tracer, c *sysCall) bool { return c.nr == unix.SYS_PWRITE64 }},
		{"open", func(_ *tracer, c *sysCall) bool { return c.nr == unix.SYS_OPENAT }},
		{"rename", func(_ *tracer, c *sysCall) bool { return c.nr == unix.SYS_RENAMEAT }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newExperiment(t, SyncAlways)
			tr, err := newTracer(x.dir)
			if err != nil {
				t.Fatal(err)
			}
			killed := false
			tr.looking = func(call *sysCall) {
				if killed || !c.which(tr, call) {
					return
				}
				killed = true
				if err := unix.Kill(tr.pid, unix.SIGKILL); err != nil {
					t.Error(err)
				}
				for n, err := 1, error(nil); n > 0 || !errors.Is(err, io.EOF); runtime.Gosched() {
					n, err = tr.memory.ReadAt(make([]byte, 1), int64(call.args[1]))
				}
			}
			x.tracer = tr
			status, said, err := x.run("open change count")
			if err != nil || !killed || !status.Signaled() || status.Signal() != unix.SIGKILL {
				t.Errorf("killed %t, status %#x, %v: %s", killed, status, err, said)
			}
		})
	}
}
