package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

const (
	quietPeriod = 100 * time.Millisecond // without a member seen, and the family is gone
	quietPasses = 3                      // in that time
	hidingTime  = 300 * time.Millisecond // for a holder of the lease to be found, before it is reported
	dyingTime   = 50 * time.Millisecond  // for killed processes to be gone from /proc
	chaseRounds = 16                     // of stopping what forks, before the kill
)

// Kill kills every member, the instance itself included: each is opened, proven,
// stopped so that it forks no more, and killed through its pidfd, in passes until
// none is seen over 100 ms. Where the first pass sees none and nobody holds the
// lease, it returns at once. This process and its ancestors are spared.
//
// ctx bounds it; whoever is found by then is killed nevertheless. It returns who is
// left: processes that we may not signal, or that do not die (state D); err tells
// why. ErrLeaseHeld means that somebody cannot be found: hold, and report.
func (f Family) Kill(ctx context.Context) (left []Holder, err error) {
	c, err := shared.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("kill a family: %w", err)
	}
	if len(f.find(c, f.leaseMayBeHeld())) == 0 && !f.leaseHeld() {
		return nil, nil
	}
	s := &sweep{family: f, ourselves: ourselves(), prey: make(map[int]*prey)}
	defer s.close()
	if left, err = s.run(ctx); err != nil {
		return left, fmt.Errorf("kill a family: %w", err)
	}
	return nil, nil
}

// Terminate asks the members to end, by SIGTERM and then SIGCONT, that are not in the
// leader's process group, which SignalGroup reaches. Each is opened and proven before;
// nobody is waited for, and this process and its ancestors are spared.
func (f Family) Terminate(ctx context.Context) error {
	c, err := shared.take(ctx)
	if err != nil {
		return fmt.Errorf("ask a family to end: %w", err)
	}
	s := &sweep{family: f, gentle: true, ourselves: ourselves(), prey: make(map[int]*prey)}
	defer s.close()
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		s.hold(member, Holder{PID: member.pid})
	}
	for pid, p := range s.prey {
		if stat, err := readStat(pid); err == nil && stat.PGID == f.Leader && f.Leader != 0 {
			continue
		}
		s.signal(p, unix.SIGTERM)
		s.signal(p, unix.SIGCONT)
	}
	return nil
}

// leaseHeld says whether the lease is certainly held.
func (f Family) leaseHeld() bool {
	if f.LeasePath == "" || f.Lease == (FileID{}) {
		return false
	}
	held, err := LeaseHeld(f.LeasePath, f.Lease)
	return held && err == nil
}

// sweep is one Kill under way.
type sweep struct {
	family    Family
	gentle    bool // nobody is stopped
	ourselves map[int]bool
	prey      map[int]*prey // opened and proven members, until they are dead
}

type prey struct {
	*Process
	holder  Holder
	refused error // why it could not be signalled
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
		found := 0
		if seen {
			var err error
			if found, err = s.chase(ctx); err != nil {
				return s.left(), err
			}
			s.await()
		}
		// As long as the lease is held somebody is there, who is too fast for us: a chain
		// of processes that fork and exit.
		held := s.family.leaseHeld()
		wait, enough := quiet.note(found > 0 || s.running() > 0, held, time.Now())
		if enough {
			return s.verdict(held)
		}
		if err := pause(ctx, wait); err != nil {
			return s.left(), err
		}
		var err error
		if seen, err = s.look(ctx, held); err != nil {
			return s.left(), err
		}
	}
}

// quietness counts the passes in a row that have seen nobody.
type quietness struct {
	passes int
	since  time.Time
}

// note takes a pass into account: enough says that it was the last, and wait how
// long to pause before the next.
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
		return time.Millisecond, now.Sub(q.since) >= hidingTime
	}
	return quietPeriod / (quietPasses - 1), q.passes >= quietPasses && now.Sub(q.since) >= quietPeriod
}

// verdict is what remains to be said when nobody more is seen.
func (s *sweep) verdict(held bool) ([]Holder, error) {
	left := s.left()
	var errs []error
	for _, p := range s.prey {
		errs = append(errs, p.refused)
	}
	if len(left) == 0 && held {
		errs = append(errs, ErrLeaseHeld)
	}
	return left, errors.Join(errs...)
}

// look makes a pass with all who are looking, as a hundred families may be, and
// tells whether there is somebody to chase: who holds the lease is chased unseen.
func (s *sweep) look(ctx context.Context, held bool) (seen bool, err error) {
	if held {
		return true, nil
	}
	c, err := shared.take(ctx)
	if err != nil {
		return false, err
	}
	return len(s.family.find(c, s.family.leaseMayBeHeld())) > 0, nil
}

// chase stops every member it sees, again until it sees no new one, then kills all.
// Stopped first, none forks on, and none loses the parent that proves its descent.
// It returns how many were new.
func (s *sweep) chase(ctx context.Context) (found int, err error) {
	s.killCgroup()
	for range chaseRounds {
		before := found
		var c *census
		c, err = takeCensus(ctx, func(h Holder) {
			// At once: a chain of processes that fork and exit is gone at the pass's end.
			if h.Token == s.family.Token && s.hold(candidate{pid: h.PID, why: byToken}, h) {
				found++
			}
		})
		if err != nil {
			break
		}
		for _, member := range s.family.find(c, s.family.leaseMayBeHeld()) {
			if s.hold(member, Holder{PID: member.pid}) {
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

// hold opens a member, proves that it is one and stops it, unless the sweep is a
// gentle one. It reports whether it
// is a new one.
func (s *sweep) hold(member candidate, h Holder) bool {
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
	// The watch does not reap: where it is a child of ours, its own handle does.
	process, err := watch(fd, Identity{PID: member.pid}, ignore)
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

// proven checks the evidence again while p holds the process open, so that what is
// read about its number is about itself.
func (s *sweep) proven(member candidate, p *prey) bool {
	switch member.why {
	case byMain:
		return s.family.Main.same()
	case byToken:
		return p.Verify(s.family.Token) == nil
	case byLease:
		buf := getBuffer()
		defer putBuffer(buf)
		return memberByLease(member.pid, s.family, buf) && p.same()
	case byCgroup:
		return slices.Contains(cgroupMembers(s.family.Cgroup), member.pid) && p.same()
	case byDescent:
		// The parent has been held open since before: its number was its own when the
		// child named it.
		parent := s.prey[member.parent]
		stat, err := readStat(member.pid)
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

// killCgroup kills the cgroup at one stroke, so that no fork escapes (Linux 5.14).
// Before, its members are found and killed like the others.
func (s *sweep) killCgroup() {
	if s.family.Cgroup == "" || withheld.cgroupKill.Load() {
		return
	}
	for _, pid := range cgroupMembers(s.family.Cgroup) {
		if s.ourselves[pid] {
			return // a wrong folder: it is not the instance's own
		}
	}
	_ = crashpoint.Do(crashpoint.CgroupKill, func() error { return writeCgroup(s.family.Cgroup, "cgroup.kill", "1") })
}

// await waits a little for those that were killed to die, even after ctx has
// ended, and lets go of the dead.
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

// running counts those that were killed and are not dead yet.
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
