package unmanaged

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/process/oneshot"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// watch is the watch of one process. The lock of the set protects it.
type watch struct {
	set    *Set
	item   *item
	target target
	since  time.Time
	checks []*check
}

// check is one repeated check of the process. Readiness and liveness are one check unless they differ.
type check struct {
	*probe.Check
	use    string
	alive  bool // it decides about the status, else only about readiness
	spec   probe.Spec
	prober probe.Prober
	streak streak
}

// streak counts the results in a row of a check.
type streak struct {
	passed         bool // the verdict
	decided        bool
	passes, missed int
}

// add counts a result. It reports whether the verdict is a new one.
func (c *streak) add(passed bool, p probe.Policy) (changed bool) {
	before := *c
	if passed {
		c.passes, c.missed = c.passes+1, 0
		c.passed = c.passed || !c.decided || c.passes >= p.Passes
		c.decided = true
	} else {
		c.passes, c.missed = 0, c.missed+1
		if c.missed >= p.Missed {
			c.passed, c.decided = false, true
		}
	}
	return c.decided != before.decided || c.passed != before.passed
}

// start makes the checks and runs each once now.
func (w *watch) start() {
	u := w.item.unit
	if u.OneCheck() {
		w.add(u, "health", true, u.Health.Liveness)
		return
	}
	w.add(u, "readiness", false, u.Health.Readiness)
	w.add(u, "liveness", true, u.Health.Liveness)
}

func (w *watch) add(u *unit.Spec, use string, alive bool, spec probe.Spec) {
	c := &check{use: use, alive: alive, spec: spec, prober: w.prober(u, spec)}
	pattern := u.Discover
	c.Check = w.set.opts.Checks.Add(spec.Policy, func(ctx context.Context) error {
		if err := w.matches(ctx, pattern); err != nil {
			return mismatchError{err}
		}
		return c.prober.Ping(ctx)
	}, func(_ context.Context, r probe.Result) { w.told(c, r) })
	w.checks = append(w.checks, c)
	c.Now()
}

// matches returns nil if the process still matches the pattern. A systemd that has no answer, because it is executed
// again or is busy, is no reason to give up the process of a unit: the process is known, and its end is noticed without
// systemd.
func (w *watch) matches(ctx context.Context, p process.Pattern) error {
	if p.Systemd == "" {
		return w.target.Matches(p)
	}
	err := process.Own{MainPID: w.set.opts.mainPID}.CheckMain(ctx, p.Systemd, w.target.Identity().PID)
	if errors.Is(err, process.ErrUnverifiable) {
		return nil
	}
	return err
}

// mismatchError is the answer of a process that does not match any more.
type mismatchError struct{ error }

func (e mismatchError) Unwrap() error { return e.error }

// prober returns the prober of a check, without the port that a worker would have.
func (w *watch) prober(u *unit.Spec, spec probe.Spec) probe.Prober {
	expanded, err := spec.Expand(u.Placeholders(w.item.id, 0))
	if err != nil {
		return probe.Unusable(spec, err)
	}
	return probe.New(expanded, probe.Target{
		Process: alive{w.target},
		Run: func(ctx context.Context, command []string) (oneshot.Ran, error) {
			return w.set.opts.Run(ctx, u, w.item.id, command)
		},
	})
}

// alive asks whether the process runs. Its end is noticed without that.
type alive struct{ target }

func (alive) Method() probe.Method { return probe.Process }

func (a alive) Ping(context.Context) error {
	if a.Stopped() {
		return errStopped
	}
	return nil
}

var errStopped = errors.New("stopped by a signal")

// told applies the result of a check.
func (w *watch) told(c *check, r probe.Result) {
	s := w.set
	s.mu.Lock()
	defer s.mu.Unlock()
	x := w.item
	if x.watch != w || !slices.Contains(w.checks, c) {
		return
	}
	if mismatch, ok := errors.AsType[mismatchError](r.Err); ok {
		select {
		case <-w.target.Done(): // the goroutine of Serve learns how it ended
		default:
			s.lose(x, event{kind: evChanged, reason: process.ReasonOf(mismatch.error)})
		}
		return
	}
	// A failure says nothing about the process if this machine is loaded or lacks descriptors.
	if r.Err != nil && (r.Late || probe.Local(r.Err)) {
		return
	}
	changed := c.streak.add(r.Err == nil, c.spec.Policy)
	switch {
	case !c.alive || !c.streak.decided:
		if changed {
			s.opts.Changed()
		}
	case c.streak.passed:
		s.step(x, event{kind: evWell})
		if changed {
			s.opts.Changed()
		}
	default:
		s.step(x, event{kind: evSick, reason: fmt.Sprintf("%s: %s", c.prober.Describe(), answerOf(r.Err))})
	}
}

// answerOf returns the answer of a missed check, the last one if this one passed.
func answerOf(err error) string {
	if err == nil {
		return "passed, but not often enough in a row"
	}
	return probe.Brief(err)
}

// recheck applies a changed unit to the process that is watched: it has to match the new pattern. The caller holds
// s.mu.
func (s *Set) recheck(x *item) {
	if x.watch == nil {
		return
	}
	x.watch.stop()
	x.watch.start()
}

func (w *watch) stop() {
	for _, c := range w.checks {
		c.Stop()
	}
	w.checks = nil
}

// end ends the watch. The process goes on.
func (w *watch) end() {
	w.stop()
	_ = w.target.Close() // never fails
}

// ready reports whether all checks were passed.
func (w *watch) ready() bool {
	for _, c := range w.checks {
		if !c.streak.passed {
			return false
		}
	}
	return true
}

// probe returns the check that decides about readiness.
func (w *watch) probe() string { return w.checks[0].prober.String() }

func (w *watch) infos() []worker.CheckInfo {
	infos := make([]worker.CheckInfo, 0, len(w.checks))
	for _, c := range w.checks {
		info := worker.CheckInfo{Use: c.use, Probe: c.prober.String(), Due: c.Due()}
		if last := c.Last(); last != nil {
			info.At, info.Passed = last.At, last.Err == nil
			if last.Err != nil {
				info.Answer = probe.Brief(last.Err)
			}
		}
		infos = append(infos, info)
	}
	return infos
}
