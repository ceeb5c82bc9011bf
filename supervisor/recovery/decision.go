// Package recovery decides how a starting master treats each worker that an earlier one left.
//
// [Context.Slots] and [Context.Assign] combine the wanted, the recorded and the living workers; [Context.Inspect]
// collects the evidence about one; [Decide], a pure function, makes the [Decision] from it, of which package worker
// executes the [Orders]. [Plan] decides the same without executing anything.
package recovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/schedule"
)

// Action is a starting master's decision about a worker.
type Action string

// The values of Action.
const (
	ActionAdopt          Action = "adopt"           // keep the living process
	ActionAdoptUnhealthy Action = "adopt-unhealthy" // keep it, but send it no requests: it cannot answer
	ActionStart          Action = "start"           // for the first time
	ActionRespawn        Action = "respawn"         // it ran, and no process is left
	ActionWait           Action = "wait"            // start it when its backoff is over
	ActionFail           Action = "fail"            // this exit uses up its restart budget
	ActionKeepFailed     Action = "keep-failed"     // it may be tried again later
	ActionKeepCompleted  Action = "keep-completed"  // it has done its work
	ActionKeepScheduled  Action = "keep-scheduled"  // it waits for its next due time
	ActionRun            Action = "run"             // now, for a due time that was missed
	ActionKeepStopped    Action = "keep-stopped"
	ActionStop           Action = "stop"        // the living process
	ActionForget         Action = "forget"      // nothing lives in a slot that is not wanted
	ActionHold           Action = "hold"        // cannot tell: change nothing, verify again later
	ActionSweepStray     Action = "sweep-stray" // stop a process of this master that has no slot
	ActionWatch          Action = "watch"       // the process of an unmanaged unit, if there is one
)

// Decision is a starting master's decision about one worker, with its reason. The JSON is the output of "hsu-master
// state plan": fields are added, never renamed.
type Decision struct {
	ID       string   `json:"id"`
	Action   Action   `json:"action"`
	Reason   string   `json:"reason"` // for people
	Evidence Evidence `json:"evidence"`
	// WaitsFor is the dependency that a worker to be started has to wait for; only [Plan] sets it, since a starting
	// master learns it later.
	WaitsFor string `json:"waits_for,omitempty"`

	Orders Orders
}

// Orders are the details of a decision that only its execution needs.
type Orders struct {
	From    lifecycle.State // state of the worker in which event is handled
	Event   lifecycle.Event // the finding; if Ping is set, the Ping of an adopted worker may change it
	Remains Remains         // of the recorded instance, to be ended first

	Unrecorded    bool              // no record names the process that was found
	ClearRecorded bool              // then the family of the recorded instance is to be ended first
	Instance      *records.Instance // the new record of the process that was found; nil if the old one is right
	Ping          bool              // adopt: the worker must answer a Ping to get requests
	Proven        bool              // then it gets them before that: it was ready, and its port is proven to be its own
	Silent        string            // adopt: why the process cannot answer; empty if it may

	Cause error  // hold: why the condition cannot be determined
	Note  string // for the history; empty for none
}

// Remains are the parts of a recorded instance that may still exist.
type Remains int

const (
	RemainsNone    Remains = iota // or they are not this master's
	RemainsFamily                 // descendants
	RemainsProcess                // the process itself, dead and not reaped, and descendants
)

// standing is the condition of the recorded instance.
type standing int

const (
	unrecorded    standing = iota // no instance is recorded
	lives                         // alive, identity proven
	dead                          // dead but not reaped yet, identity proven
	gone                          // its PID is free or belongs to another process
	cutOff                        // its start was cut off before a process existed
	otherBoot                     // it belongs to another boot
	otherStateDir                 // it belongs to another state directory
	unknown                       // cannot be determined
)

// Facts are everything that the decision about one worker depends on.
type Facts struct {
	id       string
	state    lifecycle.State
	policy   lifecycle.Policy
	now      time.Duration
	ran      bool // it was started before
	recorded bool // an instance is recorded
	after    bool // the unit has a stop.after

	standing   standing
	Cause      error             // unknown: why
	HookHeld   bool              // unknown: only because a process that is not found holds the lease of a hook's run
	stray      bool              // a process without a record fills the slot
	instance   *records.Instance // record for a living process that has none
	silent     string            // why the living process cannot answer; empty if it may
	ownsPort   bool              // the living process is proven to own its port, or has none
	exitReason string            // dead, gone: how it ended, for people
	clean      bool              // dead, gone: known to have ended by itself with a success code

	evidence Evidence

	wall time.Time // now, of the wall clock
	// due decides about the due times of the schedule; nil if there is none.
	due func(after lifecycle.State) schedule.Verdict
}

// living reports whether a process fills the slot.
func (f *Facts) living() bool { return f.standing == lives }

// Decide returns the decision about a worker. It is pure: the same facts always give the same decision. It leaves
// the consequences of the worker's own state and policy to [lifecycle.Next], as the worker does when it executes the
// decision.
func Decide(f *Facts) Decision {
	d := Decision{ID: f.id, Evidence: f.evidence}
	switch f.standing {
	case unknown:
		d.Action, d.Reason, d.Orders.Cause = ActionHold, f.Cause.Error(), f.Cause
		return d
	case lives:
		d.Orders = f.adoption()
		d.Action, d.Reason = f.keep(d.Orders)
	case dead, gone, cutOff, otherBoot, otherStateDir, unrecorded:
		d.Orders = f.vacancy()
		d.Action, d.Reason, d.Evidence.RestartIn = f.follow(d.Orders)
	}
	also := []string{d.Reason}
	if n := len(f.evidence.Left); n > 0 {
		also = append(also, fmt.Sprintf("what is left of it is stopped first (%s)", processes(f.evidence.Left)))
	}
	if len(f.evidence.Others) > 0 {
		also = append(also, fmt.Sprintf("another instance is stopped (%s)", processes(f.evidence.Others)))
	}
	if len(f.evidence.Commands) > 0 {
		also = append(also, fmt.Sprintf("its command that a crash has left is stopped first (%s)",
			processes(f.evidence.Commands)))
	}
	if d.Orders.Remains != RemainsNone && f.after {
		also = append(also, "stop.after runs first")
	}
	if p := f.evidence.Port; p != nil && p.Owner == process.PortForeign.String() && d.starts() {
		also = append(also, fmt.Sprintf("port %d is held by another process, a new one is chosen", p.Port))
	}
	d.Reason = strings.Join(also, "; ")
	return d
}

// starts reports whether the worker gets a new process, now or later.
func (d Decision) starts() bool {
	return d.Action == ActionStart || d.Action == ActionRespawn || d.Action == ActionWait || d.Action == ActionRun
}

func processes(found []Found) string {
	if len(found) == 1 {
		return fmt.Sprintf("process %d", found[0].PID)
	}
	return fmt.Sprintf("%d processes, the first is %d", len(found), found[0].PID)
}

// found returns what adoption and vacancy have in common: the process that was found, living or dead.
func (f *Facts) found() Orders {
	return Orders{
		From: f.state, Unrecorded: f.stray, Instance: f.instance,
		ClearRecorded: f.stray && f.recorded && !f.evidence.Moved && !f.evidence.OtherBoot,
	}
}

// adoption returns the orders to adopt the living process. A process without a record is treated as one that has
// just been started.
func (f *Facts) adoption() Orders {
	o := f.found()
	o.Event, o.Silent = lifecycle.Event{Kind: lifecycle.EvAdopted}, f.silent
	if f.stray {
		o.From.Status = records.StatusStarting
	}
	o.Ping = o.From.Asked()
	o.Proven = o.Ping && f.ownsPort && f.silent == "" && o.From.Status == records.StatusRunning
	if f.silent != "" || !o.Ping {
		o.Event = lifecycle.Event{Kind: lifecycle.EvAdoptedSilent, Reason: f.silent}
	}
	return o
}

// vacancy returns the orders for a worker without a living process.
func (f *Facts) vacancy() Orders {
	o := f.found()
	o.Event = lifecycle.Event{Kind: lifecycle.EvBegin}
	switch f.standing {
	case dead, gone:
		o.From.Planned = f.state.Status == records.StatusStopping
		o.Event = lifecycle.Event{Kind: lifecycle.EvExited, Reason: f.exitReason, Clean: f.clean, Away: true}
		o.Remains = RemainsFamily
		if f.standing == dead {
			o.Remains = RemainsProcess
		}
	case cutOff:
		o.Remains = RemainsFamily
	case otherBoot:
		o.Note = "the machine was booted since"
	case unrecorded, otherStateDir, lives, unknown:
	}
	return o
}

// keep decides about a living process.
func (f *Facts) keep(o Orders) (Action, string) {
	s := o.From
	what := fmt.Sprintf("process %d lives and is the recorded one", f.pid())
	switch {
	case f.stray:
		what = fmt.Sprintf("process %d is this worker by its environment, though no record names it", f.pid())
	case f.evidence.Recorded.PID == 0:
		what = fmt.Sprintf("process %d has the token of the start that was cut off", f.pid())
	}
	_, act := lifecycle.Next(s, o.Event, f.policy, f.now)
	switch act { //nolint:exhaustive // the other actions do not follow from these events
	case lifecycle.ActStop:
		switch {
		case s.Retired:
			return ActionStop, what + ", and " + s.RetireReason()
		case !s.Wanted:
			return ActionStop, what + ", and the worker is wanted stopped"
		case f.due != nil:
			return ActionStop, what + ", and was being stopped"
		}
		return ActionStop, what + ", and was being stopped: then it is started again"
	case lifecycle.ActUnpublish:
		return ActionAdoptUnhealthy, what + ", but cannot answer: " + f.silent
	case lifecycle.ActAwait:
		return ActionAdopt, what + ", and is still starting"
	}
	return ActionAdopt, what
}

// pid returns the PID of the process found.
func (f *Facts) pid() int {
	if f.evidence.Found == nil {
		return 0
	}
	return f.evidence.Found.PID
}

// follow decides about a slot that no process fills.
func (f *Facts) follow(o Orders) (action Action, reason string, restartIn float64) {
	s, e := o.From, o.Event
	after, act := lifecycle.Next(s, e, f.policy, f.now)
	what := f.past()
	switch {
	case after.Status == records.StatusFailed:
		return f.fail(e, after)
	case after.Status == records.StatusScheduled && act == lifecycle.ActNone && f.due != nil:
		return f.wait(after, what)
	}
	delay := after.History.RetryAt - f.now
	switch act { //nolint:exhaustive // the other actions do not follow from these events
	case lifecycle.ActStart:
		if f.policy.StartsOnce(s, e, f.now) {
			return ActionRespawn, what + "; it is essential, so it is started once", 0
		}
		if !f.ran && f.standing == unrecorded {
			return ActionStart, what, 0
		}
		return ActionRespawn, what, 0
	case lifecycle.ActBackOff:
		if e.Kind == lifecycle.EvExited {
			return ActionRespawn, fmt.Sprintf("%s; within %s", what, delay.Round(time.Millisecond)), delay.Seconds()
		}
		waits := fmt.Sprintf("%s, started in %s", what, delay.Round(time.Millisecond))
		return ActionWait, withReason(waits, s.Reason), delay.Seconds()
	case lifecycle.ActFinish:
		return ActionForget, what + ", and " + s.RetireReason(), 0
	}
	if after.Status == records.StatusCompleted {
		return ActionKeepCompleted, what + "; its policy does not restart it", 0
	}
	return ActionKeepStopped, what + "; it is wanted stopped", 0
}

// fail decides about a slot whose worker has failed, or fails by this event.
func (f *Facts) fail(e lifecycle.Event, after lifecycle.State) (action Action, reason string, retryIn float64) {
	again := ""
	if at := after.History.RetryAt; at != 0 {
		wait := at - f.now
		again, retryIn = fmt.Sprintf(", tried again in %s", wait.Round(time.Millisecond)), wait.Seconds()
	}
	if e.Kind == lifecycle.EvExited {
		return ActionFail, after.Reason + again, retryIn
	}
	return ActionKeepFailed, withReason("it has failed"+again, after.Reason), retryIn
}

func withReason(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

// past describes why nothing lives in the slot.
func (f *Facts) past() string {
	switch f.standing {
	case dead, gone:
		return f.exitReason
	case cutOff:
		return "its start was cut off before a process came to be"
	case otherBoot:
		return "the machine was booted since it ran"
	case otherStateDir:
		return "the state directory was copied or moved, and the recorded process belongs to the original"
	case unrecorded, lives, unknown:
	}
	switch {
	case f.state.Status == records.StatusStarting && !f.recorded:
		return "its start was cut off in start.before"
	case f.state.Status == records.StatusBackoff:
		return "it waits for its restart"
	case f.state.Status == records.StatusFailed:
		return withReason("it had failed, and is to be tried again", f.state.Reason)
	case f.state.Status == records.StatusCompleted:
		return withReason("it has completed", f.state.Reason)
	case f.state.Status == records.StatusWaiting:
		return "it waited for its dependencies"
	case f.state.Status == records.StatusScheduled && f.ran:
		return withReason("it is not running", f.state.Reason)
	case f.ran:
		return "no process of it is recorded"
	}
	return "it never ran"
}

// Stray is a process of this master that has no slot.
type Stray struct {
	Token    string
	Decision Decision
}

// DecideStrays decides to stop each instance that has no slot.
func DecideStrays(holders []process.Holder) []Stray {
	var strays []Stray
	at := map[string]int{}
	for _, h := range holders {
		if i, known := at[h.Token]; known {
			e := &strays[i].Decision.Evidence
			e.Others = append(e.Others, foundOf(h))
			continue
		}
		at[h.Token] = len(strays)
		found := foundOf(h)
		strays = append(strays, Stray{h.Token, Decision{
			ID: h.WorkerID, Action: ActionSweepStray,
			Reason:   fmt.Sprintf("process %d is of this master, and no worker that is wanted or recorded", h.PID),
			Evidence: Evidence{Found: &found},
		}})
	}
	return strays
}
