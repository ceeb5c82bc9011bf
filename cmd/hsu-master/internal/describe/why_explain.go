package describe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

// Explanation is why a worker is in its status, what happens next and when, and the command that helps. Each text is
// raw: it may have characters that a terminal must not get.
type Explanation struct{ Why, Next, Do string }

// Explain decides what "why" says about a worker. live is false while no master runs.
func Explain(in *adminpb.Inspection, live bool, now time.Time) Explanation {
	w := in.GetWorker()
	e := Explanation{Why: w.GetReason()}
	switch held, isHeld := strings.CutPrefix(w.GetReason(), lifecycle.HeldPrefix); {
	case isHeld:
		e = Explanation{
			held, "looks again each second; no second process is started meanwhile",
			commandFor("worker inspect", w) + "  lists the processes",
		}
	case w.GetUnmanaged():
		explainUnmanaged(in, &e)
	default:
		explainStatus(in, &e, now)
		explainBackground(w, &e)
	}
	if !live {
		e.Next, e.Do = "nothing, until a master runs", "hsu-master run  or: systemctl start hsu-master"
	}
	return e
}

func explainStatus(in *adminpb.Inspection, e *Explanation, now time.Time) {
	w := in.GetWorker()
	switch records.Status(w.GetStatus()) {
	case records.StatusStarting:
		explainStarting(in, e, now)
	case records.StatusRunning:
		explainRunning(in, e)
	case records.StatusUnhealthy:
		e.Next = "no calls until it passes its checks; restarted if it stays silent and idle"
		e.Do = commandFor("worker logs", w) + "  or: " + commandFor("worker restart", w)
	case records.StatusStopping:
		explainStopping(in, e, now)
	case records.StatusStopped:
		explainStopped(in, e, now)
	case records.StatusBackoff:
		e.Next = "tries again " + render.Moment(w.GetRetryAt(), now) + "; " + budgetLeft(in.GetPolicy())
		e.Do = "mend it; " + commandFor("worker restart", w) + "  tries at once"
	case records.StatusFailed:
		e.Next = "is not tried again by itself"
		if w.GetRetryAt() != nil {
			e.Next = "tries once more " + render.Moment(w.GetRetryAt(), now)
		}
		e.Do = "mend it, then: " + commandFor("worker restart", w)
	case records.StatusWaiting:
		on, _, named := strings.Cut(w.GetReason(), ": ")
		e.Why, e.Next = "waits for "+cmp.Or(w.GetReason(), "its dependencies"), "starts as soon as that is met"
		e.Do = "hsu-master why"
		if named {
			e.Do += " " + on
		}
	case records.StatusScheduled:
		e.Why = cmp.Or(lastRun(w, now), "it has not run yet")
		e.Next = "runs " + render.Moment(w.GetNextDueAt(), now)
		e.Do = commandFor("worker start", w) + "  runs it now"
	case records.StatusCompleted:
		e.Why = cmp.Or(w.GetReason(), "it ended with a success code")
		e.Next = "is not started again: restart policy " + cmp.Or(in.GetPolicy().GetRestart(), "on-failure")
		e.Do = commandFor("worker start", w) + "  runs it again"
	case records.StatusAbsent: // unmanaged
	}
}

// explainBackground says what helps a program that goes to the background.
func explainBackground(w *adminpb.Worker, e *Explanation) {
	verb := "worker restart"
	switch records.Status(w.GetStatus()) {
	case records.StatusCompleted:
		verb = "worker start"
	case records.StatusBackoff, records.StatusFailed:
	default: // it has a process, or is not wanted
		return
	}
	if strings.Contains(w.GetReason(), lifecycle.Backgrounded) {
		e.Do = `have it stay in the foreground (such as nginx -g "daemon off;", redis-server --daemonize no), then: ` +
			commandFor(verb, w)
	}
}

func explainUnmanaged(in *adminpb.Inspection, e *Explanation) {
	w := in.GetWorker()
	if w.GetStatus() != string(records.StatusAbsent) {
		e.Why = cmp.Or(w.GetReason(), "its process was found; another program starts it")
		e.Next = "is watched, never started or stopped"
		return
	}
	e.Next = "is taken as soon as it is found"
	e.Do = "start it with the program that it belongs to"
	for _, s := range in.GetSettings() {
		if s.GetKey() == "discover" {
			e.Do += "; it is found by " + s.GetValue()
		}
	}
}

func explainStarting(in *adminpb.Inspection, e *Explanation, now time.Time) {
	w := in.GetWorker()
	switch {
	case w.GetWaitingFor() != "":
		e.Why = "waits for " + w.GetWaitingFor()
	case w.GetPid() != 0:
		e.Why = "it was not ready yet"
	default:
		e.Why = "its process is being made"
	}
	if limit := in.GetPolicy().GetStartTimeout(); limit != nil && w.GetStartedAt() != nil {
		by := w.GetStartedAt().AsTime().Add(limit.AsDuration())
		e.Next = "is stopped " + render.Moment(timestamppb.New(by), now) + ", if it is not ready by then; " +
			budgetLeft(in.GetPolicy())
	}
	e.Do = commandFor("worker logs", w)
}

func explainRunning(in *adminpb.Inspection, e *Explanation) {
	w := in.GetWorker()
	switch {
	case e.Why != "":
	case w.GetReady():
		e.Why = "it is well"
	default:
		e.Why = "it has not passed a check of this master yet"
	}
	e.Next = "goes on"
	if w.GetOutdated() {
		e.Why += "; outdated: " + cmp.Or(strings.Join(in.GetOutdated(), ", "), "its unit has changed since its start")
		e.Next = "goes on as it is until it is restarted"
		e.Do = commandFor("worker restart", w)
	}
}

func explainStopping(in *adminpb.Inspection, e *Explanation, now time.Time) {
	w := in.GetWorker()
	e.Why, e.Do = cmp.Or(e.Why, lastOrder(in, now), "it was told to end"), commandFor("worker logs", w)
	e.Next = "ends"
	if grace := in.GetPolicy().GetStopGrace(); grace != nil && in.GetSince() != nil {
		by := in.GetSince().AsTime().Add(grace.AsDuration())
		e.Next = "is killed " + render.Moment(timestamppb.New(by), now) + ", if it has not ended by then"
	}
	switch {
	case in.GetRetired():
		e.Next += "; then it is forgotten"
	case w.GetDesired() == string(records.DesiredStopped):
		e.Next += "; then it stays stopped"
	default:
		e.Next += "; then it is started again"
	}
	explainDisabled(in, e, now)
}

// explainDisabled names who has disabled the unit of a worker, and how to take that back.
func explainDisabled(in *adminpb.Inspection, e *Explanation, now time.Time) {
	if !in.GetRetired() || in.GetWorker().GetReason() != string(lifecycle.UnitDisabled) {
		return
	}
	e.Do = "hsu-master unit enable " + in.GetWorker().GetUnit()
	if by := recordedOrder(in, now, eventtype.Disable); by != "" {
		e.Why += ": " + by
	}
}

func explainStopped(in *adminpb.Inspection, e *Explanation, now time.Time) {
	w := in.GetWorker()
	switch {
	case in.GetRetired():
		e.Why = cmp.Or(e.Why, "it is surplus: fewer replicas are wanted")
		e.Next = "is forgotten"
		e.Do = "hsu-master worker scale " + w.GetUnit() + "=N"
		explainDisabled(in, e, now)
	case w.GetDesired() == string(records.DesiredStopped):
		e.Why = cmp.Or(lastOrder(in, now), e.Why, "an operator has stopped it")
		e.Next = "stays stopped, also over restarts of the master and reboots"
		e.Do = commandFor("worker start", w)
	default:
		e.Why = cmp.Or(e.Why, "the master stopped it when it ended")
		e.Next = "is started when the master is"
	}
}

// lastOrder names the operator who has stopped the worker or disabled its unit, and when if the history goes back so
// far; "" if none did.
func lastOrder(in *adminpb.Inspection, now time.Time) string {
	if text := recordedOrder(in, now, eventtype.Stop, eventtype.Disable); text != "" {
		return text
	}
	return orderText(in.GetWorker().GetStoppedBy(), "")
}

// recordedOrder names the operator of the newest event of the types, and when that was; "" if there is none.
func recordedOrder(in *adminpb.Inspection, now time.Time, types ...string) string {
	for _, e := range in.GetEvents() {
		if e.GetOperator() != nil && slices.Contains(types, e.GetType()) {
			return orderText(e.GetOperator(), ", "+render.At(e.GetTime(), now))
		}
	}
	return ""
}

func orderText(by *adminpb.Operator, when string) string {
	if by == nil {
		return ""
	}
	text := fmt.Sprintf("user %d", by.GetUid()) + when
	if by.GetCommand() != "" {
		text += ": " + by.GetCommand()
	}
	return text
}

// lastRun describes the last run of a scheduled worker, "" if there was none.
func lastRun(w *adminpb.Worker, now time.Time) string {
	last := "its last run"
	if w.GetLastDueAt() != nil {
		last += ", due " + render.At(w.GetLastDueAt(), now) + ","
	}
	switch {
	case w.GetReason() != "":
		return last + " failed: " + w.GetReason()
	case w.GetLastExit() != nil:
		return last + " was good"
	}
	return ""
}

// budgetLeft describes what follows the next failures.
func budgetLeft(p *adminpb.Inspection_Policy) string {
	if p == nil {
		return "its budget is not known"
	}
	left := int(p.GetRestarts() - p.GetSpent())
	if left <= 0 {
		return "the next failure makes it failed"
	}
	return fmt.Sprintf("%s left within %s, then failed", render.Count(left, "restart"),
		render.ShortAge(p.GetWindow().AsDuration()))
}

// exitCause describes an exit and what caused it. events are the last ones of the worker, the newest first.
func exitCause(e *adminpb.Inspection_PastExit, events []*adminpb.Event) string {
	exit, reason := e.GetExit(), e.GetReason()
	if exit.Signal == nil {
		bare := "exited with an unknown code"
		if exit.Code != nil {
			bare = fmt.Sprintf("exited with code %d", exit.GetCode())
		}
		if reason == "" || reason == bare {
			return bare
		}
		if strings.HasPrefix(reason, bare) {
			return reason
		}
		return reason + " (" + bare + ")"
	}
	killed, by := "killed by "+exit.GetSignal(), sentBy(exit, events)
	faults := []string{"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"}
	switch {
	case reason != "" && reason != killed && strings.HasPrefix(reason, killed):
		return reason // such as out of memory
	case reason != "" && reason != killed:
		return reason + " (" + exit.GetSignal() + ")"
	case by != "":
		return killed + ", sent by " + by
	case slices.Contains(faults, exit.GetSignal()):
		return killed + ", a fault of the program"
	}
	return killed + ", which hsu-master did not send"
}

// signalWithin bounds the time between a signal that an operator has had sent and the recorded exit by it.
const signalWithin = 10 * time.Second

// sentBy describes the operator's command that has sent the signal of an exit, "" if none is known.
func sentBy(e *adminpb.Exit, events []*adminpb.Event) string {
	for _, event := range events {
		took := e.GetAt().AsTime().Sub(event.GetTime().AsTime())
		if event.GetType() == eventtype.Signal && strings.HasPrefix(event.GetDetail(), e.GetSignal()+" ") &&
			took >= 0 && took < signalWithin {
			return orderText(event.GetOperator(), "")
		}
	}
	return ""
}

// commandFor returns a command about the worker.
func commandFor(verb string, w *adminpb.Worker) string { return "hsu-master " + verb + " " + w.GetId() }
