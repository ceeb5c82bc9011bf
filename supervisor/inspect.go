package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// inspect determines the condition of the recorded instance and finds the other processes of the worker. It changes
// nothing. If a process fills the slot, inspect returns it open, and the caller closes it.
func (rc *recoveryContext) inspect(ctx context.Context, s *slot) (facts, instance) {
	f := facts{
		id: s.id, state: s.state, policy: s.unit.policy(), now: rc.now(),
		ran: s.rec.Incarnation > 0, recorded: s.rec.Instance != nil,
	}
	if s.recorded {
		f.evidence.Recorded = recordedOf(s.rec)
	}
	f.evidence.Moved = rc.moved
	in := inspection{rc, s, &f}
	if s.found.err != nil {
		in.rescan(ctx)
	}
	inst := in.recorded()
	if f.standing == dead {
		inst = in.newer(inst)
	}
	if f.standing == gone || f.standing == cutOff {
		in.family(ctx)
	}
	if inst == nil && f.standing != unknown {
		inst = in.adoptable()
	}
	if f.standing != unknown {
		in.others()
		in.port(inst)
	}
	return f, inst
}

// inspection is the state of one call of inspect.
type inspection struct {
	rc *recoveryContext
	s  *slot
	f  *facts
}

// rescan scans for this worker's processes again after a scan that failed.
func (in inspection) rescan(ctx context.Context) {
	holders, err := in.rc.scan(ctx)
	one := []slot{*in.s}
	in.rc.assign(one, holders, err)
	in.s.found = one[0].found
}

// cannotTell records that the condition of the instance cannot be determined, and why.
func (in inspection) cannotTell(cause error) { in.f.standing, in.f.cause = unknown, cause }

// recorded determines the condition of the recorded instance, and returns the instance if it is proven.
func (in inspection) recorded() instance {
	rec := in.s.rec.Instance
	switch {
	case rec == nil:
		in.f.standing = unrecorded
	case in.rc.moved && !in.s.found.shows(rec.Token):
		// A copied state directory must not command the original's workers.
		in.f.standing = otherStateDir
	case rec.BootID != in.rc.bootID:
		in.f.standing, in.f.evidence.OtherBoot = otherBoot, true
	case rec.PID == 0:
		return in.starting(*rec)
	default:
		return in.attach(*rec)
	}
	return nil
}

// attach opens the process with the recorded PID if it is proven to be the recorded one, and otherwise records why
// not.
func (in inspection) attach(rec store.Instance) instance {
	seen := &Found{PID: rec.PID}
	in.f.evidence.Found = seen
	for _, h := range in.s.found.holders {
		if h.PID == rec.PID && h.Token == rec.Token {
			seen.TokenSeen, seen.SessionLeader = true, h.PID == h.SID
		}
	}
	inst, err := in.rc.inspector.attach(in.s.id, rec)
	switch {
	case err == nil:
		if id := inst.Identity(); id.PIDNamespace != rec.PIDNamespace {
			known := identified(rec, id) // the PID differs between namespaces
			in.f.instance, seen.PID = &known, known.PID
		}
		in.opened(inst)
		return inst
	case !errors.Is(err, process.ErrGone):
		seen.State = FoundUnverifiable
		in.cannotTell(err)
		return nil
	}
	in.f.standing, seen.State = gone, FoundGone
	in.f.exitReason = fmt.Sprintf("process %d ended while no master ran", rec.PID)
	if exit, known := in.rc.kept(rec.Token); known {
		in.died(exit)
	}
	switch id, err := in.rc.inspector.identify(rec.PID); {
	case err != nil, id.PIDNamespace != rec.PIDNamespace: // the PID is free, or from another namespace
	case id.StartTicks == rec.StartTicks && id.Inode == rec.Inode:
		seen.State = FoundEnded // only its end is still known
	default:
		seen.State, seen.Inode, seen.StartTicks = FoundReused, id.Inode, id.StartTicks
		in.f.exitReason += ", its pid is another process's now"
	}
	return nil
}

// opened records the state of the proven process.
func (in inspection) opened(inst instance) {
	id, seen := inst.Identity(), in.f.evidence.Found
	in.f.standing = lives
	seen.Inode, seen.StartTicks = id.Inode, id.StartTicks
	switch {
	case closed(inst.Done()):
		// The process is not reaped yet, so its exit may be known.
		in.f.standing, seen.State = dead, FoundEnded
		in.f.exitReason = fmt.Sprintf("process %d ended while no master ran", id.PID)
		in.died(inst.Exit())
	case inst.Suspended():
		seen.State = FoundSuspended
		in.f.silent = suspendedReason(id.PID)
	default:
		seen.State = FoundAlive
	}
}

// died records how the instance ended.
func (in inspection) died(exit process.Exit) {
	if exit.Source == process.ExitUnknown {
		return
	}
	how := describeExit(exit)
	in.f.exitReason += ", " + how
	in.f.evidence.Found.Exit = how
	in.f.clean = cleanExit(exitRecord(exit))
}

// starting looks for the process of a start that was cut off by a crash between the fork and the record of the PID.
func (in inspection) starting(rec store.Instance) instance {
	if err := in.s.found.err; err != nil {
		in.cannotTell(fmt.Errorf("look for the process of a start that was cut off: %w", err))
		return nil
	}
	in.f.standing, in.f.evidence.Found = cutOff, &Found{State: FoundNothing}
	leader := in.leader(rec.Token)
	if leader == nil {
		return nil
	}
	inst, err := in.take(*leader, rec)
	switch {
	case errors.Is(err, process.ErrGone):
		return nil
	case err != nil:
		in.cannotTell(err)
		return nil
	}
	in.opened(inst)
	return inst
}

// adoptable returns a process without a record whose environment claims this slot.
func (in inspection) adoptable() instance {
	if err := in.s.found.err; err != nil {
		// There may be such a process, and beside it no other may be started.
		in.cannotTell(fmt.Errorf("look for processes of the worker: %w", err))
		return nil
	}
	recorded := in.recordedToken()
	for _, h := range in.s.found.holders {
		leader := in.leader(h.Token)
		if h.Token == recorded || leader == nil {
			continue
		}
		rec := store.Instance{Token: h.Token, BootID: in.rc.bootID, Port: h.Port, Started: time.Now(), UID: h.UID}
		inst, err := in.take(*leader, rec)
		switch {
		case errors.Is(err, process.ErrGone):
			continue
		case err != nil:
			in.cannotTell(err)
			return nil
		}
		in.opened(inst)
		in.f.stray = true
		return inst
	}
	return nil
}

// newer is called if the recorded instance is dead and not reaped. It returns another process that fills the slot, as
// there may be after a restore from a backup older than both. If there is none, it returns the dead instance, whose
// exit may be known.
func (in inspection) newer(dead instance) instance {
	before := *in.f
	found := in.adoptable()
	if found == nil && in.f.standing != unknown {
		*in.f = before
		return dead
	}
	_ = dead.Close()
	return found
}

func (in inspection) recordedToken() string {
	if in.s.rec.Instance == nil {
		return ""
	}
	return in.s.rec.Instance.Token
}

// leader returns the worker process among the holders of the token: the oldest that leads its own session, as every
// worker does when started, and runs as the master's user. A process that has changed its user must have kept its
// lease.
func (in inspection) leader(token string) *process.Holder {
	var candidates, others []process.Holder
	for _, h := range in.s.found.holders {
		switch {
		case h.Token != token || h.PID != h.PGID || h.PID != h.SID:
		case int(h.UID) == in.rc.uid:
			candidates = append(candidates, h)
		default:
			others = append(others, h)
		}
	}
	if len(candidates) == 0 && token == in.recordedToken() && token != "" {
		candidates = slices.DeleteFunc(others, func(h process.Holder) bool {
			return !in.rc.inspector.holds(in.s.id, *in.s.rec.Instance, h.PID)
		})
	}
	if len(candidates) == 0 {
		return nil
	}
	oldest := slices.MinFunc(candidates, func(a, b process.Holder) int {
		return cmp.Compare(a.StartTicks, b.StartTicks)
	})
	return &oldest
}

// take opens the process, proves by its environment that it is still the one that the scan saw, and makes it this
// slot's instance.
func (in inspection) take(h process.Holder, rec store.Instance) (instance, error) {
	inst, identity, err := in.rc.inspector.take(in.s.id, h.PID, rec)
	if err == nil && closed(inst.Done()) {
		err = errors.Join(process.ErrGone, inst.Close())
	}
	if err != nil {
		return nil, err
	}
	in.f.evidence.Found = &Found{PID: h.PID, TokenSeen: true, SessionLeader: true}
	rec = identified(rec, identity)
	in.f.instance = &rec
	return inst, nil
}

// family looks for remaining descendants of an instance that is gone.
func (in inspection) family(ctx context.Context) {
	rec := *in.s.rec.Instance
	lease, members, err := in.rc.inspector.left(ctx, in.s.id, rec, in.s.found.shows(rec.Token))
	in.f.evidence.Lease = lease
	for _, h := range members {
		in.f.evidence.Left = append(in.f.evidence.Left, foundOf(h))
	}
	switch {
	case err != nil:
		in.cannotTell(fmt.Errorf("look for what is left of process %d: %w", rec.PID, err))
	case lease == leaseHeld && len(members) == 0:
		in.cannotTell(process.ErrLeaseHeld)
	}
}

// others collects the processes of this slot that belong to neither the kept instance nor the recorded one.
func (in inspection) others() {
	kept, recorded := "", in.recordedToken()
	if in.f.instance != nil {
		kept = in.f.instance.Token
	}
	for _, h := range in.s.found.holders {
		if h.Token != kept && h.Token != recorded {
			in.f.evidence.Others = append(in.f.evidence.Others, foundOf(h))
		}
	}
}

// port determines the owner of the listeners on the worker's port, or on the port that it would get.
func (in inspection) port(inst instance) {
	port, rec := in.s.rec.Port, store.Instance{}
	if in.s.rec.Instance != nil {
		rec = *in.s.rec.Instance
		port = rec.Port
	}
	if in.f.instance != nil {
		port = in.f.instance.Port
	}
	if port == 0 {
		return
	}
	ask := func() (process.Ownership, error) { return in.rc.inspector.owner(in.s.id, rec, port) }
	if in.f.living() {
		ask = func() (process.Ownership, error) { return inst.OwnsPort(port) }
	}
	owner, err := ask()
	if err != nil {
		owner = process.PortUnknown // the following Ping, or the port choice of the next start, decides
	}
	in.f.evidence.Port = &PortOwner{Port: port, Owner: owner.String()}
	if !in.f.living() || in.f.silent != "" {
		return
	}
	switch owner {
	case process.PortForeign:
		in.f.silent = foreignPort(port).Error()
	case process.PortFree:
		in.f.silent = fmt.Sprintf("nobody listens on port %d", port)
	case process.PortOurs, process.PortUnknown:
	}
}
