package recovery

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/lifecycle"
	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/core-tools/hsu-master/supervisor/unit"
)

// Timeout limits the recovery of one worker; all are recovered in parallel.
const Timeout = 5 * time.Second

// Context is the common context of all workers of a recovery.
type Context struct {
	Inspector launcher.Inspector
	Scan      func(ctx context.Context) ([]process.Holder, error)
	// Kept returns how an instance ended, if a Keeper has its handle.
	Kept     func(token string) (identity.Exit, bool)
	MasterID string
	StateDir string // device:inode
	BootID   string
	UID      int  // user of the master
	Moved    bool // the state was made in another directory
	Now      func() time.Duration
	Secrets  records.SecretKey // of the environments in the records; empty if it cannot be read

	PIDNamespace uint64 // of this process
}

// Slot is one replica of a unit with the facts known so far.
type Slot struct {
	ID       string
	Unit     *unit.Spec
	Recorded bool
	Rec      records.Worker
	State    lifecycle.State
	Found    ScanResult
}

// ScanResult is the result of the scan of all processes for one worker slot.
type ScanResult struct {
	Holders []process.Holder
	// Commands are processes of start.before, stop.command or stop.after that an earlier master ran.
	Commands []process.Holder
	err      error // the scan failed: processes without a recorded PID are unknown
}

// Shows reports whether a process shows the token.
func (f ScanResult) Shows(token string) bool {
	return slices.ContainsFunc(f.Holders, func(h process.Holder) bool { return h.Token == token })
}

// Slots returns the wanted slots and the recorded ones that are no longer wanted. If asRecorded is set, all
// recorded ones are wanted. An unmanaged unit has no slot, and its record is never that of one. The slots refer to the
// elements of units.
func (rc *Context) Slots(recs []records.Worker, units []unit.Spec, asRecorded bool) []Slot {
	recorded := map[string]records.Worker{}
	for _, rec := range recs {
		recorded[rec.ID] = rec
	}
	wanted := 0
	for _, u := range units {
		wanted += u.Replicas
	}
	slots := make([]Slot, 0, max(wanted, len(recs))) // slots are large
	known := map[string]*unit.Spec{}
	for i := range units {
		u := &units[i]
		known[u.Name] = u
		if !u.Starts() {
			continue
		}
		for i := range u.Replicas {
			id := u.WorkerID(i)
			rec, found := recorded[id]
			if !found || rec.Unmanaged() {
				found = false
				rec = records.Worker{ID: id, Unit: u.Name, Desired: records.DesiredRunning}
			}
			delete(recorded, id)
			slots = append(slots, rc.slot(u, rec, found))
		}
	}
	for _, rec := range recs {
		if _, left := recorded[rec.ID]; !left || rec.Unmanaged() {
			continue
		}
		u, found := known[rec.Unit]
		if found = found && u.Starts(); !found {
			u = unit.Spec{Name: rec.Unit}.WithDefaults()
		}
		s := rc.slot(u, rec, true)
		if !asRecorded {
			s.State.Wanted, s.State.Retired, s.State.Cause = false, true, lifecycle.CauseIn(units, rec.Unit)
		}
		slots = append(slots, s)
	}
	return slots
}

func (rc *Context) slot(u *unit.Spec, rec records.Worker, recorded bool) Slot {
	s := Slot{ID: rec.ID, Unit: u, Rec: rec, Recorded: recorded}
	s.State = lifecycle.State{
		Wanted:   rec.Desired != records.DesiredStopped,
		Status:   rec.Status,
		Reason:   rec.Reason,
		Restarts: rec.Restarts,
		History:  lifecycle.SinceBoot(rec.History, rc.BootID, rc.Now(), lifecycle.PolicyOf(u)),
	}
	ended := s.State.Status == records.StatusFailed || s.State.Status == records.StatusCompleted
	if ended && Compare(rc.Secrets, u, rec) == Differs {
		// It ended with the old executable or arguments; the present ones have not been tried.
		s.State.Status, s.State.Reason = records.StatusStopped, ""
		s.State.History = records.RestartHistory{BootID: rc.BootID}
	}
	return s
}

// Unknown reports whether the scan failed, so that processes may exist which the result lacks.
func (f ScanResult) Unknown() bool { return f.err != nil }

// Commands returns the processes of the commands of a worker's hooks, as a scan shows them now.
func (rc *Context) Commands(ctx context.Context, worker string) ([]process.Holder, error) {
	holders, err := rc.Scan(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for commands of the worker: %w", err)
	}
	one := []Slot{{ID: worker}}
	rc.Assign(one, holders, nil)
	return one[0].Found.Commands, nil
}

// ours reports whether a process's environment declares it a worker of this master and this state directory: a copy
// of the directory has its own workers.
func (rc *Context) ours(h process.Holder) bool {
	return h.MasterID == rc.MasterID && h.StateDir == rc.StateDir
}

// Assign gives each slot the processes that carry its ID or its token, and returns the master's processes that have
// no slot.
func (rc *Context) Assign(slots []Slot, holders []process.Holder, scanErr error) (strays []process.Holder) {
	byToken, byID := map[string]*Slot{}, map[string]*Slot{}
	for i := range slots {
		s := &slots[i]
		s.Found = ScanResult{err: scanErr}
		byID[s.ID] = s
		if s.Rec.Instance != nil && !rc.Moved {
			byToken[s.Rec.Instance.Token] = s
		}
	}
	for _, h := range holders {
		s := byToken[h.Token]
		if s == nil {
			// Without a record, the master and the state directory must both match.
			if !rc.ours(h) {
				continue
			}
			if id, _, hook := unit.HookOf(h.WorkerID); hook && byID[id] != nil {
				byID[id].Found.Commands = append(byID[id].Found.Commands, h)
				continue
			}
			if s = byID[h.WorkerID]; s == nil {
				strays = append(strays, h)
				continue
			}
		}
		s.Found.Holders = append(s.Found.Holders, h)
	}
	return strays
}
