package worker

import (
	"slices"
	"sync"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// hookRuns are the runs of the hooks of one worker that are about to begin, or of which processes may live. The record
// of the worker has them before they begin, so that the next master finds the processes of each by its lease.
type hookRuns struct {
	mu      sync.Mutex
	planned []hookRun         // have not begun; one of a hook at most
	left    []records.HookRun // have begun, and their processes are not known to be gone
}

// hookRun is a run that has not begun.
type hookRun struct {
	records.HookRun
	lease *process.Lease // nil if none could be made
}

// recorded returns the runs for the record of the worker: those that have a lease.
func (r *hookRuns) recorded() (runs []records.HookRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.planned {
		runs = append(runs, run.HookRun)
	}
	for _, run := range r.left {
		if run.Lease != (records.HookRun{}).Lease {
			runs = append(runs, run)
		}
	}
	return runs
}

func (r *hookRuns) plan(run hookRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.planned = append(r.planned, run)
}

func (r *hookRuns) isPlanned(kind unit.Hook) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.planned, func(run hookRun) bool { return run.Hook == string(kind) })
}

// begin returns the planned run of the hook, whose processes may live from now on. If there is none, it is run without
// a lease.
func (r *hookRuns) begin(kind unit.Hook) hookRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	run := hookRun{HookRun: records.HookRun{Hook: string(kind), Instance: records.Instance{Token: launcher.NewToken()}}}
	at := slices.IndexFunc(r.planned, func(run hookRun) bool { return run.Hook == string(kind) })
	if at >= 0 {
		run = r.planned[at]
		r.planned = slices.Delete(r.planned, at, at+1)
	}
	r.left = append(r.left, run.HookRun)
	return run
}

// drop forgets the runs that have not begun.
func (r *hookRuns) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.planned {
		_ = run.lease.Close() // nothing was written
	}
	r.planned = nil
}

// add adds a run that has begun, unless it is known.
func (r *hookRuns) add(run records.HookRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.ContainsFunc(r.left, func(known records.HookRun) bool { return known.Token == run.Token }) {
		r.left = append(r.left, run)
	}
}

// remaining returns the runs that have begun.
func (r *hookRuns) remaining() []records.HookRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.left)
}

// gone removes the runs of which no process lives.
func (r *hookRuns) gone(is func(records.HookRun) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = slices.DeleteFunc(r.left, is)
}
