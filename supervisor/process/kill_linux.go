package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

const (
	quietPeriod  = 100 * time.Millisecond // the family is gone if no member is seen for this long
	quietPasses  = 3                      // passes in that time
	hidingTime   = 300 * time.Millisecond // to find a holder of the lease, before ErrLeaseHeld is returned
	hidingPasses = 20                     // passes in that time at least: on a busy machine a pass takes long
	dyingTime    = 50 * time.Millisecond  // for killed processes to disappear from /proc
	chaseRounds  = 16                     // rounds of stopping new members before the kill
)

// Kill kills every member, including the instance itself. It opens and proves each member, stops it so that it
// cannot fork, and kills it through its pidfd. It makes passes until it has seen no member for 100 ms. If the
// first pass sees no member and the lease is not held, Kill returns at once. It never kills this process and its
// ancestors.
//
// When ctx ends, Kill still kills the members that it has found. It returns the members that are left: processes
// that may not be signalled, or that do not die (state D); err is the reason. ErrLeaseHeld means that a holder of
// the lease cannot be found: start no replacement, and report it.
func (f Family) Kill(ctx context.Context) (left []Holder, err error) {
	if gone, err := f.gone(ctx); err != nil {
		return nil, fmt.Errorf("kill a family: %w", err)
	} else if gone {
		return nil, nil
	}
	s := &sweep{family: f, ourselves: ourselves(), prey: make(map[int]*prey)}
	defer s.close()
	if left, err = s.run(ctx); err != nil {
		return left, fmt.Errorf("kill a family: %w", err)
	}
	return nil, nil
}

// gone reports whether the family has no member. In most cases the cheap evidence is enough.
func (f Family) gone(ctx context.Context) (bool, error) {
	if (f.Main == nil || !f.Main.alive()) && !f.leaseMayBeHeld() &&
		(f.Cgroup == "" || len(cgroup.Members(f.Cgroup)) == 0) {
		if c, err := sighted.Answer(ctx); err != nil || f.Token == "" || !c.names(f.Token) {
			return err == nil, err
		}
	}
	c, err := shared.Answer(ctx)
	return err == nil && len(f.find(c, f.leaseMayBeHeld())) == 0 && !f.leaseHeld(), err
}

// Terminate sends SIGTERM and then SIGCONT to the members outside of the leader's process group; SignalGroup
// reaches those inside. It opens and proves each member first. It does not wait for them to end, and never signals
// this process and its ancestors.
func (f Family) Terminate(ctx context.Context) error {
	c, err := shared.Answer(ctx)
	if err != nil {
		return fmt.Errorf("ask a family to end: %w", err)
	}
	s := &sweep{family: f, gentle: true, ourselves: ourselves(), prey: make(map[int]*prey)}
	defer s.close()
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		s.add(member, Holder{PID: member.pid})
	}
	for pid, p := range s.prey {
		if stat, err := procfs.ReadStat(pid); err == nil && stat.PGID == f.Leader && f.Leader != 0 {
			continue
		}
		s.signal(p, unix.SIGTERM)
		s.signal(p, unix.SIGCONT)
	}
	return nil
}

// leaseHeld reports whether the lease is certainly held.
func (f Family) leaseHeld() bool {
	if f.LeasePath == "" || f.Lease == (identity.FileID{}) {
		return false
	}
	held, err := LeaseHeld(f.LeasePath, f.Lease)
	return held && err == nil
}

// sweep is the state of one Kill or Terminate.
type sweep struct {
	family    Family
	gentle    bool // members are not stopped
	ourselves map[int]bool
	prey      map[int]*prey // opened and proven members, until they are dead
}

type prey struct {
	*Process
	holder  Holder
	refused error // why it could not be signalled; nil if it was
}

func (s *sweep) close() {
	for _, p := range s.prey {
		_ = p.Close()
	}
}

// run makes passes until the family has been quiet for long enough, or ctx ends.
func (s *sweep) run(ctx context.Context) ([]Holder, error) {
	var quiet quietness
	seen := true // by Kill
	for {
		found, err := s.pass(ctx, seen)
		if err != nil {
			return s.left(), err
		}
		// While the lease is held, a member exists that is too fast to be found: a chain of processes that fork and
		// exit.
		held := s.family.leaseHeld()
		wait, enough := quiet.note(found > 0 || s.running() > 0, held, time.Now())
		if enough {
			return s.verdict(ctx, held)
		}
		if err := pause(ctx, wait); err != nil {
			return s.left(), err
		}
		if seen, err = s.look(ctx, held); err != nil {
			return s.left(), err
		}
	}
}

// pass kills the members if any were seen, and drops the dead. It returns how many members were new.
//
// On a busy machine a process killed by an earlier pass may die only now, even if no member is seen any more.
func (s *sweep) pass(ctx context.Context, seen bool) (found int, err error) {
	if seen {
		if found, err = s.chase(ctx); err != nil {
			return found, err
		}
	}
	s.await()
	return found, nil
}

// quietness counts the consecutive passes that have seen no member.
type quietness struct {
	passes int
	since  time.Time
}

// note records a pass. It returns how long to wait before the next one, or true for enough if this pass was the
// last.
func (q *quietness) note(busy, held bool, now time.Time) (wait time.Duration, enough bool) {
	switch {
	case busy:
		q.passes = 0
		return 2 * time.Millisecond, false
	case q.passes == 0:
		q.since = now
	}
	q.passes++
	if held {
		return time.Millisecond, q.passes >= hidingPasses && now.Sub(q.since) >= hidingTime
	}
	return quietPeriod / (quietPasses - 1), q.passes >= quietPasses && now.Sub(q.since) >= quietPeriod
}

// verdict returns the result of a sweep that sees no more members.
func (s *sweep) verdict(ctx context.Context, held bool) ([]Holder, error) {
	left := s.left()
	var errs []error
	for _, p := range s.prey {
		errs = append(errs, p.refused)
	}
	if len(left) == 0 && held {
		errs = append(errs, s.holder(ctx))
	}
	return left, errors.Join(errs...)
}

// holder returns why the lease is held.
func (s *sweep) holder(ctx context.Context) error {
	c, err := shared.Answer(ctx)
	if err != nil {
		return errors.Join(ErrLeaseHeld, err)
	}
	if err := s.family.stranger(c); err != nil {
		return err
	}
	return ErrLeaseHeld
}

// look makes a pass shared with all concurrent callers (there may be a hundred families), and reports whether
// there are members to chase. If the lease is held, a chase is needed even without a pass.
func (s *sweep) look(ctx context.Context, held bool) (seen bool, err error) {
	if held {
		return true, nil
	}
	c, err := shared.Answer(ctx)
	if err != nil {
		return false, err
	}
	return len(s.family.find(c, s.family.leaseMayBeHeld())) > 0, nil
}

// chase stops every member that it sees, repeats this until it sees no new one, and then kills all. A stopped
// member cannot fork, and keeps alive the evidence of its children's descent. chase returns how many members were
// new.
func (s *sweep) chase(ctx context.Context) (found int, err error) {
	s.killCgroup()
	for range chaseRounds {
		before := found
		var c *census
		c, err = takeCensus(ctx, func(h Holder) {
			// Do this at once: a chain of processes that fork and exit is gone at the end of the pass.
			if h.Token == s.family.Token && s.add(candidate{pid: h.PID, why: byToken}, h) {
				found++
			}
		})
		if err != nil {
			break
		}
		for _, member := range s.family.find(c, s.family.leaseMayBeHeld()) {
			if s.add(member, Holder{PID: member.pid}) {
				found++
			}
		}
		if found == before {
			break
		}
	}
	for _, p := range s.prey {
		s.signal(p, unix.SIGKILL)
	}
	return found, err
}

// add opens a process, proves that it is a member and, unless the sweep is gentle, stops it. It reports whether
// the member is new.
func (s *sweep) add(member candidate, h Holder) bool {
	if s.ourselves[member.pid] {
		return false
	}
	old := s.prey[member.pid]
	if old != nil && old.same() {
		return false
	}
	fd, err := openPidfd(member.pid)
	if err != nil {
		return false
	}
	// This watch does not reap: if the process is a child of this one, its own handle reaps it.
	process, err := watch(fd, identity.Process{PID: member.pid}, ignore)
	if err != nil {
		return false
	}
	p := &prey{Process: process, holder: h}
	if !p.alive() || !s.proven(member, p) {
		_ = p.Close()
		return false
	}
	if !s.gentle {
		s.signal(p, unix.SIGSTOP)
	}
	if old != nil {
		_ = old.Close()
	}
	s.prey[member.pid] = p
	return true
}

// proven checks the evidence again while p holds the process open, so that the values read by its PID belong to
// this process.
func (s *sweep) proven(member candidate, p *prey) bool {
	switch member.why {
	case byMain:
		return s.family.Main.same()
	case byToken:
		return p.Verify(s.family.Token) == nil
	case byLease:
		buf := procfs.GetBuffer()
		defer procfs.PutBuffer(buf)
		return memberByLease(member.pid, s.family, buf) && p.same()
	case byCgroup:
		return slices.Contains(cgroup.Members(s.family.Cgroup), member.pid) && p.same()
	case byDescent:
		// The parent has been held open since before the child's parent PID was read, so that PID is still the
		// parent's.
		parent := s.prey[member.parent]
		stat, err := procfs.ReadStat(member.pid)
		return parent != nil && err == nil && stat.PPID == member.parent && parent.same() && p.same()
	}
	return false
}

func (s *sweep) signal(p *prey, sig syscall.Signal) {
	switch err := p.Signal(sig); {
	case errors.Is(err, unix.EPERM):
		p.refused = err
	case err == nil:
		p.refused = nil
	}
}

// killCgroup kills the whole cgroup in one operation, so that no fork escapes (Linux 5.14). On older kernels its
// members are found and killed like the others.
func (s *sweep) killCgroup() {
	if s.family.Cgroup == "" || kernel.Withheld.CgroupKill.Load() {
		return
	}
	for _, pid := range cgroup.Members(s.family.Cgroup) {
		if s.ourselves[pid] {
			return // a wrong folder: it is not the cgroup of the instance
		}
	}
	_ = cgroup.Kill(s.family.Cgroup)
}

// await waits up to dyingTime for the killed processes to die, even after ctx has ended, and drops the dead.
func (s *sweep) await() {
	patience := time.NewTimer(dyingTime)
	defer patience.Stop()
	late := false
	for pid, p := range s.prey {
		if !late && p.refused == nil {
			select {
			case <-p.Done():
			case <-patience.C:
				late = true
			}
		}
		if !p.alive() {
			_ = p.Close()
			delete(s.prey, pid)
		}
	}
}

// running returns how many members were signalled and are not dead yet.
func (s *sweep) running() (n int) {
	for _, p := range s.prey {
		if p.refused == nil {
			n++
		}
	}
	return n
}

func (s *sweep) left() []Holder {
	var left []Holder
	for _, p := range s.prey {
		if h, ok := completeHolder(p.holder); ok && p.alive() {
			left = append(left, h)
		}
	}
	sortHolders(left)
	return left
}
