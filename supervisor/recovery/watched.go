package recovery

import (
	"context"

	"github.com/core-tools/hsu-master/internal/systemd"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// planWatched returns the decisions of a master started now about the unmanaged units: to search for their processes.
// slots are those of the other units.
func (rc *Context) planWatched(
	ctx context.Context, recs []records.Worker, units []unit.Spec, slots []Slot,
) []Decision {
	manager := systemd.NewManager()
	defer manager.Close()
	own := process.Own{MasterID: rc.MasterID, StateDir: rc.StateDir, MainPID: manager.MainPID}
	recorded, taken := map[string]records.Worker{}, map[string]bool{}
	for _, rec := range recs {
		if rec.Unmanaged() {
			recorded[rec.ID] = rec
		} else if i := rec.Instance; i != nil && i.PID != 0 && i.BootID == rc.BootID {
			own.Leaders = append(own.Leaders, i.PID)
		}
	}
	for _, slot := range slots {
		taken[slot.ID] = true
	}
	var decisions []Decision
	var queries []process.Query
	for _, u := range units {
		if u.Starts() || u.Replicas == 0 {
			continue
		}
		d := Decision{ID: u.WorkerID(0), Action: ActionWatch}
		query := process.Query{Pattern: u.Discover}
		if rec, found := recorded[d.ID]; found {
			d.Evidence.Recorded = recordedOf(rec)
			if rec.Found != nil && rec.Found.BootID == rc.BootID {
				query.Last = rec.Found.Process
			}
			delete(recorded, d.ID)
		}
		decisions, queries = append(decisions, d), append(queries, query)
	}
	for i, found := range process.Discover(ctx, own, queries) {
		if found.Err != nil {
			decisions[i].Reason = "absent: " + process.ReasonOf(found.Err)
			continue
		}
		id := found.Process.Identity()
		decisions[i].Reason = "found by " + queries[i].Pattern.String() + ": " + found.Name
		decisions[i].Evidence.Found = &Found{
			State: FoundAlive, PID: id.PID, Inode: id.Inode, StartTicks: id.StartTicks,
		}
		_ = found.Process.Close() // never fails
	}
	for _, rec := range recs {
		if _, left := recorded[rec.ID]; left && !taken[rec.ID] {
			decisions = append(decisions, Decision{
				ID: rec.ID, Action: ActionForget, Evidence: Evidence{Recorded: recordedOf(rec)},
				Reason: "the unmanaged unit is not wanted any more; its process goes on",
			})
		}
	}
	return decisions
}
