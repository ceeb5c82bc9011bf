// Package lifecycle decides how a worker reacts to an event: [Next], a pure function from a [State], an [Event] and a
// [Policy] to a new state and an [Action]. Package worker executes the actions, package recovery predicts them.
package lifecycle

import (
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// State is everything that the decision about one worker depends on. Whether it is wanted, what lives in its slot, and
// whether it is ready are different things: a worker may be unwanted and alive (it stops), wanted and dead (it waits to
// restart), alive and not ready (it starts or is unhealthy).
type State struct {
	Wanted   bool
	Slot     Occupancy
	Ready    bool // it may get requests
	Status   records.Status
	Reason   string
	failures int // Pings missed in a row; if there are two checks, of liveness
	unready  int // checks of readiness missed in a row, if there are two checks
	passes   int // checks passed in a row
	History  records.RestartHistory
	Restarts uint64
	Lacked   int // starts in a row that failed because the master lacked a resource

	quitting bool        // the master stops: finish what runs, restart nothing
	Retired  bool        // the slot is surplus: stop it, then forget it
	Cause    RetireCause // of Retired
	Planned  bool        // an earlier master decided the present stop: the exit is no failure
	away     bool        // the process that is being ended died while no master ran
	bloated  bool        // the process is being stopped for its memory: it is started again by any policy
}

// Occupancy is the knowledge about the processes in a worker's slot.
type Occupancy int

const (
	Vacant      Occupancy = iota // none lives
	unverified                   // it cannot be determined yet whether one lives
	Occupied                     // the worker's process lives
	terminating                  // the process is being stopped, or has died, and its family is being killed
	remaining                    // not all of them could be killed; it is tried again
)

// alive reports whether processes of the worker's instance are known to live, or are being ended.
func (s State) alive() bool { return s.Slot >= Occupied }

// Starting reports whether a living process has yet to get ready.
func (s State) Starting() bool { return s.Slot == Occupied && s.Status == records.StatusStarting }

// Running reports whether a living process has been ready.
func (s State) Running() bool {
	return s.Slot == Occupied && (s.Status == records.StatusRunning || s.Status == records.StatusUnhealthy)
}

// Settled reports whether a passed check changes nothing but the number of checks passed in a row, which nothing reads
// while the worker is ready: it has missed no check, and there is nothing to earn back.
func (s State) Settled() bool {
	return s.Ready && s.Running() && s.failures == 0 && s.unready == 0 &&
		s.History.Backoff == 0 && s.History.FailedWait == 0 && len(s.History.Spent) == 0
}

// Asked reports whether an adopted worker is pinged at once. A starting worker is awaited instead, and a worker
// that is to be stopped need not answer.
func (s State) Asked() bool {
	return s.Wanted && s.Status != records.StatusStarting && s.Status != records.StatusStopping
}

type EventKind int

const (
	EvBegin         EventKind = iota // recovery found that nothing lives in the slot
	EvAdopted                        // recovery proved the recorded process, and it answered
	EvAdoptedSilent                  // recovery proved the recorded process, it did not answer
	EvFoundDead                      // recovery proved the recorded process, which is dead and not reaped
	EvUnverifiable                   // recovery cannot determine whether the slot is free, or cannot free it
	EvForked                         // a start made a process
	EvStartFailed                    // a start made none
	EvReady                          // a starting worker answered its first Ping
	EvNotReady                       // it did not answer within the start timeout, or cannot
	EvPong                           // a Ping was answered
	EvSilent                         // a Ping was not answered; if there are two checks, liveness was missed
	EvAlive                          // of two checks, liveness was passed
	EvServing                        // of two checks, readiness was passed
	EvNotServing                     // of two checks, readiness was missed
	EvLost                           // the connection broke: the listener on the port is unknown
	EvStranger                       // a connection to its port led to another process
	EvSuspended                      // a Ping was not answered by a process that a signal has stopped
	EvDied                           // the process has ended; its family may live
	EvRemains                        // processes of the family could not be killed
	EvExited                         // the process and its family are gone
	EvRetry                          // the wait before another start, kill or verification is over
	EvUnblocked                      // the dependencies of a waiting worker are met, or have failed
	evSteady                         // ready for backoffResetAfter
	evWindowPassed                   // ready for the whole window of the budget
	EvReplace                        // a new instance is wanted in place of the present one
	EvRetire                         // the slot is surplus
	EvShutdown                       // the master stops
	EvClosing                        // the master stops, but the worker may live until its dependents have ended
	EvDue                            // a due time of the schedule has come, and it is to be run
	EvMemory                         // the family of a running worker has used more memory than its unit allows
	EvHalt                           // an operator stops the worker until EvResume
	EvResume                         // an operator starts it
)

// Event is something that happened to a worker.
type Event struct {
	Kind   EventKind
	Reason string  // for people: what failed
	Clean  bool    // EvExited: known to have ended by itself with a success code
	Away   bool    // EvExited: at an unknown time, while no master ran
	Ours   bool    // EvExited, EvStartFailed: the master is the cause, or lacks a resource such as memory
	Chance float64 // EvExited, EvStartFailed: in [0,1), for the jitter

	Busy   bool          // EvSilent: the family has been using the processor, or waits for a disk
	Silent time.Duration // EvSilent: since the first of the Pings missed in a row
	First  bool          // EvSilent, EvNotServing: the first answer since the worker was adopted, which decides alone

	Blocked string        // why the worker cannot be started now; "" if it can be
	Ended   time.Duration // EvExited: when the process ended, as CLOCK_BOOTTIME; 0: now
	CutOff  bool          // EvExited: a crash of the master cut the start off, which is no failure
	Cause   RetireCause   // EvRetire: why

	By *records.Operator // EvReplace: whose command is the cause, for the history; nil if none is
}

// Action is the worker's step after a decision.
type Action int

const (
	ActNone      Action = iota
	ActStart            // record the intent and fork
	ActAwait            // wait for the living process to get ready
	ActServe            // give it requests
	ActUnpublish        // stop sending requests
	ActStop             // drain, SIGTERM, grace, SIGKILL to the family
	ActKill             // SIGKILL to the family
	ActBackOff          // wait until History.RetryAt
	ActRecheck          // wait, and recheck then
	ActRecover          // recover the slot again
	ActFinish           // end the worker
	ActAbandon          // end the worker and leave what remains of it to the next master
)

// HeldPrefix begins the reason of a worker that waits for verification or for processes to end.
const HeldPrefix = "held: "

// Backgrounded follows the exit in the reason of a worker that has ended with code 0 soon after its start, while other
// processes of its family lived, which were killed.
const Backgrounded = " and left other processes running, so it probably goes to the background"

// Policy is the part of a worker's unit that [Next] depends on.
type Policy struct {
	unit.RestartPolicy
	missed  int // checks missed in a row that make a worker unhealthy; one more stops it if it is not busy
	unready int // missed checks of readiness in a row that make it unhealthy, if there are two checks
	passes  int // checks passed in a row that make it healthy again
	// busyLimit is the longest time that a busy worker may be silent before it is stopped.
	busyLimit time.Duration
	scheduled bool // it runs at the times of a schedule only
	essential bool // the master ends with the worker
}

// PolicyOf returns the policy of the unit's workers.
func PolicyOf(u *unit.Spec) Policy {
	h := u.Health
	return Policy{
		RestartPolicy: u.Restart,
		missed:        h.Liveness.Missed, unready: h.Readiness.Missed, passes: h.Readiness.Passes,
		busyLimit: h.BusyLimit,
		scheduled: u.Schedule.Cron != "", essential: u.Essential,
	}
}
