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

// addRollouts adds to the decision about each worker that is adopted the recorded rollout that then replaces it. A
// reload replaces only outdated workers.
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
		rec, adopted := workers[d.ID], d.Action == ActionAdopt || d.Action == ActionAdoptUnhealthy
		r := rollouts[rec.Unit]
		if !adopted || !Replaces(r, rec) || r.Act == records.ActReload && !d.Evidence.Outdated {
			continue
		}
		d.Evidence.Rollout = string(r.Act)
		d.Reason += "; then it is replaced: the " + string(r.Act) + " that was under way goes on"
	}
}
