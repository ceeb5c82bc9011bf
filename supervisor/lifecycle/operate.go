package lifecycle

import "github.com/core-tools/hsu-master/store/records"

// ByOperator is the reason of a worker that an operator has stopped.
const ByOperator = "an operator has stopped it"

// halt decides about an operator's stop. It holds until the operator starts the worker. A start that has made no
// process yet is cancelled: its end is that of start.before.
func halt(s State) (State, Action) {
	if s.quitting || s.Retired {
		return s, ActNone
	}
	s.Wanted, s.History.RetryAt = false, 0
	switch {
	case s.Slot == Occupied:
		return s.stop(ByOperator)
	case s.Slot == terminating, s.Slot == remaining:
		s.Status = records.StatusStopping
	case s.Slot == Vacant && s.Status != records.StatusStarting:
		s.Status, s.Reason = records.StatusStopped, ByOperator
	}
	return s, ActNone
}

// resume decides about an operator's start, which gives the worker its whole budget. A worker that is being stopped is
// started again when it has ended.
func resume(s State) (State, Action) {
	if s.quitting || s.Retired {
		return s, ActNone
	}
	s.Wanted = true
	s.History.Spent, s.History.Backoff, s.History.RetryAt, s.History.FailedWait = nil, 0, 0, 0
	switch {
	case s.Slot == Vacant && s.Status != records.StatusStarting:
		return s.start()
	case s.Slot == terminating, s.Slot == remaining && s.Status == records.StatusStopping:
		s.Status, s.Planned = records.StatusStopping, true
	}
	return s, ActNone
}
