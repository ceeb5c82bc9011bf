package supervisor

import (
	"context"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// inspector inspects processes without changing them.
type inspector interface {
	// attach proves that the recorded instance lives and opens it. Its errors include [process.ErrGone] and
	// [process.ErrUnverifiable].
	attach(worker string, rec store.Instance) (instance, error)
	// take opens an unrecorded process whose environment names rec's token.
	take(worker string, pid int, rec store.Instance) (instance, process.Identity, error)
	// identify returns the identity of the process that has the PID now; [process.ErrGone] if there is none.
	identify(pid int) (process.Identity, error)
	// holds reports whether the process has the instance's lease.
	holds(worker string, rec store.Instance, pid int) bool
	// left returns the state of the lease of an instance that is gone, and the remaining members of its family.
	// seen reports whether the scan found its token.
	left(
		ctx context.Context, worker string, rec store.Instance, seen bool,
	) (lease string, members []process.Holder, err error)
	// owner returns the owner of the listeners on a port, as seen from the family of an instance that is gone.
	owner(worker string, rec store.Instance, port int) (process.Ownership, error)
}

// The states of a lease.
const (
	leaseHeld    = "held"
	leaseFree    = "free"
	leaseUnknown = "unknown"
)

// recoveryContext is the common context of all workers of a recovery.
type recoveryContext struct {
	inspector inspector
	scan      func(ctx context.Context) ([]process.Holder, error)
	// kept returns how an instance ended, if a Keeper has its handle.
	kept     func(token string) (process.Exit, bool)
	masterID string
	stateDir string // device:inode
	bootID   string
	uid      int  // user of the workers
	moved    bool // the registry was made for another state directory
	now      func() time.Duration
}

// slot is one replica of a unit with the facts known so far.
type slot struct {
	id       string
	unit     Unit
	recorded bool
	rec      store.Worker
	state    state
	found    found
}

// found is the result of the scan of all processes for one worker slot.
type found struct {
	holders []process.Holder
	err     error // the scan failed: processes without a recorded PID are unknown
}

// shows reports whether a process shows the token.
func (f found) shows(token string) bool {
	return slices.ContainsFunc(f.holders, func(h process.Holder) bool { return h.Token == token })
}

// slots returns the wanted slots and the recorded ones that are no longer wanted. If asRecorded is set, all
// recorded ones are wanted.
func (rc *recoveryContext) slots(recs []store.Worker, units []Unit, asRecorded bool) []slot {
	recorded := map[string]store.Worker{}
	for _, rec := range recs {
		recorded[rec.ID] = rec
	}
	var slots []slot
	known := map[string]Unit{}
	for _, u := range units {
		known[u.Name] = u
		for i := range u.Replicas {
			id := u.workerID(i)
			rec, found := recorded[id]
			if !found {
				rec = store.Worker{ID: id, Unit: u.Name, Desired: store.DesiredRunning}
			}
			delete(recorded, id)
			slots = append(slots, rc.slot(u, rec, found))
		}
	}
	for _, rec := range recs {
		if _, left := recorded[rec.ID]; !left {
			continue
		}
		u, found := known[rec.Unit]
		if !found {
			u = Unit{Name: rec.Unit}.withDefaults()
		}
		s := rc.slot(u, rec, true)
		if !asRecorded {
			s.state.wanted, s.state.retired = false, true
		}
		slots = append(slots, s)
	}
	return slots
}

func (rc *recoveryContext) slot(u Unit, rec store.Worker, recorded bool) slot {
	s := slot{id: rec.ID, unit: u, rec: rec, recorded: recorded}
	s.state = state{
		wanted:   rec.Desired != store.DesiredStopped,
		status:   rec.Status,
		reason:   rec.Reason,
		restarts: rec.Restarts,
		history:  sinceBoot(rec.History, rc.bootID, rc.now(), u.policy()),
	}
	if s.state.status == store.StatusFailed && outdated(u, rec) {
		// It failed with the old executable or arguments; the present ones have not been tried.
		s.state.status, s.state.reason = store.StatusStopped, ""
		s.state.history = store.RestartHistory{BootID: rc.bootID}
	}
	return s
}

// outdated reports whether the executable or the arguments differ from those of the worker's last start. If they
// cannot be read, it returns false.
func outdated(u Unit, rec store.Worker) bool {
	hash, err := u.Hash()
	return err == nil && rec.SpecHash != "" && hash != rec.SpecHash
}

// ours reports whether a process's environment declares it a worker of this master and this state directory: a copy
// of the directory has its own workers.
func (rc *recoveryContext) ours(h process.Holder) bool {
	return h.MasterID == rc.masterID && h.StateDir == rc.stateDir
}

// assign gives each slot the processes that carry its ID or its token, and returns the master's processes that have
// no slot.
func (rc *recoveryContext) assign(slots []slot, holders []process.Holder, scanErr error) (strays []process.Holder) {
	byToken, byID := map[string]*slot{}, map[string]*slot{}
	for i := range slots {
		s := &slots[i]
		s.found = found{err: scanErr}
		byID[s.id] = s
		if s.rec.Instance != nil && !rc.moved {
			byToken[s.rec.Instance.Token] = s
		}
	}
	for _, h := range holders {
		s := byToken[h.Token]
		if s == nil {
			// Without a record, the master and the state directory must both match.
			if !rc.ours(h) {
				continue
			}
			if s = byID[h.WorkerID]; s == nil {
				strays = append(strays, h)
				continue
			}
		}
		s.found.holders = append(s.found.holders, h)
	}
	return strays
}
