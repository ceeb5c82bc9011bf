package worker

import (
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
)

// End is the end of an essential worker, with which the master ends.
type End struct {
	Worker    string
	Reason    string
	LogPath   string // of its output; empty if that goes elsewhere
	Succeeded bool
}

// reportEnd passes the end of an essential worker to the master if the step between the states has ended the worker.
// The end is recorded.
func (e *Env) reportEnd(o *output, p lifecycle.Policy, before, after lifecycle.State) {
	if e.Essential == nil || !p.EndsMaster(before, after) {
		return
	}
	end := End{
		Worker: o.worker, Reason: after.Reason, LogPath: o.path, Succeeded: after.Status == records.StatusCompleted,
	}
	if o.elsewhere() != "" {
		end.LogPath = ""
	}
	e.Essential(end)
}
