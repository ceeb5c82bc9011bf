package recovery

import (
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/dependencies"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// addWaits adds to the decision about each worker that is to be started the dependencies that it has to wait for. The
// decisions are those about the slots, in the same order; watched are those about unmanaged units.
func addWaits(decisions []Decision, slots []Slot, watched []Decision, units []unit.Spec) {
	at := make(map[string]int, len(slots))
	for i, s := range slots {
		at[s.ID] = i
	}
	others := make(map[string]Decision, len(watched))
	for _, d := range watched {
		others[d.ID] = d
	}
	var resolver *dependencies.Resolver
	resolver = dependencies.NewGraph(units).Resolve(func(id string) (dependencies.Worker, bool) {
		i, exists := at[id]
		if !exists {
			d, exists := others[id]
			return foreseen(d, records.Worker{}), exists
		}
		w := foreseen(decisions[i], slots[i].Rec)
		if w.Status == "" && resolver.Of(slots[i].Unit.Name).Blocked() {
			w.Status = records.StatusWaiting
		}
		return w, true
	})
	reasons := make([]string, len(slots))
	for i, s := range slots {
		if (decisions[i].starts() || decisions[i].Action == ActionRun) && !s.State.Retired {
			reasons[i] = resolver.Of(s.Unit.Name).Reason
		}
	}
	for i, reason := range reasons {
		if reason != "" {
			d := &decisions[i]
			d.WaitsFor, d.Reason = reason, d.Reason+"; it waits for "+reason
		}
	}
}

// foreseen returns the worker as its dependents see it when the decision has been carried out. A worker that is to be
// started has no status yet.
func foreseen(d Decision, rec records.Worker) dependencies.Worker {
	switch d.Action {
	case ActionAdopt:
		status := d.Orders.From.Status
		if d.Orders.Ping { // the worker is expected to pass it
			status = records.StatusRunning
		}
		return dependencies.Worker{Status: status, Alive: true, Ready: d.Orders.Ping}
	case ActionAdoptUnhealthy:
		return dependencies.Worker{Status: records.StatusUnhealthy, Alive: true, Detail: d.Orders.Silent}
	case ActionWait:
		return dependencies.Worker{Status: records.StatusBackoff, Detail: rec.Reason}
	case ActionFail:
		return dependencies.Worker{Status: records.StatusFailed, Detail: d.Reason}
	case ActionKeepFailed:
		return dependencies.Worker{Status: records.StatusFailed, Detail: rec.Reason}
	case ActionKeepCompleted:
		return dependencies.Worker{Status: records.StatusCompleted, Detail: rec.Reason}
	case ActionKeepStopped:
		return dependencies.Worker{Status: records.StatusStopped}
	case ActionStop:
		return dependencies.Worker{Status: records.StatusStopping, Detail: rec.Reason}
	case ActionHold:
		return dependencies.Worker{Unknown: true, Detail: lifecycle.HeldPrefix + d.Reason}
	case ActionKeepScheduled:
		return dependencies.Worker{Status: records.StatusScheduled, Detail: rec.Reason}
	case ActionWatch:
		if d.Evidence.Found == nil {
			return dependencies.Worker{Status: records.StatusAbsent}
		}
		return dependencies.Worker{Status: records.StatusRunning, Alive: true, Ready: true} // if it passes its check
	case ActionStart, ActionRespawn, ActionRun, ActionForget, ActionSweepStray:
	}
	return dependencies.Worker{}
}
