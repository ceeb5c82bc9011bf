package lifecycle

import (
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Times of the restart rule that no unit changes.
const (
	// A worker that was ready this long is restarted immediately the first time.
	immediateAfter = 10 * time.Second
	// A worker that was ready this long starts again from the first delay. If it had failed, it has its whole budget
	// again.
	backoffResetAfter = time.Minute
	// The longest wait of a failed worker, unless its unit sets a longer one.
	maxFailedWait = 30 * time.Minute
	// The longest delay if a start fails because the master lacked a resource, unless its unit sets a shorter one.
	OwnFaultRetry = 5 * time.Second
	// The longest time between two looks at a wait. The timers of Go stand still while the machine is suspended, and
	// the clock of the waits does not.
	longestLook = time.Minute
)

// ended decides what follows the end of an instance, or a start that created no process.
func ended(s State, e Event, p Policy, now time.Duration) (State, Action) {
	wasStopping, planned, bloated := s.Status == records.StatusStopping, s.Planned, s.bloated
	e.Away = e.Away || s.away
	e.Clean = e.Clean && !wasStopping // stopped for a failure, it may exit with 0 all the same
	ended := now
	if e.Ended != 0 {
		ended = min(e.Ended, now) // stop.after has run since
	}
	ready := readyFor(s.History, e, ended)
	s.Slot, s.Ready, s.Planned, s.away, s.bloated = Vacant, false, false, false, false
	s.failures, s.unready, s.passes = 0, 0, 0
	s.History.ReadySince = 0
	s.History.ReadyClock += ready

	if p.scheduled {
		return runEnded(s, e, p, now, wasStopping && (planned || s.quitting))
	}
	completed := s.Wanted && e.Clean && p.Mode != unit.RestartAlways && !e.Ours
	if completed {
		s.Status, s.Reason = records.StatusCompleted, e.Reason
	} else if s.quitting || !s.Wanted {
		s.Status, s.Reason = records.StatusStopped, ""
	}
	switch {
	case s.quitting, s.Retired:
		return s, ActFinish
	case completed, !s.Wanted:
		return s, ActNone
	case wasStopping && planned, e.CutOff:
		return s.start()
	case e.Ours:
		return s.lack(e, p, now)
	case p.Mode == unit.RestartNever && !bloated:
		s.Status, s.Reason = records.StatusFailed, e.Reason
		return s, ActNone
	}
	s.Lacked = 0
	if ready >= backoffResetAfter {
		s.History = steady(s.History)
	}
	return s.restart(e, p, now, ready)
}

// restart decides when a worker that has ended is started again: within its budget after a backoff, otherwise after
// the wait of a failed worker.
func (s State) restart(e Event, p Policy, now, ready time.Duration) (State, Action) {
	s.History.Spent = within(s.History.Spent, s.History.ReadyClock-p.Budget.Window)
	if len(s.History.Spent) >= p.Budget.Restarts {
		s.Status = records.StatusFailed
		s.Reason = fmt.Sprintf("restart budget %s used up: %s", p.Budget, e.Reason)
		s.History.FailedWait = p.nextFailedWait(s.History.FailedWait)
		s.History.RetryAt = 0
		return s.awaitRetry(p, now)
	}
	s.History.Spent = append(s.History.Spent, s.History.ReadyClock)
	s.Restarts++
	delay := s.History.Backoff
	if delay == 0 {
		s.History.Backoff = p.Backoff
		if ready >= immediateAfter {
			return s.start()
		}
		delay = p.Backoff
	}
	s.History.Backoff = p.grow(delay)
	return s.backOff(e, now, delay)
}

// grow returns the delay that follows this one.
func (p Policy) grow(delay time.Duration) time.Duration {
	longer := float64(delay) * p.Factor
	if longer >= float64(p.MaxBackoff) {
		return p.MaxBackoff
	}
	return time.Duration(longer)
}

// longestFailedWait returns the bound of the waits of a failed worker.
func (p Policy) longestFailedWait() time.Duration { return max(maxFailedWait, p.RetryFailed) }

// nextFailedWait returns the wait of a failed worker after one that was in vain; 0 if there was none.
func (p Policy) nextFailedWait(last time.Duration) time.Duration {
	if last > p.longestFailedWait()/2 {
		return p.longestFailedWait()
	}
	return max(2*last, p.RetryFailed, 0)
}

// givesUp reports whether a failed worker is never tried again.
func (p Policy) givesUp() bool { return p.RetryFailed < 0 || p.Mode == unit.RestartNever }

// awaitRetry has a failed worker tried again when its wait is over. A wait that has not begun, or began before the
// machine was booted, begins now.
func (s State) awaitRetry(p Policy, now time.Duration) (State, Action) {
	switch {
	case p.givesUp():
		s.History.RetryAt, s.History.FailedWait = 0, 0
		return s, ActNone
	case s.History.RetryAt == 0:
		if s.History.FailedWait == 0 {
			s.History.FailedWait = p.nextFailedWait(0)
		}
		s.History.RetryAt = now + s.History.FailedWait
	case s.History.RetryAt <= now:
		return s.start()
	}
	return s, ActBackOff
}

// steady returns the history of a worker that has been ready for backoffResetAfter.
func steady(b records.RestartHistory) records.RestartHistory {
	b.Backoff = 0
	if b.FailedWait != 0 {
		b.FailedWait, b.Spent = 0, nil
	}
	return b
}

// SpentOf returns how many restarts of the budget are spent at a moment.
func SpentOf(h records.RestartHistory, b unit.RestartBudget, now time.Duration) int {
	return len(within(h.Spent, h.ReadyClock+readyFor(h, Event{}, now)-b.Window))
}

// lack decides what follows a start that failed because the master lacked a resource. The failure is not the
// worker's fault, so it costs no budget and does not lengthen later delays. The retries are frequent, so the worker
// runs soon after the resource is available again.
func (s State) lack(e Event, p Policy, now time.Duration) (State, Action) {
	delay := p.Backoff << min(s.Lacked, 16)
	s.Lacked++
	return s.backOff(e, now, min(max(delay, p.Backoff), p.MaxBackoff, OwnFaultRetry))
}

// NextLook returns the time until a worker that waits is looked at, with [EvRetry].
func (s State) NextLook(now time.Duration) time.Duration {
	return max(0, min(s.History.RetryAt-now, longestLook))
}

func (s State) backOff(e Event, now, delay time.Duration) (State, Action) {
	// Jitter only shortens, by up to a quarter, so that delays still grow.
	delay -= time.Duration(e.Chance * float64(delay) / 4)
	s.Status, s.Reason, s.History.RetryAt = records.StatusBackoff, e.Reason, now+delay
	return s, ActBackOff
}

// Earned returns the events of a worker that has been ready for long: it gets its first backoff, or its whole budget,
// back.
func (s State) Earned(p Policy, now time.Duration) []EventKind {
	var kinds []EventKind
	if !s.Ready || s.History.ReadySince == 0 {
		return nil
	}
	ready := now - s.History.ReadySince
	if ready >= backoffResetAfter && (s.History.Backoff != 0 || s.History.FailedWait != 0) {
		kinds = append(kinds, evSteady)
	}
	if ready >= p.Budget.Window && len(s.History.Spent) > 0 {
		kinds = append(kinds, evWindowPassed)
	}
	return kinds
}

// readyFor returns how long the ended instance had been ready. If it ended while no master ran, the duration is
// unknown, and 0 is the answer that grants no budget.
func readyFor(b records.RestartHistory, e Event, now time.Duration) time.Duration {
	if b.ReadySince == 0 || e.Away {
		return 0
	}
	return max(0, now-b.ReadySince)
}

// within returns the marks that are newer than limit, in a new slice.
func within(marks []time.Duration, limit time.Duration) []time.Duration {
	var kept []time.Duration
	for _, m := range marks {
		if m > limit {
			kept = append(kept, m)
		}
	}
	return kept
}

// maxReadyClock is 73 years: enough room to go on counting.
const maxReadyClock = time.Duration(1 << 61)

// SinceBoot makes a recorded budget valid for this boot. CLOCK_BOOTTIME starts at 0 with each boot, and a wrong
// clock or record must lead neither to waiting forever nor to restarting without end.
func SinceBoot(b records.RestartHistory, bootID string, now time.Duration, p Policy) records.RestartHistory {
	if b.BootID != bootID {
		b.BootID, b.ReadySince, b.RetryAt = bootID, 0, 0
	}
	b.ReadySince = clamp(b.ReadySince, now)
	b.FailedWait = clamp(b.FailedWait, p.longestFailedWait())
	b.RetryAt = clamp(b.RetryAt, now+max(p.MaxBackoff, b.FailedWait))
	b.Backoff = clamp(b.Backoff, p.MaxBackoff)
	b.ReadyClock = clamp(b.ReadyClock, maxReadyClock)
	b.Spent = slices.Clone(b.Spent)
	for i, mark := range b.Spent {
		b.Spent[i] = clamp(mark, b.ReadyClock) // a mark in the future would never expire
	}
	return b
}

func clamp(d, most time.Duration) time.Duration { return max(0, min(d, most)) }
