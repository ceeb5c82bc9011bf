package recovery

import (
	"cmp"
	"context"
	"errors"
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

// Inspect determines the condition of the recorded instance and finds the other processes of the worker. It changes
// nothing. If a process fills the slot, Inspect returns it open, and the caller closes it.
func (rc *Context) Inspect(ctx context.Context, s *Slot) (*Facts, launcher.Instance) {
	f := &Facts{
		id: s.ID, state: s.State, policy: lifecycle.PolicyOf(s.Unit), now: rc.Now(),
		ran: s.Rec.Incarnation > 0, recorded: s.Rec.Instance != nil, after: len(s.Unit.Stop.After) > 0,
	}
	if s.Recorded {
		f.evidence.Recorded = recordedOf(s.Rec)
	}
	f.evidence.Moved = rc.Moved
	in := inspection{rc, s, f}
	f.wall = time.Now()
	f.due = in.due(f.wall)
	if s.Found.err != nil {
		in.rescan(ctx)
	}
	for _, h := range s.Found.Commands {
		f.evidence.Commands = append(f.evidence.Commands, foundOf(h))
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
	if in.hooks(ctx); inst != nil && f.standing == unknown {
		_ = inst.Close()
		inst = nil
	}
	return f, inst
}

// inspection is the state of one call of inspect.
type inspection struct {
	rc *Context
	s  *Slot
	f  *Facts
}

// rescan scans for this worker's processes again after a scan that failed.
func (in inspection) rescan(ctx context.Context) {
	holders, err := in.rc.Scan(ctx)
	one := []Slot{*in.s}
	in.rc.Assign(one, holders, err)
	in.s.Found = one[0].Found
}

// cannotTell records that the condition of the instance cannot be determined, and why.
func (in inspection) cannotTell(cause error) { in.f.standing, in.f.Cause = unknown, cause }

// recorded determines the condition of the recorded instance, and returns the instance if it is proven.
func (in inspection) recorded() launcher.Instance {
	rec := in.s.Rec.Instance
	switch {
	case rec == nil:
		in.f.standing = unrecorded
	case in.rc.Moved && !in.s.Found.Shows(rec.Token):
		// A copied state directory must not command the original's workers.
		in.f.standing = otherStateDir
	case rec.BootID != in.rc.BootID:
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
func (in inspection) attach(rec records.Instance) launcher.Instance {
	seen := &Found{PID: rec.PID}
	in.f.evidence.Found = seen
	for _, h := range in.s.Found.Holders {
		if h.PID == rec.PID && h.Token == rec.Token {
			seen.TokenSeen, seen.SessionLeader = true, h.PID == h.SID
		}
	}
	inst, err := in.rc.Inspector.Attach(in.s.ID, rec)
	switch {
	case err == nil:
		if id := inst.Identity(); id.PIDNamespace != rec.PIDNamespace {
			known := rec
			known.Process = id // the PID differs between namespaces
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
	if exit, known := in.rc.Kept(rec.Token); known {
		in.died(exit)
	}
	switch id, err := in.rc.Inspector.Identify(rec.PID); {
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
func (in inspection) opened(inst launcher.Instance) {
	id, seen := inst.Identity(), in.f.evidence.Found
	in.f.standing = lives
	seen.Inode, seen.StartTicks = id.Inode, id.StartTicks
	switch {
	case launcher.HasEnded(inst):
		// The process is not reaped yet, so its exit may be known.
		in.f.standing, seen.State = dead, FoundEnded
		in.f.exitReason = fmt.Sprintf("process %d ended while no master ran", id.PID)
		in.died(inst.Exit())
	case inst.Suspended():
		seen.State = FoundSuspended
		in.f.silent = launcher.SuspendedReason(id.PID)
	default:
		seen.State = FoundAlive
	}
}

// died records how the instance ended.
func (in inspection) died(exit identity.Exit) {
	if exit.Source == identity.ExitUnknown {
		return
	}
	how := exit.String()
	in.f.exitReason += ", " + how
	in.f.evidence.Found.Exit = how
	in.f.clean = in.s.Unit.Restart.Succeeded(exit)
}

// starting looks for the process of a start that was cut off by a crash between the fork and the record of the PID.
func (in inspection) starting(rec records.Instance) launcher.Instance {
	if err := in.s.Found.err; err != nil {
		in.cannotTell(fmt.Errorf("look for the process of a start that was cut off: %w", err))
		return nil
	}
	in.f.standing, in.f.evidence.Found = cutOff, &Found{State: FoundNothing}
	leader := in.leader(rec.Token)
	if leader == nil {
		return nil
	}
	inst, err := in.attachFound(*leader, rec)
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
func (in inspection) adoptable() launcher.Instance {
	if err := in.s.Found.err; err != nil {
		// There may be such a process, and beside it no other may be started.
		in.cannotTell(fmt.Errorf("look for processes of the worker: %w", err))
		return nil
	}
	recorded := in.recordedToken()
	for _, h := range in.s.Found.Holders {
		leader := in.leader(h.Token)
		if h.Token == recorded || leader == nil {
			continue
		}
		rec := records.Instance{
			Token: h.Token, Process: identity.Process{BootID: in.rc.BootID},
			Port: h.Port, Started: time.Now(), UID: h.UID,
			OwnPort: in.s.Unit.Port == unit.AnnouncedPort && h.Port == 0,
		}
		inst, err := in.attachFound(*leader, rec)
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
func (in inspection) newer(dead launcher.Instance) launcher.Instance {
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
	if in.s.Rec.Instance == nil {
		return ""
	}
	return in.s.Rec.Instance.Token
}

// leader returns the worker process among the holders of the token: the oldest that leads its own session, as every
// worker does when started, and runs as a user that the master may have started it as. A process that has changed its
// user must have kept its lease.
func (in inspection) leader(token string) *process.Holder {
	var candidates, others []process.Holder
	for _, h := range in.s.Found.Holders {
		switch {
		case h.Token != token || h.PID != h.PGID || h.PID != h.SID:
		case in.startedAs(h.UID, token):
			candidates = append(candidates, h)
		default:
			others = append(others, h)
		}
	}
	if len(candidates) == 0 && token == in.recordedToken() && token != "" {
		candidates = slices.DeleteFunc(others, func(h process.Holder) bool {
			return !in.rc.Inspector.Holds(in.s.ID, *in.s.Rec.Instance, h.PID)
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

// startedAs reports whether the master may have started a process with the token as the user: its own one, that of the
// record, or that of the unit. A process of any other user may carry variables that it has made up.
func (in inspection) startedAs(uid uint32, token string) bool {
	if int(uid) == in.rc.UID {
		return true
	}
	if rec := in.s.Rec.Instance; rec != nil && token == rec.Token && uid == rec.UID {
		return true
	}
	rights, err := in.s.Unit.Attributes.Resolve()
	return err == nil && in.s.Unit.Attributes.User != "" && uid == rights.Account.UID
}

// attachFound opens the process, proves by its environment that it is still the one that the scan saw, and makes it
// this slot's instance.
func (in inspection) attachFound(h process.Holder, rec records.Instance) (launcher.Instance, error) {
	inst, id, err := in.rc.Inspector.AttachFound(in.s.ID, h.PID, rec)
	if err == nil && launcher.HasEnded(inst) {
		err = errors.Join(process.ErrGone, inst.Close())
	}
	if err != nil {
		return nil, err
	}
	in.f.evidence.Found = &Found{PID: h.PID, TokenSeen: true, SessionLeader: true}
	rec.Process = id
	in.f.instance = &rec
	return inst, nil
}

// family looks for remaining descendants of an instance that is gone.
func (in inspection) family(ctx context.Context) {
	rec := *in.s.Rec.Instance
	lease, members, err := in.rc.Inspector.Left(ctx, in.s.ID, rec, in.s.Found.Shows(rec.Token))
	in.f.evidence.Lease = lease
	for _, h := range members {
		in.f.evidence.Left = append(in.f.evidence.Left, foundOf(h))
	}
	switch {
	case err != nil:
		in.cannotTell(fmt.Errorf("look for what is left of process %d: %w", rec.PID, err))
	case lease == launcher.LeaseHeld && len(members) == 0:
		in.cannotTell(process.ErrLeaseHeld)
	}
}

// others collects the processes of this slot that belong to neither the kept instance nor the recorded one.
func (in inspection) others() {
	kept, recorded := "", in.recordedToken()
	if in.f.instance != nil {
		kept = in.f.instance.Token
	}
	for _, h := range in.s.Found.Holders {
		if h.Token != kept && h.Token != recorded {
			in.f.evidence.Others = append(in.f.evidence.Others, foundOf(h))
		}
	}
}

// port determines the owner of the listeners on the worker's port, or on the port that it would get.
func (in inspection) port(inst launcher.Instance) {
	port, rec := in.s.Rec.Port, records.Instance{}
	if in.s.Rec.Instance != nil {
		rec = *in.s.Rec.Instance
		port = rec.Port
	}
	if in.f.instance != nil {
		port = in.f.instance.Port
	}
	if port == 0 {
		in.f.ownsPort = true
		return
	}
	ask := func() (process.Ownership, error) { return in.rc.Inspector.Owner(in.s.ID, rec, port) }
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
		in.f.silent = launcher.ForeignPort(port).Error()
	case process.PortFree:
		if in.s.Unit.Listens() {
			in.f.silent = fmt.Sprintf("nobody listens on port %d", port)
		}
	case process.PortOurs:
		in.f.ownsPort = true
	case process.PortUnknown:
	}
}
