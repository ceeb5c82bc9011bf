package supervisor

import (
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store"
)

// state is all that the decision about one worker depends on. Wanted, alive and
// ready are three things: a worker may be unwanted and alive (it stops), wanted
// and dead (it waits to restart), alive and not ready (it starts or is ill).
type state struct {
	wanted   bool
	alive    bool // a process fills the slot
	ready    bool // it may get requests
	status   store.Status
	reason   string
	failures int // Pings missed in a row
	budget   store.Budget
	restarts uint64
	lacked   int // starts in a row that failed for want of something of the master's own

	quitting bool // the master stops: finish what runs, restart nothing
	retired  bool // the slot is surplus: stop it, then forget it
	planned  bool // the present stop was decided by an earlier master: its exit is no failure
}

type eventKind int

const (
	evBegin         eventKind = iota // the loop starts and nothing lives in the slot
	evAdopted                        // recovery proved the recorded process, and it answered
	evAdoptedSilent                  // recovery proved the recorded process, it did not answer
	evReady                          // a starting worker answered its first Ping
	evNotReady                       // it did not within the start timeout, or cannot
	evStartFailed                    // no process came to be
	evPong                           // a Ping was answered
	evSilent                         // a Ping was not answered
	evLost                           // the connection broke: who listens there now is not known
	evSuspended                      // a Ping was not answered by a process that a signal has stopped
	evExited                         // the process and its family are gone
	evRetry                          // the backoff is over
	evSteady                         // ready for backoffResetAfter
	evSettled                        // ready for the whole window of the budget
	evShutdown                       // the master stops
)

// event is something that happened to a worker.
type event struct {
	kind   eventKind
	reason string  // for people: what failed
	clean  bool    // evExited: known to have ended with code 0
	away   bool    // evExited: at an unknown time, while no master ran
	ours   bool    // evStartFailed: for want of what the master itself needs, such as memory
	chance float64 // evExited, evStartFailed: in [0,1), for the jitter
}

// action is what the worker's goroutine does about a decision.
type action int

const (
	actNone   action = iota
	actStart         // record the intent and fork
	actAwait         // wait for the living process to get ready
	actServe         // give it requests
	actHold          // give it none
	actStop          // drain, SIGTERM, grace, SIGKILL, sweep
	actWait          // until budget.RetryAt
	actFinish        // the goroutine is done
)

// missedPings make a worker unhealthy; one more escalates.
const missedPings = 3

// next decides. It is pure: the same arguments always give the same answer, and
// a pair that cannot happen changes nothing.
func next(s state, e event, p RestartPolicy, now time.Duration) (state, action) {
	switch e.kind {
	case evBegin:
		return begin(s, now)
	case evAdopted, evAdoptedSilent:
		return adopt(s, e, now)
	case evReady:
		if s.status != store.StatusStarting {
			return s, actNone
		}
		s.budget.ReadySince = now
		return s.serve()
	case evNotReady:
		if s.status != store.StatusStarting || !s.alive {
			return s, actNone
		}
		return s.stop(e.reason)
	case evStartFailed:
		if s.status != store.StatusStarting || s.alive {
			return s, actNone
		}
		return ended(s, e, p, now)
	case evPong:
		if s.status != store.StatusRunning && s.status != store.StatusUnhealthy {
			return s, actNone
		}
		s.failures = 0
		if s.ready {
			return s, actNone
		}
		return s.serve()
	case evLost:
		if !s.ready {
			return s, actNone
		}
		s.ready = false
		return s, actHold
	case evSilent, evSuspended:
		return silent(s, e)
	case evExited:
		return ended(s, e, p, now)
	case evRetry:
		if s.status != store.StatusBackoff {
			return s, actNone
		}
		return s.start()
	case evSteady:
		if s.ready {
			s.budget.Backoff = 0
		}
		return s, actNone
	case evSettled:
		if s.ready {
			s.budget.Spent = nil
		}
		return s, actNone
	case evShutdown:
		s.quitting = true
		return leave(s)
	}
	return s, actNone
}

func (s state) start() (state, action) {
	s.status, s.reason, s.planned = store.StatusStarting, "", false
	s.budget.RetryAt = 0
	return s, actStart
}

func (s state) serve() (state, action) {
	s.status, s.reason, s.ready, s.failures, s.lacked = store.StatusRunning, "", true, 0, 0
	return s, actServe
}

func (s state) stop(reason string) (state, action) {
	s.status, s.reason, s.ready = store.StatusStopping, reason, false
	return s, actStop
}

func begin(s state, now time.Duration) (state, action) {
	switch {
	case s.alive:
		return s, actNone
	case s.retired:
		return s, actFinish
	case !s.wanted:
		s.status = store.StatusStopped
		return s, actNone
	case s.status == store.StatusFailed:
		return s, actNone
	case s.status == store.StatusBackoff && s.budget.RetryAt > now:
		return s, actWait
	}
	return s.start()
}

func adopt(s state, e event, now time.Duration) (state, action) {
	s.alive = true
	switch {
	case s.status == store.StatusStopping:
		s.planned = true
		return s, actStop
	case !s.wanted:
		return s.stop(s.reason)
	case e.kind == evAdopted:
		if s.budget.ReadySince == 0 {
			s.budget.ReadySince = now
		}
		return s.serve()
	case s.status == store.StatusStarting:
		return s, actAwait
	}
	s.status, s.reason, s.ready, s.failures = store.StatusUnhealthy, e.reason, false, 0
	return s, actHold
}

func silent(s state, e event) (state, action) {
	if s.status != store.StatusRunning && s.status != store.StatusUnhealthy {
		return s, actNone
	}
	if e.kind == evSuspended {
		// Somebody stopped it on purpose (a debugger, an operator): it is not
		// silent, and killing it would destroy what they look at.
		s.status, s.reason, s.ready, s.failures = store.StatusUnhealthy, e.reason, false, 0
		return s, actHold
	}
	ill := s.status == store.StatusUnhealthy
	s.failures++
	switch {
	case s.failures < missedPings:
		return s, actNone
	case ill:
		return s.stop(e.reason)
	}
	s.status, s.reason, s.ready = store.StatusUnhealthy, e.reason, false
	return s, actHold
}

func leave(s state) (state, action) {
	switch {
	case s.alive && s.status == store.StatusStopping:
		return s, actNone
	case s.alive:
		return s.stop("")
	case s.status == store.StatusStarting:
		s.status = store.StatusStopped // the start was called off before there was a process
	}
	return s, actFinish
}

// ended decides what follows the end of an instance, or a start that made none.
func ended(s state, e event, p RestartPolicy, now time.Duration) (state, action) {
	wasStopping, planned := s.status == store.StatusStopping, s.planned
	ready := readyFor(s.budget, e, now)
	s.alive, s.ready, s.planned, s.failures = false, false, false, 0
	s.budget.ReadySince = 0
	s.budget.ReadyClock += ready

	switch {
	case s.quitting, !s.wanted:
		s.status, s.reason = store.StatusStopped, ""
		if s.quitting || s.retired {
			return s, actFinish
		}
		return s, actNone
	case wasStopping && planned:
		return s.start()
	case e.ours:
		return s.lack(e, p, now)
	case p.Mode == RestartNever, p.Mode == RestartOnFailure && e.clean:
		s.status, s.reason = store.StatusStopped, e.reason
		if !e.clean {
			s.status = store.StatusFailed
		}
		return s, actNone
	}

	s.lacked = 0
	s.budget.Spent = within(s.budget.Spent, s.budget.ReadyClock-p.Budget.Window)
	if len(s.budget.Spent) >= p.Budget.Restarts {
		s.status = store.StatusFailed
		s.reason = fmt.Sprintf("restart budget %s used up: %s", p.Budget, e.reason)
		s.budget.RetryAt = 0
		return s, actNone
	}
	s.budget.Spent = append(s.budget.Spent, s.budget.ReadyClock)
	s.restarts++
	if ready >= backoffResetAfter {
		s.budget.Backoff = 0
	}
	delay := s.budget.Backoff
	if delay == 0 {
		s.budget.Backoff = p.Backoff
		if ready >= immediateAfter {
			return s.start()
		}
		delay = p.Backoff
	}
	s.budget.Backoff = min(2*delay, p.MaxBackoff)
	return s.backOff(e, now, delay)
}

// lack decides what follows a start that failed for want of something of the
// master's own. It is no fault of the worker, so it costs neither budget nor a
// longer delay later on, and what is wanted runs soon after the want is over.
func (s state) lack(e event, p RestartPolicy, now time.Duration) (state, action) {
	delay := p.Backoff << min(s.lacked, 16)
	s.lacked++
	return s.backOff(e, now, min(max(delay, p.Backoff), ownFaultRetry))
}

func (s state) backOff(e event, now, delay time.Duration) (state, action) {
	// Jitter only shortens, by up to a quarter, so that delays still grow.
	delay -= time.Duration(e.chance * float64(delay) / 4)
	s.status, s.reason, s.budget.RetryAt = store.StatusBackoff, e.reason, now+delay
	return s, actWait
}

// readyFor is how long the ended instance had been ready. When it ended while
// no master ran nobody knows, and the answer that grants no budget is none.
func readyFor(b store.Budget, e event, now time.Duration) time.Duration {
	if b.ReadySince == 0 || e.away {
		return 0
	}
	return max(0, now-b.ReadySince)
}

// within keeps the marks that are newer than limit, in a slice of its own.
func within(marks []time.Duration, limit time.Duration) []time.Duration {
	var kept []time.Duration
	for _, m := range marks {
		if m > limit {
			kept = append(kept, m)
		}
	}
	return kept
}

// maxReadyClock is 73 years: room to go on counting.
const maxReadyClock = time.Duration(1 << 61)

// sinceBoot makes a recorded budget valid for this boot: CLOCK_BOOTTIME starts
// at 0 with each, and a clock or record that is off must mean neither waiting for
// ever nor restarts without end.
func sinceBoot(b store.Budget, bootID string, now time.Duration, p RestartPolicy) store.Budget {
	if b.BootID != bootID {
		b.BootID, b.ReadySince, b.RetryAt = bootID, 0, 0
	}
	b.ReadySince = clamp(b.ReadySince, now)
	b.RetryAt = clamp(b.RetryAt, now+p.MaxBackoff)
	b.Backoff = clamp(b.Backoff, p.MaxBackoff)
	b.ReadyClock = clamp(b.ReadyClock, maxReadyClock)
	b.Spent = slices.Clone(b.Spent)
	for i, mark := range b.Spent {
		b.Spent[i] = clamp(mark, b.ReadyClock) // one in the future would never be forgotten
	}
	return b
}

func clamp(d, most time.Duration) time.Duration { return max(0, min(d, most)) }
