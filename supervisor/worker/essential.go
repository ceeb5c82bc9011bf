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

// tellEnd passes the end of an essential worker to the master, if the step from before has ended it. The end is
// recorded.
func tellEnd(w *owner, before lifecycle.State) {
	if w.env.Essential == nil || !lifecycle.PolicyOf(w.unit).EndsMaster(before, w.state) {
		return
	}
	w.env.Essential(End{
		Worker: w.id, Reason: w.state.Reason, LogPath: logs.Path(w.env.LogDir, w.id),
		Succeeded: w.state.Status == records.StatusCompleted,
	})
}
