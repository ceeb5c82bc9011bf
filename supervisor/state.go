package supervisor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store"
)

// state is everything that the decision about one worker depends on. Whether it is wanted, what lives in its slot, and
// whether it is ready are different things: a worker may be unwanted and alive (it stops), wanted and dead (it waits to
// restart), alive and not ready (it starts or is unhealthy).
type state struct {
	wanted   bool
	slot     occupancy
	ready    bool // it may get requests
	status   store.Status
	reason   string
	failures int // Pings missed in a row
	history  store.RestartHistory
	restarts uint64
	lacked   int // starts in a row that failed because the master lacked a resource

	quitting bool // the master stops: finish what runs, restart nothing
	retired  bool // the slot is surplus: stop it, then forget it
	planned  bool // an earlier master decided the present stop: the exit is no failure
	away     bool // the process that is being ended died while no master ran
}

// occupancy is what is known of the processes in a worker's slot.
type occupancy int

const (
	vacant      occupancy = iota // none lives
	unverified                   // it cannot be determined yet whether one lives
	occupied                     // the worker's process lives
	terminating                  // the process is being stopped, or has died, and its family is being killed
	remaining                    // not all of them could be killed; it is tried again
)

// alive reports whether processes of the worker's instance are known to live, or are being ended.
func (s state) alive() bool { return s.slot >= occupied }

// starting reports whether a living process has yet to get ready.
func (s state) starting() bool { return s.slot == occupied && s.status == store.StatusStarting }

// running reports whether a living process has been ready.
func (s state) running() bool {
	return s.slot == occupied && (s.status == store.StatusRunning || s.status == store.StatusUnhealthy)
}

type eventKind int

const (
	evBegin         eventKind = iota // recovery found that nothing lives in the slot
	evAdopted                        // recovery proved the recorded process, and it answered
	evAdoptedSilent                  // recovery proved the recorded process, it did not answer
	evFoundDead                      // recovery proved the recorded process, which is dead and not reaped
	evUnverifiable                   // recovery cannot determine whether the slot is free, or cannot free it
	evForked                         // a start made a process
	evStartFailed                    // a start made none
	evReady                          // a starting worker answered its first Ping
	evNotReady                       // it did not answer within the start timeout, or cannot
	evPong                           // a Ping was answered
	evSilent                         // a Ping was not answered
	evLost                           // the connection broke: the listener on the port is unknown
	evStranger                       // a connection to its port led to another process
	evSuspended                      // a Ping was not answered by a process that a signal has stopped
	evDied                           // the process has ended; its family may live
	evRemains                        // processes of the family could not be killed
	evExited                         // the process and its family are gone
	evRetry                          // the wait before another start, kill or verification is over
	evSteady                         // ready for backoffResetAfter
	evWindowPassed                   // ready for the whole window of the budget
	evShutdown                       // the master stops
)

// event is something that happened to a worker.
type event struct {
	kind   eventKind
	reason string  // for people: what failed
	clean  bool    // evExited: known to have ended with code 0
	away   bool    // evExited: at an unknown time, while no master ran
	ours   bool    // evExited, evStartFailed: the master is the cause, or lacks a resource such as memory
	chance float64 // evExited, evStartFailed: in [0,1), for the jitter
}

// action is the worker's step after a decision.
type action int

const (
	actNone      action = iota
	actStart            // record the intent and fork
	actAwait            // wait for the living process to get ready
	actServe            // give it requests
	actUnpublish        // stop sending requests
	actStop             // drain, SIGTERM, grace, SIGKILL to the family
	actKill             // SIGKILL to the family
	actBackOff          // wait until budget.RetryAt
	actRecheck          // wait for holdInterval
	actRecover          // recover the slot again
	actFinish           // end the worker
	actAbandon          // end the worker and leave what remains of it to the next master
)

// heldPrefix begins the reason of a worker that waits for verification or for processes to end.
const heldPrefix = "held: "

// policy is the part of a worker's unit that next depends on.
type policy struct {
	RestartPolicy
	missed int // Pings missed in a row that make a worker unhealthy; one more stops it
}

// next decides. It is pure: the same arguments always give the same result. A pair of status and event that cannot
// happen changes nothing.
func next(s state, e event, p policy, now time.Duration) (state, action) {
	switch e.kind {
	case evBegin, evAdopted, evAdoptedSilent, evFoundDead, evUnverifiable:
		return recovered(s, e, now)
	case evForked:
		if s.status != store.StatusStarting || s.slot != vacant {
			return s, actNone
		}
		s.slot = occupied
		return s, actAwait
	case evStartFailed:
		if s.status != store.StatusStarting || s.slot != vacant {
			return s, actNone
		}
		return ended(s, e, p, now)
	case evReady:
		if !s.starting() {
			return s, actNone
		}
		s.history.ReadySince = now
		return s.serve()
	case evNotReady:
		if !s.starting() {
			return s, actNone
		}
		return s.stop(e.reason)
	case evPong:
		if !s.running() {
			return s, actNone
		}
		s.failures = 0
		if s.ready {
			return s, actNone
		}
		return s.serve()
	case evLost:
		if !s.ready || !s.running() {
			return s, actNone
		}
		s.ready = false
		return s, actUnpublish
	case evSilent, evSuspended, evStranger:
		if !s.running() {
			return s, actNone
		}
		return silent(s, e, p)
	case evDied:
		if s.slot != occupied {
			return s, actNone
		}
		s.slot, s.ready = terminating, false
		return s, actKill
	case evRemains:
		if s.slot != terminating {
			return s, actNone
		}
		return remain(s, e)
	case evExited:
		return ended(s, e, p, now)
	case evRetry:
		return retry(s)
	case evSteady:
		if s.ready {
			s.history.Backoff = 0
		}
		return s, actNone
	case evWindowPassed:
		if s.ready {
			s.history.Spent = nil
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
	s.history.RetryAt = 0
	return s, actStart
}

func (s state) serve() (state, action) {
	s.status, s.reason, s.ready, s.failures, s.lacked = store.StatusRunning, "", true, 0, 0
	return s, actServe
}

func (s state) stop(reason string) (state, action) {
	s.slot, s.status, s.reason, s.ready = terminating, store.StatusStopping, reason, false
	return s, actStop
}

// recovered decides what follows from the finding of a recovery, which looks only into slots that nothing is known to
// live in.
func recovered(s state, e event, now time.Duration) (state, action) {
	if s.alive() {
		return s, actNone
	}
	switch e.kind { //nolint:exhaustive // the others are no findings
	case evFoundDead:
		s.slot, s.away = terminating, true
		return s, actKill
	case evUnverifiable:
		s.slot, s.reason = unverified, heldPrefix+e.reason
		return s, actRecheck
	case evBegin:
		s.slot = vacant
		return begin(s, now)
	}
	s.slot = occupied
	return adopt(s, e, now)
}

func begin(s state, now time.Duration) (state, action) {
	switch {
	case s.retired:
		return s, actFinish
	case !s.wanted:
		s.status = store.StatusStopped
		return s, actNone
	case s.status == store.StatusFailed:
		return s, actNone
	case s.status == store.StatusBackoff && s.history.RetryAt > now:
		return s, actBackOff
	}
	return s.start()
}

func adopt(s state, e event, now time.Duration) (state, action) {
	switch {
	case s.status == store.StatusStopping:
		s.slot, s.planned = terminating, true
		return s, actStop
	case !s.wanted:
		return s.stop(s.reason)
	case e.kind == evAdopted:
		if s.history.ReadySince == 0 {
			s.history.ReadySince = now
		}
		return s.serve()
	case s.status == store.StatusStarting:
		return s, actAwait
	}
	s.status, s.reason, s.ready, s.failures = store.StatusUnhealthy, e.reason, false, 0
	return s, actUnpublish
}

func silent(s state, e event, p policy) (state, action) {
	ill := s.status == store.StatusUnhealthy
	if e.kind == evSuspended || e.kind == evStranger && !ill {
		// A process stopped by a signal was stopped on purpose (by a debugger, an operator). It is not silent, and
		// killing it would destroy the process under inspection. A worker with another process on its port is not
		// silent either, but if the other process stays, the worker is restarted on another port.
		s.status, s.reason, s.ready, s.failures = store.StatusUnhealthy, e.reason, false, 0
		return s, actUnpublish
	}
	s.failures++
	switch {
	case s.failures < p.missed:
		return s, actNone
	case ill:
		return s.stop(e.reason)
	}
	s.status, s.reason, s.ready = store.StatusUnhealthy, e.reason, false
	return s, actUnpublish
}

// remain decides what follows when processes of a family could not be killed: never a second copy of the worker
// beside a first that may still act.
func remain(s state, e event) (state, action) {
	s.slot, s.ready = remaining, false
	if s.status != store.StatusStopping {
		s.status, s.reason = store.StatusUnhealthy, ""
	}
	if s.reason == "" || strings.HasPrefix(s.reason, heldPrefix) { // any other reason is that of the stop
		s.reason = heldPrefix + e.reason
	}
	if s.quitting {
		return s, actAbandon
	}
	return s, actRecheck
}

func retry(s state) (state, action) {
	switch {
	case s.slot == unverified:
		return s, actRecover
	case s.slot == remaining:
		s.slot = terminating
		return s, actKill
	case s.slot == vacant && s.status == store.StatusBackoff:
		return s.start()
	}
	return s, actNone
}

func leave(s state) (state, action) {
	switch {
	case s.slot == terminating, s.slot == remaining && s.status == store.StatusStopping:
		return s, actNone
	case s.alive():
		return s.stop("")
	case s.status == store.StatusStarting:
		s.status = store.StatusStopped // the start was cancelled before there was a process
	}
	return s, actFinish
}

// ended decides what follows the end of an instance, or a start that created no process.
func ended(s state, e event, p policy, now time.Duration) (state, action) {
	wasStopping, planned := s.status == store.StatusStopping, s.planned
	e.away = e.away || s.away
	ready := readyFor(s.history, e, now)
	s.slot, s.ready, s.planned, s.away, s.failures = vacant, false, false, false, 0
	s.history.ReadySince = 0
	s.history.ReadyClock += ready

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
	s.history.Spent = within(s.history.Spent, s.history.ReadyClock-p.Budget.Window)
	if len(s.history.Spent) >= p.Budget.Restarts {
		s.status = store.StatusFailed
		s.reason = fmt.Sprintf("restart budget %s used up: %s", p.Budget, e.reason)
		s.history.RetryAt = 0
		return s, actNone
	}
	s.history.Spent = append(s.history.Spent, s.history.ReadyClock)
	s.restarts++
	if ready >= backoffResetAfter {
		s.history.Backoff = 0
	}
	delay := s.history.Backoff
	if delay == 0 {
		s.history.Backoff = p.Backoff
		if ready >= immediateAfter {
			return s.start()
		}
		delay = p.Backoff
	}
	s.history.Backoff = min(2*delay, p.MaxBackoff)
	return s.backOff(e, now, delay)
}

// lack decides what follows a start that failed because the master lacked a resource. The failure is not the
// worker's fault, so it costs no budget and does not lengthen later delays. The retries are frequent, so the worker
// runs soon after the resource is available again.
func (s state) lack(e event, p policy, now time.Duration) (state, action) {
	delay := p.Backoff << min(s.lacked, 16)
	s.lacked++
	return s.backOff(e, now, min(max(delay, p.Backoff), ownFaultRetry))
}

func (s state) backOff(e event, now, delay time.Duration) (state, action) {
	// Jitter only shortens, by up to a quarter, so that delays still grow.
	delay -= time.Duration(e.chance * float64(delay) / 4)
	s.status, s.reason, s.history.RetryAt = store.StatusBackoff, e.reason, now+delay
	return s, actBackOff
}

// earned returns the events of a worker that has been ready for long: it gets its first backoff, or its whole budget,
// back.
func (s state) earned(p policy, now time.Duration) []eventKind {
	var kinds []eventKind
	if !s.ready || s.history.ReadySince == 0 {
		return nil
	}
	ready := now - s.history.ReadySince
	if ready >= backoffResetAfter && s.history.Backoff != 0 {
		kinds = append(kinds, evSteady)
	}
	if ready >= p.Budget.Window && len(s.history.Spent) > 0 {
		kinds = append(kinds, evWindowPassed)
	}
	return kinds
}

// readyFor returns how long the ended instance had been ready. If it ended while no master ran, the duration is
// unknown, and 0 is the answer that grants no budget.
func readyFor(b store.RestartHistory, e event, now time.Duration) time.Duration {
	if b.ReadySince == 0 || e.away {
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

// sinceBoot makes a recorded budget valid for this boot. CLOCK_BOOTTIME starts at 0 with each boot, and a wrong
// clock or record must lead neither to waiting forever nor to restarting without end.
func sinceBoot(b store.RestartHistory, bootID string, now time.Duration, p policy) store.RestartHistory {
	if b.BootID != bootID {
		b.BootID, b.ReadySince, b.RetryAt = bootID, 0, 0
	}
	b.ReadySince = clamp(b.ReadySince, now)
	b.RetryAt = clamp(b.RetryAt, now+p.MaxBackoff)
	b.Backoff = clamp(b.Backoff, p.MaxBackoff)
	b.ReadyClock = clamp(b.ReadyClock, maxReadyClock)
	b.Spent = slices.Clone(b.Spent)
	for i, mark := range b.Spent {
		b.Spent[i] = clamp(mark, b.ReadyClock) // a mark in the future would never expire
	}
	return b
}

func clamp(d, most time.Duration) time.Duration { return max(0, min(d, most)) }
