package lifecycle

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Next decides. It is pure: the same arguments always give the same result. A pair of status and event that cannot
// happen changes nothing.
func Next(s State, e Event, p Policy, now time.Duration) (State, Action) {
	after, act := next(s, e, p, now)
	if act == ActStart && e.Blocked != "" {
		after.Status, after.Reason = records.StatusWaiting, e.Blocked
		return after, ActNone
	}
	return after, act
}

// next decides as if the dependencies of the worker were met.
func next(s State, e Event, p Policy, now time.Duration) (State, Action) {
	if !s.expects(e.Kind) {
		return s, ActNone
	}
	switch e.Kind {
	case EvBegin, EvAdopted, EvAdoptedSilent, EvFoundDead, EvUnverifiable:
		return recovered(s, e, p, now)
	case EvForked:
		s.Slot = Occupied
		return s, ActAwait
	case EvStartFailed:
		return ended(s, e, p, now)
	case EvReady:
		s.History.ReadySince = now
		return s.serve()
	case EvNotReady:
		return s.stop(e.Reason)
	case EvPong, EvAlive, EvServing:
		return passed(s, e, p)
	case EvNotServing:
		return notServing(s, e, p)
	case EvLost:
		s.Ready = false
		return s, ActUnpublish
	case EvSilent, EvSuspended, EvStranger:
		return silent(s, e, p)
	case EvDied:
		s.Slot, s.Ready = terminating, false
		return s, ActKill
	case EvRemains:
		return remain(s, e)
	case EvExited:
		return endedOrOnceMore(s, e, p, now)
	case EvRetry:
		return retry(s, now)
	case EvUnblocked:
		return s.start()
	case evSteady:
		s.History = steady(s.History)
	case evWindowPassed:
		s.History.Spent = nil
	default:
		return requested(s, e, p)
	}
	return s, ActNone
}

// requested decides about the events that the master, an operator or a schedule causes.
func requested(s State, e Event, p Policy) (State, Action) {
	switch e.Kind { //nolint:exhaustive // next decides about the others
	case EvReplace:
		return replace(s, e)
	case EvRetire:
		return retire(s, e.Cause)
	case EvShutdown:
		s.quitting = true
		return leave(s)
	case EvClosing:
		return closing(s)
	case EvDue:
		return due(s, p)
	case EvMemory:
		return outgrown(s, e, p)
	case EvHalt:
		return halt(s)
	case EvResume:
		return resume(s)
	}
	return s, ActNone
}

// expects reports whether an event of the kind can change a worker in the state. The functions that decide about the
// other kinds find that out themselves.
func (s State) expects(k EventKind) bool {
	switch k { //nolint:exhaustive // the others are expected in several states
	case EvForked, EvStartFailed:
		return s.Status == records.StatusStarting && s.Slot == Vacant
	case EvReady, EvNotReady:
		return s.Starting()
	case EvPong, EvAlive, EvServing, EvNotServing, EvSilent, EvSuspended, EvStranger, EvMemory:
		return s.Running()
	case EvLost:
		return s.Ready && s.Running()
	case EvDied:
		return s.Slot == Occupied
	case EvRemains:
		return s.Slot == terminating
	case EvUnblocked:
		return s.Slot == Vacant && s.Status == records.StatusWaiting
	case evSteady, evWindowPassed:
		return s.Ready
	}
	return true
}

func (s State) start() (State, Action) {
	s.Status, s.Reason, s.Planned = records.StatusStarting, "", false
	s.History.RetryAt = 0
	return s, ActStart
}

func (s State) serve() (State, Action) {
	s.Status, s.Reason, s.Ready, s.Lacked = records.StatusRunning, "", true, 0
	s.failures, s.passes = 0, 0
	return s, ActServe
}

func (s State) stop(reason string) (State, Action) {
	s.Slot, s.Status, s.Reason, s.Ready = terminating, records.StatusStopping, reason, false
	return s, ActStop
}

// recovered decides what follows from the finding of a recovery, which looks only into slots that nothing is known to
// live in.
func recovered(s State, e Event, p Policy, now time.Duration) (State, Action) {
	if s.alive() {
		return s, ActNone
	}
	switch e.Kind { //nolint:exhaustive // the others are no findings
	case EvFoundDead:
		s.Slot, s.away = terminating, true
		return s, ActKill
	case EvUnverifiable:
		s.Slot, s.Reason = unverified, HeldPrefix+e.Reason
		return s, ActRecheck
	case EvBegin:
		s.Slot = Vacant
		return begin(s, p, now)
	}
	s.Slot, s.History.RetryAt = Occupied, 0
	return adopt(s, e, now)
}

func begin(s State, p Policy, now time.Duration) (State, Action) {
	switch {
	case s.Retired:
		return s, ActFinish
	case !s.Wanted:
		s.Status, s.Reason = records.StatusStopped, ByOperator
		return s, ActNone
	case p.scheduled && s.Status != records.StatusWaiting: // a run that waits for its dependencies has yet to begin
		return s.idle(), ActNone
	case p.startsOnce(s, true):
		return s.start()
	case s.Status == records.StatusCompleted:
		return s, ActNone
	case s.Status == records.StatusFailed:
		return s.awaitRetry(p, now)
	case s.Status == records.StatusBackoff && s.History.RetryAt > now:
		return s, ActBackOff
	}
	return s.start()
}

func adopt(s State, e Event, now time.Duration) (State, Action) {
	switch {
	case s.Status == records.StatusStopping:
		s.Slot, s.Planned = terminating, true
		return s, ActStop
	case s.Retired:
		return s.stop(s.RetireReason())
	case !s.Wanted:
		return s.stop(ByOperator)
	case e.Kind == EvAdopted:
		if s.History.ReadySince == 0 {
			s.History.ReadySince = now
		}
		return s.serve()
	case s.Status == records.StatusStarting:
		return s, ActAwait
	}
	return s.ill(e.Reason)
}

// ill makes the worker unhealthy. It has missed no Ping since.
func (s State) ill(reason string) (State, Action) {
	s.Status, s.Reason, s.Ready, s.failures, s.passes = records.StatusUnhealthy, reason, false, 0, 0
	return s, ActUnpublish
}

// passed decides about a check that was passed. Of two checks, only readiness makes a worker ready, and not while it
// misses liveness.
func passed(s State, e Event, p Policy) (State, Action) {
	if e.Kind != EvServing {
		s.failures = 0
	}
	if e.Kind == EvAlive {
		return s, ActNone
	}
	s.unready = 0
	s.passes++
	again := s.Status == records.StatusUnhealthy
	if s.Ready || again && (s.passes < p.passes || e.Kind == EvServing && s.failures >= p.missed) {
		return s, ActNone
	}
	missed := s.failures
	s, act := s.serve()
	s.failures = missed
	return s, act
}

// notServing decides about a missed check of readiness, which never ends the worker.
func notServing(s State, e Event, p Policy) (State, Action) {
	if e.First && s.Ready {
		return s.ill(e.Reason)
	}
	s.unready, s.passes = s.unready+1, 0
	if s.unready < p.unready || s.Status == records.StatusUnhealthy {
		return s, ActNone
	}
	s.Status, s.Reason, s.Ready = records.StatusUnhealthy, e.Reason, false
	return s, ActUnpublish
}

// silent decides about a missed check of liveness, or about the finding in its place.
func silent(s State, e Event, p Policy) (State, Action) {
	s.passes = 0
	ill := s.Status == records.StatusUnhealthy
	if e.Kind == EvSuspended || e.Kind == EvStranger && !ill || e.First && s.Ready {
		// A process stopped by a signal was stopped on purpose (by a debugger, an operator). It is not silent, and
		// killing it would destroy the process under inspection. A worker with another process on its port is not
		// silent either, but if the other process stays, the worker is restarted on another port.
		return s.ill(e.Reason)
	}
	s.failures++
	switch {
	case s.failures < p.missed:
		return s, ActNone
	case ill && e.Busy && e.Silent < p.busyLimit:
		return s, ActNone // it is slow, not dead: a build, the load of a model
	case ill:
		return s.stop(e.Reason)
	}
	s.Status, s.Reason, s.Ready = records.StatusUnhealthy, e.Reason, false
	return s, ActUnpublish
}

// remain decides what follows when processes of a family could not be killed: never a second copy of the worker
// beside a first that may still act.
func remain(s State, e Event) (State, Action) {
	s.Slot, s.Ready = remaining, false
	if s.Status != records.StatusStopping {
		s.Status, s.Reason = records.StatusUnhealthy, ""
	}
	if s.Reason == "" || strings.HasPrefix(s.Reason, HeldPrefix) { // any other reason is that of the stop
		s.Reason = HeldPrefix + e.Reason
	}
	if s.quitting {
		return s, ActAbandon
	}
	return s, ActRecheck
}

func retry(s State, now time.Duration) (State, Action) {
	switch {
	case s.Slot == unverified:
		return s, ActRecover
	case s.Slot == remaining:
		s.Slot = terminating
		return s, ActKill
	case s.Slot != Vacant || s.Status != records.StatusBackoff && s.Status != records.StatusFailed:
		return s, ActNone
	case s.History.RetryAt > now: // a long wait is looked at in between
		return s, ActBackOff
	case s.Status == records.StatusFailed && s.History.RetryAt == 0: // it is given up
		return s, ActNone
	}
	return s.start()
}

// outgrown decides about a worker that uses too much memory: it is stopped in an orderly way, and then restarted within
// its budget. If the master ends meanwhile, the record of the stop makes the next one complete both.
func outgrown(s State, e Event, p Policy) (State, Action) {
	if s.quitting || p.scheduled {
		return s, ActNone
	}
	s.bloated = true
	return s.stop(e.Reason)
}

// replace decides how a new instance takes the slot: never before the present one has ended with its family. The status
// "stopping" makes that durable. The new instance has the whole budget.
func replace(s State, e Event) (State, Action) {
	if !s.Wanted || s.quitting || s.Slot == Vacant && s.Status == records.StatusStarting {
		return s, ActNone
	}
	s.History.Spent, s.History.Backoff, s.History.RetryAt, s.History.FailedWait = nil, 0, 0, 0
	switch {
	case s.Slot == Occupied:
		s.Planned = true
		return s.stop(e.Reason)
	case s.Slot != Vacant:
		s.Status, s.Planned = records.StatusStopping, true
		return s, ActNone
	}
	return s.start()
}

// retire decides how the slot is given up.
func retire(s State, cause RetireCause) (State, Action) {
	if s.quitting {
		return s, ActNone // the next master does it
	}
	s.Wanted, s.Retired, s.Cause = false, true, cause
	switch s.Slot {
	case Occupied:
		return s.stop(s.RetireReason())
	case Vacant:
		return s, ActFinish
	case unverified, terminating, remaining: // it ends when the slot is vacant
	}
	return s, ActNone
}

// RetireCause is why the slot of a retired worker is no longer wanted, for people. The zero value means FewerReplicas.
type RetireCause string

// The values of RetireCause.
const (
	FewerReplicas RetireCause = "fewer replicas are wanted"
	UnitRemoved   RetireCause = "its unit was removed"
	UnitDisabled  RetireCause = "its unit was disabled"
)

// CauseIn returns why a surplus worker of the named unit is not wanted, where units are the wanted ones.
func CauseIn(units []unit.Spec, name string) RetireCause {
	i := slices.IndexFunc(units, func(u unit.Spec) bool { return u.Name == name && u.Starts() })
	switch {
	case i < 0:
		return UnitRemoved
	case units[i].Disabled:
		return UnitDisabled
	}
	return FewerReplicas
}

// RetireReason returns why the slot of a retired worker is no longer wanted.
func (s State) RetireReason() string { return string(cmp.Or(s.Cause, FewerReplicas)) }

// closing decides for a master that begins to stop: a worker without a process leaves at once, another one when its
// turn comes.
func closing(s State) (State, Action) {
	s.quitting = true
	if s.alive() {
		return s, ActNone
	}
	return leave(s)
}

func leave(s State) (State, Action) {
	switch {
	case s.Slot == terminating, s.Slot == remaining && s.Status == records.StatusStopping:
		return s, ActNone
	case s.alive():
		return s.stop("")
	case s.Status == records.StatusStarting:
		s.Status = records.StatusStopped // the start was cancelled before there was a process
	}
	return s, ActFinish
}
