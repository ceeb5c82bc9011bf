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

// inspect finds out what became of the recorded instance, and what else there is of
// the worker. It changes nothing; the process that fills the slot, if any, is held
// open for the caller.
func (sc *scene) inspect(ctx context.Context, s *slot) (facts, instance) {
	f := facts{id: s.id, state: s.state, policy: s.unit.Restart, now: sc.now(), ran: s.rec.Incarnation > 0}
	if s.recorded {
		f.evidence.Recorded = recordedOf(s.rec)
	}
	f.evidence.Moved = sc.moved
	in := inspection{sc, s, &f}
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

// inspection is one inspect under way.
type inspection struct {
	sc *scene
	s  *slot
	f  *facts
}

// rescan looks for this worker's processes again, after a scan that failed.
func (in inspection) rescan(ctx context.Context) {
	holders, err := in.sc.scan(ctx)
	one := []slot{*in.s}
	in.sc.assign(one, holders, err)
	in.s.found = one[0].found
}

// cannotTell makes it known that nothing can be told, and why.
func (in inspection) cannotTell(cause error) { in.f.standing, in.f.cause = unknown, cause }

// recorded finds out what became of the recorded instance, and returns it where it
// is proven.
func (in inspection) recorded() instance {
	rec := in.s.rec.Instance
	switch {
	case rec == nil:
		in.f.standing = unrecorded
	case in.sc.moved && !in.s.found.shows(rec.Token):
		// A copied state directory must not command the original's workers.
		in.f.standing = abroad
	case rec.BootID != in.sc.bootID:
		in.f.standing, in.f.evidence.OtherBoot = bygone, true
	case rec.PID == 0:
		return in.starting(*rec)
	default:
		return in.attach(*rec)
	}
	return nil
}

// attach tells whether the process with the recorded PID is the recorded one.
func (in inspection) attach(rec store.Instance) instance {
	seen := &Found{PID: rec.PID}
	in.f.evidence.Found = seen
	for _, h := range in.s.found.holders {
		if h.PID == rec.PID && h.Token == rec.Token {
			seen.TokenSeen, seen.SessionLeader = true, h.PID == h.SID
		}
	}
	inst, err := in.sc.looker.attach(in.s.id, rec)
	switch {
	case err == nil:
		if id := inst.Identity(); id.PIDNamespace != rec.PIDNamespace {
			known := identified(rec, id) // in another namespace it has another number
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
	in.f.fate = fmt.Sprintf("process %d ended while no master ran", rec.PID)
	if exit, known := in.sc.kept(rec.Token); known {
		in.died(exit)
	}
	switch id, err := in.sc.looker.identify(rec.PID); {
	case err != nil, id.PIDNamespace != rec.PIDNamespace: // nobody's, or of another count
	case id.StartTicks == rec.StartTicks && id.Inode == rec.Inode:
		seen.State = FoundEnded // nothing but its end can be told of it any more
	default:
		seen.State, seen.Inode, seen.StartTicks = FoundReused, id.Inode, id.StartTicks
		in.f.fate += ", its pid is another process's now"
	}
	return nil
}

// opened notes what the process is like that was proven.
func (in inspection) opened(inst instance) {
	id, seen := inst.Identity(), in.f.evidence.Found
	in.f.standing = lives
	seen.Inode, seen.StartTicks = id.Inode, id.StartTicks
	switch {
	case hasEnded(inst):
		// Nobody has reaped it yet, so that even how it ended can be known.
		in.f.standing, seen.State = dead, FoundEnded
		in.f.fate = fmt.Sprintf("process %d ended while no master ran", id.PID)
		in.died(inst.Exit())
	case inst.Suspended():
		seen.State = FoundSuspended
		in.f.silent = suspendedReason(id.PID)
	default:
		seen.State = FoundAlive
	}
}

// died notes how the instance ended.
func (in inspection) died(exit process.Exit) {
	if exit.Source == process.ExitUnknown {
		return
	}
	how := describeExit(exit)
	in.f.fate += ", " + how
	in.f.evidence.Found.Exit = how
	in.f.clean = cleanExit(exitRecord(exit))
}

// starting looks for the process of a start that a crash cut off between the fork
// and the record of the PID.
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

// adoptable returns the process that no record names, but that says of itself that
// it fills this slot.
func (in inspection) adoptable() instance {
	if err := in.s.found.err; err != nil {
		// Whether there is one is not known, and beside one nothing may be started.
		in.cannotTell(fmt.Errorf("look for processes of the worker: %w", err))
		return nil
	}
	recorded := in.recordedToken()
	for _, h := range in.s.found.holders {
		leader := in.leader(h.Token)
		if h.Token == recorded || leader == nil {
			continue
		}
		rec := store.Instance{Token: h.Token, BootID: in.sc.bootID, Port: h.Port, Started: time.Now(), UID: h.UID}
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

// newer returns the process that fills the slot of an instance that is dead and not
// reaped, as beside a backup that is older than both; where there is none, the dead
// one, of which even the exit can be known.
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

// leader returns the instance among the holders of the token: the oldest that
// leads its own session, as every worker is started, and runs as our user. One that
// has become another user must have kept its lease.
func (in inspection) leader(token string) *process.Holder {
	var candidates, others []process.Holder
	for _, h := range in.s.found.holders {
		switch {
		case h.Token != token || h.PID != h.PGID || h.PID != h.SID:
		case int(h.UID) == in.sc.uid:
			candidates = append(candidates, h)
		default:
			others = append(others, h)
		}
	}
	if len(candidates) == 0 && token == in.recordedToken() && token != "" {
		candidates = slices.DeleteFunc(others, func(h process.Holder) bool {
			return !in.sc.looker.holds(in.s.id, *in.s.rec.Instance, h.PID)
		})
	}
	if len(candidates) == 0 {
		return nil
	}
	oldest := slices.MinFunc(candidates, func(a, b process.Holder) int { return cmp.Compare(a.StartTicks, b.StartTicks) })
	return &oldest
}

// take opens the process, proves by its environment that it still is the one that
// the scan saw, and makes it this slot's instance.
func (in inspection) take(h process.Holder, rec store.Instance) (instance, error) {
	inst, identity, err := in.sc.looker.take(in.s.id, h.PID, rec)
	if err == nil && hasEnded(inst) {
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

// family looks for what is left of the family of an instance that is gone.
func (in inspection) family(ctx context.Context) {
	rec := *in.s.rec.Instance
	lease, members, err := in.sc.looker.left(ctx, in.s.id, rec, in.s.found.shows(rec.Token))
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

// others are the processes of this slot that belong to neither the instance that is
// kept nor the recorded one.
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

// port finds out who listens where the worker does, or would.
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
	ask := func() (process.Ownership, error) { return in.sc.looker.owner(in.s.id, rec, port) }
	if in.f.living() {
		ask = func() (process.Ownership, error) { return inst.OwnsPort(port) }
	}
	owner, err := ask()
	if err != nil {
		owner = process.PortUnknown // the Ping that follows decides, or the next start's choice
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
