package lifecycle

import (
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// cutOff is the reason of a worker whose run was recorded, and of whose end nothing is known.
const cutOff = "its last run was cut off, and is not repeated: the master or the machine ended meanwhile"

// due decides about a due time. A second run never begins beside a first, and none while the master stops.
func due(s State, p Policy) (State, Action) {
	if !p.scheduled || !s.Wanted || s.quitting || s.Slot != Vacant || s.Status == records.StatusStarting {
		return s, ActNone
	}
	return s.start()
}

// idle returns the state of a worker that waits for its next due time. The reason of a last run that failed stays. A
// run that was recorded and of which nothing is left may have done its work, so it is not repeated.
func (s State) idle() State {
	switch s.Status {
	case records.StatusStarting, records.StatusRunning, records.StatusUnhealthy:
		s.Reason = cutOff
	case records.StatusScheduled, records.StatusFailed, records.StatusBackoff, records.StatusWaiting,
		records.StatusAbsent:
	case records.StatusStopping, records.StatusStopped, records.StatusCompleted:
		s.Reason = ""
	}
	s.Status, s.History.RetryAt, s.Lacked = records.StatusScheduled, 0, 0
	return s
}

// runEnded decides what follows the end of a run. Only a run that has not begun, because the master lacked a resource,
// is tried again. asked is set if the end is that of an orderly stop.
func runEnded(s State, e Event, p Policy, now time.Duration, asked bool) (State, Action) {
	switch {
	case s.Retired:
		s.Status, s.Reason = records.StatusStopped, ""
		return s, ActFinish
	case !s.Wanted, s.quitting && !e.Clean && asked:
		s.Status, s.Reason = records.StatusStopped, s.unwantedReason()
	case e.Ours && e.Kind == EvStartFailed && !s.quitting:
		return s.lack(e, p, now)
	default:
		s.Status, s.Reason, s.Lacked = records.StatusScheduled, e.Reason, 0
		if e.Clean || asked {
			s.Reason = ""
		}
	}
	if s.quitting {
		return s, ActFinish
	}
	return s, ActNone
}
