package supervisor

import (
	"fmt"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// Action is what a starting master does about a worker.
type Action string

// The values of Action.
const (
	ActionAdopt          Action = "adopt"           // keep the living process
	ActionAdoptUnhealthy Action = "adopt-unhealthy" // keep it, but give it no requests: it cannot answer
	ActionStart          Action = "start"           // for the first time
	ActionRespawn        Action = "respawn"         // it ran, and nothing is left of it
	ActionWait           Action = "wait"            // start it when its backoff is over
	ActionFail           Action = "fail"            // its restart budget is used up by this end
	ActionKeepFailed     Action = "keep-failed"
	ActionKeepStopped    Action = "keep-stopped"
	ActionStop           Action = "stop"        // the living process
	ActionForget         Action = "forget"      // nothing lives in a slot that nobody wants
	ActionHold           Action = "hold"        // cannot tell: leave all as it is, ask again
	ActionSweepStray     Action = "sweep-stray" // stop a process of ours that no slot is for
)

// Decision is what a starting master does about one worker, and why. The JSON is
// that of "hsu-master state plan": fields are added, never renamed.
type Decision struct {
	ID       string   `json:"id"`
	Action   Action   `json:"action"`
	Reason   string   `json:"reason"` // for people
	Evidence Evidence `json:"evidence"`
}

// standing is what became of the recorded instance.
type standing int

const (
	unrecorded standing = iota // no instance is recorded
	lives                      // and is proven
	dead                       // proven, and dead, but not reaped yet
	gone                       // nobody has its PID, or another process
	cutOff                     // its start came to no process
	bygone                     // it is of another boot
	abroad                     // it is of another state directory
	unknown                    // it cannot be told
)

// facts are all that the decision about one worker depends on.
type facts struct {
	id     string
	state  state
	policy RestartPolicy
	now    time.Duration
	ran    bool // it was started before

	standing standing
	cause    error           // unknown: why
	stray    bool            // a process that no record names fills the slot
	instance *store.Instance // what to record of a living process that was not recorded
	silent   string          // why the living process cannot answer; empty where it may
	fate     string          // dead, gone: how it ended, for people
	clean    bool            // and that it is known to have ended with code 0

	evidence Evidence
}

// living tells that a process fills the slot.
func (f facts) living() bool { return f.standing == lives }

// decide says what to do about a worker. It is pure: the same facts always make the
// same decision. What follows from the worker's own state and policy it leaves to
// next, as the worker itself does when it carries the decision out.
func decide(f facts) Decision {
	d := Decision{ID: f.id, Evidence: f.evidence}
	switch {
	case f.standing == unknown:
		d.Action, d.Reason = ActionHold, f.cause.Error()
		return d
	case f.living():
		d.Action, d.Reason = f.keep()
	case f.standing == dead, f.standing == gone:
		d.Action, d.Reason, d.Evidence.RestartIn = f.follow(f.exitedState(), event{kind: evExited, reason: f.fate, clean: f.clean, away: true})
	default:
		d.Action, d.Reason, d.Evidence.RestartIn = f.follow(f.state, event{kind: evBegin})
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

// starts tells that the worker gets a new process, now or later.
func (d Decision) starts() bool {
	return d.Action == ActionStart || d.Action == ActionRespawn || d.Action == ActionWait
}

func processes(found []Found) string {
	if len(found) == 1 {
		return fmt.Sprintf("process %d", found[0].PID)
	}
	return fmt.Sprintf("%d processes, the first is %d", len(found), found[0].PID)
}

// adoptedState is the state that a living process is taken over in. A process that
// no record names is as good as one that has just been started.
func (f facts) adoptedState() state {
	s := f.state
	if f.stray {
		s.status = store.StatusStarting
	}
	return s
}

// exitedState is the state in which the end of an instance is dealt with.
func (f facts) exitedState() state {
	s := f.state
	s.planned = s.status == store.StatusStopping
	return s
}

// asked tells whether an adopted worker is asked at once whether it answers: what
// is starting is waited for, and what is to be stopped need not answer.
func (s state) asked() bool {
	return s.wanted && s.status != store.StatusStarting && s.status != store.StatusStopping
}

// keep decides about a process that lives.
func (f facts) keep() (Action, string) {
	s, e := f.adoptedState(), event{kind: evAdopted}
	if f.silent != "" || !s.asked() {
		e = event{kind: evAdoptedSilent, reason: f.silent}
	}
	what := fmt.Sprintf("process %d lives and is the recorded one", f.pid())
	switch {
	case f.stray:
		what = fmt.Sprintf("process %d is this worker by its environment, though no record names it", f.pid())
	case f.evidence.Recorded.PID == 0:
		what = fmt.Sprintf("process %d has the token of the start that was cut off", f.pid())
	}
	_, act := next(s, e, f.policy, f.now)
	switch act { //nolint:exhaustive // all that next answers to these events
	case actStop:
		switch {
		case s.retired:
			return ActionStop, what + ", and fewer replicas are wanted"
		case !s.wanted:
			return ActionStop, what + ", and the worker is wanted stopped"
		}
		return ActionStop, what + ", and was being stopped: then it is started again"
	case actHold:
		return ActionAdoptUnhealthy, what + ", but cannot answer: " + f.silent
	case actAwait:
		return ActionAdopt, what + ", and is still starting"
	}
	return ActionAdopt, what
}

// pid is that of the process found.
func (f facts) pid() int {
	if f.evidence.Found == nil {
		return 0
	}
	return f.evidence.Found.PID
}

// follow decides about a slot that no process fills.
func (f facts) follow(s state, e event) (action Action, reason string, restartIn float64) {
	after, act := next(s, e, f.policy, f.now)
	what := f.past()
	delay := after.budget.RetryAt - f.now
	switch act { //nolint:exhaustive // all that next answers to these events
	case actStart:
		if !f.ran && f.standing == unrecorded {
			return ActionStart, what, 0
		}
		return ActionRespawn, what, 0
	case actWait:
		if e.kind == evExited {
			return ActionRespawn, fmt.Sprintf("%s; within %s", what, delay.Round(time.Millisecond)), delay.Seconds()
		}
		return ActionWait, withReason(fmt.Sprintf("%s, started in %s", what, delay.Round(time.Millisecond)), s.reason), delay.Seconds()
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

// past says why nothing lives in the slot.
func (f facts) past() string {
	switch f.standing {
	case dead, gone:
		return f.fate
	case cutOff:
		return "its start was cut off before a process came to be"
	case bygone:
		return "the machine was booted since it ran"
	case abroad:
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

// stray is a process of ours that no slot is for.
type stray struct {
	token    string
	decision Decision
}

// decideStrays has each instance stopped that no slot is for.
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
