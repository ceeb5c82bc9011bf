package worker

import (
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/logs"
)

// End is the end of an essential worker, with which the master ends.
type End struct {
	Worker    string
	Reason    string
	LogPath   string
	Succeeded bool
}

// reportEnd passes the end of an essential worker to the master if the step between the states has ended the worker.
// The end is recorded.
func (e *Env) reportEnd(worker string, p lifecycle.Policy, before, after lifecycle.State) {
	if e.Essential == nil || !p.EndsMaster(before, after) {
		return
	}
	e.Essential(End{
		Worker: worker, Reason: after.Reason, LogPath: logs.Path(e.LogDir, worker),
		Succeeded: after.Status == records.StatusCompleted,
	})
}
