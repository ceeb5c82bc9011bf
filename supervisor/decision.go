package supervisor

import (
	"fmt"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
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
	ActionKeepFailed     Action = "keep-failed"
	ActionKeepStopped    Action = "keep-stopped"
	ActionStop           Action = "stop"        // the living process
	ActionForget         Action = "forget"      // nothing lives in a slot that is not wanted
	ActionHold           Action = "hold"        // cannot tell: change nothing, verify again later
	ActionSweepStray     Action = "sweep-stray" // stop a process of this master that has no slot
)

// Decision is a starting master's decision about one worker, with its reason. The JSON is the output of "hsu-master
// state plan": fields are added, never renamed.
type Decision struct {
	ID       string   `json:"id"`
	Action   Action   `json:"action"`
	Reason   string   `json:"reason"` // for people
	Evidence Evidence `json:"evidence"`

	orders orders
}

// orders are the details of a decision that only its execution needs.
type orders struct {
	from    state   // state of the worker in which event is handled
	event   event   // the finding, for next; if ping is set, the Ping of an adopted worker may change it
	remains remains // of the recorded instance, to be ended first

	unrecorded    bool            // no record names the process that was found
	clearRecorded bool            // then the family of the recorded instance is to be ended first
	instance      *store.Instance // the new record of the process that was found; nil if the old one is right
	ping          bool            // adopt: the worker must answer a Ping to get requests
	silent        string          // adopt: why the process cannot answer; empty if it may

	cause error  // hold: why the condition cannot be determined
	note  string // for the history; empty for none
}

// remains are the parts of a recorded instance that may still exist.
type remains int

const (
	remainsNone    remains = iota // or they are not this master's
	remainsFamily                 // descendants
	remainsProcess                // the process itself, dead and not reaped, and descendants
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

// facts are everything that the decision about one worker depends on.
type facts struct {
	id       string
	state    state
	policy   policy
	now      time.Duration
	ran      bool // it was started before
	recorded bool // an instance is recorded

	standing   standing
	cause      error           // unknown: why
	stray      bool            // a process without a record fills the slot
	instance   *store.Instance // record for a living process that has none
	silent     string          // why the living process cannot answer; empty if it may
	exitReason string          // dead, gone: how it ended, for people
	clean      bool            // dead, gone: known to have ended with code 0

	evidence Evidence
}

// living reports whether a process fills the slot.
func (f facts) living() bool { return f.standing == lives }

// decide returns the decision about a worker. It is pure: the same facts always give the same decision. It leaves
// the consequences of the worker's own state and policy to next, as the worker does when it executes the decision.
func decide(f facts) Decision {
	d := Decision{ID: f.id, Evidence: f.evidence}
	switch f.standing {
	case unknown:
		d.Action, d.Reason, d.orders.cause = ActionHold, f.cause.Error(), f.cause
		return d
	case lives:
		d.orders = f.adoption()
		d.Action, d.Reason = f.keep(d.orders)
	case dead, gone, cutOff, otherBoot, otherStateDir, unrecorded:
		d.orders = f.vacancy()
		d.Action, d.Reason, d.Evidence.RestartIn = f.follow(d.orders)
	}
	also := []string{d.Reason}
	if n := len(f.evidence.Left); n > 0 {
		also = append(also, fmt.Sprintf("what is left of it is stopped first (%s)", processes(f.evidence.Left)))
	}
	if len(f.evidence.Others) > 0 {
		also = append(also, fmt.Sprintf("another instance is stopped (%s)", processes(f.evidence.Others)))
	}
	if p := f.evidence.Port; p != nil && p.Owner == process.PortForeign.String() && d.starts() {
		also = append(also, fmt.Sprintf("port %d is held by another process, a new one is chosen", p.Port))
	}
	d.Reason = strings.Join(also, "; ")
	return d
}

// starts reports whether the worker gets a new process, now or later.
func (d Decision) starts() bool {
	return d.Action == ActionStart || d.Action == ActionRespawn || d.Action == ActionWait
}

func processes(found []Found) string {
	if len(found) == 1 {
		return fmt.Sprintf("process %d", found[0].PID)
	}
	return fmt.Sprintf("%d processes, the first is %d", len(found), found[0].PID)
}

// found returns what adoption and vacancy have in common: the process that was found, living or dead.
func (f facts) found() orders {
	return orders{
		from: f.state, unrecorded: f.stray, instance: f.instance,
		clearRecorded: f.stray && f.recorded && !f.evidence.Moved && !f.evidence.OtherBoot,
	}
}

// adoption returns the orders to adopt the living process. A process without a record is treated as one that has
// just been started.
func (f facts) adoption() orders {
	o := f.found()
	o.event, o.silent = event{kind: evAdopted}, f.silent
	if f.stray {
		o.from.status = store.StatusStarting
	}
	o.ping = o.from.asked()
	if f.silent != "" || !o.ping {
		o.event = event{kind: evAdoptedSilent, reason: f.silent}
	}
	return o
}

// vacancy returns the orders for a worker without a living process.
func (f facts) vacancy() orders {
	o := f.found()
	o.event = event{kind: evBegin}
	switch f.standing {
	case dead, gone:
		o.from.planned = f.state.status == store.StatusStopping
		o.event = event{kind: evExited, reason: f.exitReason, clean: f.clean, away: true}
		o.remains = remainsFamily
		if f.standing == dead {
			o.remains = remainsProcess
		}
	case cutOff:
		o.remains = remainsFamily
	case otherBoot:
		o.note = "the machine was booted since"
	case unrecorded, otherStateDir, lives, unknown:
	}
	return o
}

// asked reports whether an adopted worker is pinged at once. A starting worker is awaited instead, and a worker
// that is to be stopped need not answer.
func (s state) asked() bool {
	return s.wanted && s.status != store.StatusStarting && s.status != store.StatusStopping
}

// keep decides about a living process.
func (f facts) keep(o orders) (Action, string) {
	s := o.from
	what := fmt.Sprintf("process %d lives and is the recorded one", f.pid())
	switch {
	case f.stray:
		what = fmt.Sprintf("process %d is this worker by its environment, though no record names it", f.pid())
	case f.evidence.Recorded.PID == 0:
		what = fmt.Sprintf("process %d has the token of the start that was cut off", f.pid())
	}
	_, act := next(s, o.event, f.policy, f.now)
	switch act { //nolint:exhaustive // the other actions do not follow from these events
	case actStop:
		switch {
		case s.retired:
			return ActionStop, what + ", and fewer replicas are wanted"
		case !s.wanted:
			return ActionStop, what + ", and the worker is wanted stopped"
		}
		return ActionStop, what + ", and was being stopped: then it is started again"
	case actUnpublish:
		return ActionAdoptUnhealthy, what + ", but cannot answer: " + f.silent
	case actAwait:
		return ActionAdopt, what + ", and is still starting"
	}
	return ActionAdopt, what
}

// pid returns the PID of the process found.
func (f facts) pid() int {
	if f.evidence.Found == nil {
		return 0
	}
	return f.evidence.Found.PID
}

// follow decides about a slot that no process fills.
func (f facts) follow(o orders) (action Action, reason string, restartIn float64) {
	s, e := o.from, o.event
	after, act := next(s, e, f.policy, f.now)
	what := f.past()
	delay := after.history.RetryAt - f.now
	switch act { //nolint:exhaustive // the other actions do not follow from these events
	case actStart:
		if !f.ran && f.standing == unrecorded {
			return ActionStart, what, 0
		}
		return ActionRespawn, what, 0
	case actBackOff:
		if e.kind == evExited {
			return ActionRespawn, fmt.Sprintf("%s; within %s", what, delay.Round(time.Millisecond)), delay.Seconds()
		}
		waits := fmt.Sprintf("%s, started in %s", what, delay.Round(time.Millisecond))
		return ActionWait, withReason(waits, s.reason), delay.Seconds()
	case actFinish:
		return ActionForget, what + ", and fewer replicas are wanted", 0
	}
	if after.status == store.StatusFailed {
		if e.kind == evExited {
			return ActionFail, after.reason, 0
		}
		return ActionKeepFailed, withReason("it has failed", after.reason), 0
	}
	if !s.wanted {
		return ActionKeepStopped, what + "; it is wanted stopped", 0
	}
	return ActionKeepStopped, what + "; its policy does not restart it", 0
}

func withReason(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

// past describes why nothing lives in the slot.
func (f facts) past() string {
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
	case f.state.status == store.StatusBackoff:
		return "it waits for its restart"
	case f.ran:
		return "no process of it is recorded"
	}
	return "it never ran"
}

// stray is a process of this master that has no slot.
type stray struct {
	token    string
	decision Decision
}

// decideStrays decides to stop each instance that has no slot.
func decideStrays(holders []process.Holder) []stray {
	var strays []stray
	at := map[string]int{}
	for _, h := range holders {
		if i, known := at[h.Token]; known {
			e := &strays[i].decision.Evidence
			e.Others = append(e.Others, foundOf(h))
			continue
		}
		at[h.Token] = len(strays)
		found := foundOf(h)
		strays = append(strays, stray{h.Token, Decision{
			ID: h.WorkerID, Action: ActionSweepStray,
			Reason:   fmt.Sprintf("process %d is of this master, and no worker that is wanted or recorded", h.PID),
			Evidence: Evidence{Found: &found},
		}})
	}
	return strays
}
