package supervisor

import (
	"context"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// looker finds out about processes and touches none.
type looker interface {
	// attach proves that the recorded instance lives and takes hold of it.
	// [process.ErrGone] and [process.ErrUnverifiable] tell why it could not.
	attach(worker string, rec store.Instance) (instance, error)
	// take takes hold of an unrecorded process whose environment names rec's token.
	take(worker string, pid int, rec store.Instance) (instance, process.Identity, error)
	// identify tells which process has the PID now; [process.ErrGone]: none.
	identify(pid int) (process.Identity, error)
	// holds tells whether the process has the instance's lease.
	holds(worker string, rec store.Instance, pid int) bool
	// left tells whether somebody holds the lease of an instance that is gone, and
	// which processes are left of its family; seen: its token was.
	left(ctx context.Context, worker string, rec store.Instance, seen bool) (lease string, members []process.Holder, err error)
	// owner tells whose the listeners on a port are, as seen from the family of an
	// instance that is gone.
	owner(worker string, rec store.Instance, port int) (process.Ownership, error)
}

// Who holds a lease.
const (
	leaseHeld    = "held"
	leaseFree    = "free"
	leaseUnknown = "unknown"
)

// scene is what all workers of a recovery have in common.
type scene struct {
	looker looker
	scan   func(ctx context.Context) ([]process.Holder, error)
	// kept tells how an instance ended whose handle somebody has kept.
	kept     func(token string) (process.Exit, bool)
	masterID string
	stateDir string // device:inode
	bootID   string
	uid      int  // that workers run as
	moved    bool // the state directory is not the one that the registry was made for
	now      func() time.Duration
}

// slot is one replica of a unit with what is known of it so far.
type slot struct {
	id       string
	unit     Unit
	recorded bool
	rec      store.Worker
	state    state
	found    found
}

// found is what the scan of all processes says about one worker slot.
type found struct {
	holders []process.Holder
	err     error // the scan failed: nothing is known of what no PID names
}

// shows tells that a process shows the token.
func (f found) shows(token string) bool {
	return slices.ContainsFunc(f.holders, func(h process.Holder) bool { return h.Token == token })
}

// slots are the wanted ones, and the recorded ones that nobody wants any more:
// where asRecorded is set, all that are recorded are wanted.
func (sc *scene) slots(recs []store.Worker, units []Unit, asRecorded bool) []slot {
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
			slots = append(slots, sc.slot(u, rec, found))
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
		s := sc.slot(u, rec, true)
		if !asRecorded {
			s.state.wanted, s.state.retired = false, true
		}
		slots = append(slots, s)
	}
	return slots
}

func (sc *scene) slot(u Unit, rec store.Worker, recorded bool) slot {
	s := slot{id: rec.ID, unit: u, rec: rec, recorded: recorded}
	s.state = state{
		wanted:   rec.Desired != store.DesiredStopped,
		status:   rec.Status,
		reason:   rec.Reason,
		restarts: rec.Restarts,
		budget:   sinceBoot(rec.Budget, sc.bootID, sc.now(), u.Restart),
	}
	if s.state.status == store.StatusFailed && outdated(u, rec) {
		// It failed for good as it was; as it is now it has not been tried.
		s.state.status, s.state.reason = store.StatusStopped, ""
		s.state.budget = store.Budget{BootID: sc.bootID}
	}
	return s
}

// outdated tells that the executable or the arguments are others than those that
// the worker was last started with. What cannot be read is not said to differ.
func outdated(u Unit, rec store.Worker) bool {
	hash, err := u.Hash()
	return err == nil && rec.SpecHash != "" && hash != rec.SpecHash
}

// ours tells that a process says of itself that it is a worker of this master on
// this state directory: a copy of the directory has workers of its own.
func (sc *scene) ours(h process.Holder) bool {
	return h.MasterID == sc.masterID && h.StateDir == sc.stateDir
}

// assign tells each slot which processes carry its name or its token, and returns
// those that are ours and that no slot is for.
func (sc *scene) assign(slots []slot, holders []process.Holder, scanErr error) (strays []process.Holder) {
	byToken, byID := map[string]*slot{}, map[string]*slot{}
	for i := range slots {
		s := &slots[i]
		s.found = found{err: scanErr}
		byID[s.id] = s
		if s.rec.Instance != nil && !sc.moved {
			byToken[s.rec.Instance.Token] = s
		}
	}
	for _, h := range holders {
		s := byToken[h.Token]
		if s == nil {
			// No record names it: it is ours only if both agree.
			if !sc.ours(h) {
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
