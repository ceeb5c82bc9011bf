//go:build e2e && linux && (crash || torture)

package crash

import (
	"fmt"
	"slices"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/store/records"
)

// watchedUnits are the units whose process is the rig's decoy: the masters may watch it, and never touch it.
func (r *rig) watchedUnits() string {
	return fmt.Sprintf("  by-port: {kind: unmanaged, discover: {port: %d}}\n"+
		"  by-name: {kind: unmanaged, discover: {process: {name: %q, args: [decoy, %q]}}}\n",
		r.decoy.port, harness.ProgramName(r.decoy.PID), r.decoy.Record)
}

// checkWatched checks the record of an unmanaged unit.
func (r *rig) checkWatched(w records.Worker, fail func(string, ...any)) {
	switch {
	case r.decoy == nil || r.watches == "" && !r.mayWatch:
		fail("the record of an unmanaged unit is there: %+v", w)
	case w.Instance != nil:
		fail("the process of %s is recorded as started: %+v", w.ID, w.Instance)
	case w.Found != nil && (w.Found.PID != r.decoy.PID || w.Found.StartTicks != r.decoy.born):
		fail("%s is recorded as %+v, and is process %d of tick %d", w.ID, w.Found, r.decoy.PID, r.decoy.born)
	}
}

// reportsWatched removes the unmanaged units from the report of a running master. It returns an error unless each shows
// the decoy, and none is missing or surplus.
func (r *rig) reportsWatched(state *adminpb.State) error {
	shown := 0
	var err error
	state.Workers = slices.DeleteFunc(state.GetWorkers(), func(w *adminpb.Worker) bool {
		if !w.GetUnmanaged() {
			return false
		}
		shown++
		if int(w.GetPid()) != r.decoy.PID || w.GetStatus() != "running" || !w.GetReady() || w.GetToken() != "" {
			err = fmt.Errorf("%s is said to be %v, and is process %d", w.GetId(), w, r.decoy.PID)
		}
		return true
	})
	if want := map[bool]int{true: 0, false: 2}[r.watches == ""]; err == nil && shown != want {
		err = fmt.Errorf("%d unmanaged units are shown, want %d", shown, want)
	}
	return err
}
