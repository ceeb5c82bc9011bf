package recovery

import "github.com/core-tools/hsu-master/store/records"

// Replaces reports whether the rollout, nil for none, has the worker still to be replaced.
func Replaces(r *records.Rollout, rec records.Worker) bool {
	if r == nil {
		return false
	}
	for _, t := range r.Workers {
		if t.ID == rec.ID {
			return rec.Incarnation <= t.Incarnation
		}
	}
	return false
}

// addRollouts adds to the decision about each worker that is adopted the recorded rollout that then replaces it, and to
// that about each one that has failed or completed the rollout that then starts it. A reload replaces only outdated
// workers.
func addRollouts(decisions []Decision, recs []records.Worker, units []records.Unit) {
	rollouts, workers := map[string]*records.Rollout{}, map[string]records.Worker{}
	for _, u := range units {
		rollouts[u.Name] = u.Rollout
	}
	for _, rec := range recs {
		workers[rec.ID] = rec
	}
	for i := range decisions {
		d := &decisions[i]
		rec := workers[d.ID]
		r := rollouts[rec.Unit]
		if !Replaces(r, rec) {
			continue
		}
		var what string
		switch d.Action {
		case ActionAdopt, ActionAdoptUnhealthy:
			if r.Act == records.ActReload && !d.Evidence.Outdated {
				continue
			}
			what = "replaced"
		case ActionFail, ActionKeepFailed, ActionKeepCompleted:
			what = "started"
		default: // it is started anyway, or never
			continue
		}
		d.Evidence.Rollout = string(r.Act)
		d.Reason += "; then it is " + what + ": the " + string(r.Act) + " that was under way goes on"
	}
}
