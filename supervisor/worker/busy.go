package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// From the first failed check on, a worker is checked at this interval, and it is measured how busy it is: a worker
// that answers no check because it works is not dead.
const (
	silencePace = time.Second
	// A family that uses at least this share of a core since the first failed check is busy. A deadlock uses up to
	// 0.6%, or 3.5% if a timer of a millisecond runs beside it; a spinning lock uses nearly all of a core (measured).
	busyShare = 0.05
	// usageTimeout bounds a measurement.
	usageTimeout = 2 * time.Second
)

// silence is how long a worker has failed its checks, and how busy it is. The zero value is that of a worker that
// passes them.
type silence struct {
	lasts time.Duration // since the first failed check
	busy  bool
	use   string // of the processor, for people; "" before it is known
}

func (s silence) String() string { return "busy (" + s.use + ")" }

// meter measures the silence of an instance. Only the goroutine of its check uses it.
type meter struct {
	inst  launcher.Instance
	began time.Time // of the silence; zero: there is none
	// The processor time used from the first measurement on, which was made at that time, and the last reading.
	since      time.Time
	used, last time.Duration
}

// observe returns the silence after a check. A check that is no evidence against the worker changes nothing.
func (m *meter) observe(ctx context.Context, r probe.Result) silence {
	switch {
	case r.Err == nil || m.inst.Suspended():
		*m = meter{inst: m.inst}
		return silence{}
	case r.Late || r.Extra || errors.Is(r.Err, probe.ErrUndecided) || probe.Local(r.Err):
		return silence{}
	}
	now := time.Now()
	if m.began.IsZero() {
		m.began = now
	}
	s := silence{lasts: now.Sub(m.began)}
	s.busy, s.use = m.measure(ctx, now)
	return s
}

// measure reports whether the worker's family is busy, and describes its use of the processor. As long as that is not
// known, it counts as busy.
func (m *meter) measure(ctx context.Context, now time.Time) (busy bool, use string) {
	bounded, cancel := context.WithTimeout(ctx, usageTimeout)
	defer cancel()
	usage, err := m.inst.CPUTime(bounded)
	switch {
	case err != nil:
		return true, fmt.Sprintf("its processor time is unknown: %v", err)
	case m.since.IsZero():
		m.since, m.last = now, usage.CPU
		return true, ""
	}
	m.used += max(0, usage.CPU-m.last) // it shrinks when a member ends, which says nothing about the others
	m.last = usage.CPU
	share := float64(m.used) / float64(max(now.Sub(m.since), 1))
	use = fmt.Sprintf("%.0f%% of a core", share*100)
	if usage.Blocked {
		use += ", waits for a disk"
	}
	return usage.Blocked || share >= busyShare, use
}
