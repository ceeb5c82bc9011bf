package process

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
)

// evidence is the reason why a process belongs to a family.
type evidence int

const (
	byMain evidence = iota
	byToken
	byLease
	byCgroup
	byDescent
)

// candidate is a process that belonged to the family when it was examined. Its PID alone is never acted on.
type candidate struct {
	pid    int
	why    evidence
	parent int // if why is byDescent
}

// Members returns the living members, including the instance itself, oldest first. It always finds the processes
// that carry the token, live in the cgroup or descend from a member. It looks for other holders of the lease only
// if the lease may be held. It returns ErrLeaseHeld if there is no member but a foreign process holds the lease.
func (f Family) Members(ctx context.Context) ([]Holder, error) {
	c, err := shared.Answer(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the members of a family: %w", err)
	}
	found := f.find(c, f.leaseMayBeHeld())
	if len(found) == 0 && f.leaseHeld() {
		return nil, f.stranger(c)
	}
	return c.describe(found), nil
}

// maxAncestors bounds the walk from a process to its ancestors.
const maxAncestors = 100

// Includes reports whether a process, or the nearest of its ancestors that shows it, belongs to the family. It costs
// less than Members, and finds no process that has ended. The PID may be reused meanwhile: the caller holds an open
// [Process], and looks afterwards whether that has ended.
func (f Family) Includes(pid int) bool {
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	var inside []int
	if f.Cgroup != "" {
		inside = cgroup.Members(f.Cgroup)
	}
	ours, leased := ourselves(), f.leaseMayBeHeld()
	stat, err := procfs.ReadStat(pid)
	for range maxAncestors {
		switch {
		case err != nil || pid <= 1 || ours[pid]:
			return false
		case f.Main != nil && pid == f.Main.PID():
			return f.Main.alive()
		case slices.Contains(inside, pid) || f.hasToken(pid, buf) || leased && memberByLease(pid, f, buf):
			return true
		}
		child := stat
		pid = child.PPID
		stat, err = procfs.ReadStat(pid)
		if stat.StartTicks > child.StartTicks { // a parent is never younger than its child
			return false
		}
	}
	return false
}

// hasToken reports whether the environment of a process names the token of the family.
func (f Family) hasToken(pid int, buf *[]byte) bool {
	environ, state := procfs.ReadEnviron(pid, buf)
	if f.Token == "" || state != procfs.EnvironRead {
		return false
	}
	token, ok := procfs.LookupEnv(environ, EnvWorkerToken)
	return ok && token == f.Token
}

// describe returns the candidates that are still alive, with all fields set.
func (c *census) describe(candidates []candidate) []Holder {
	said := make(map[int]Holder, len(c.holders))
	for _, h := range c.holders {
		said[h.PID] = h
	}
	members := make([]Holder, 0, len(candidates))
	for _, member := range candidates {
		h := said[member.pid]
		h.PID = member.pid
		if h, ok := completeHolder(h); ok {
			members = append(members, h)
		}
	}
	sortHolders(members)
	return members
}

// leaseMayBeHeld reports whether to look for holders of the lease. If the lease file is gone or replaced, the
// lease may still be held.
func (f Family) leaseMayBeHeld() bool {
	if f.LeasePath == "" || f.Lease == (identity.FileID{}) {
		return false
	}
	held, err := LeaseHeld(f.LeasePath, f.Lease)
	return held || err != nil
}

// find returns the members in a census, parents before their children. It is cheap if no process has the token and
// none holds the lease.
func (f Family) find(c *census, leaseHeld bool) []candidate {
	var found []candidate
	if f.Main != nil && f.Main.alive() {
		found = append(found, candidate{pid: f.Main.PID(), why: byMain})
	}
	if f.Token != "" {
		for _, h := range c.holders {
			if h.Token == f.Token {
				found = append(found, candidate{pid: h.PID, why: byToken})
			}
		}
	}
	if f.Cgroup != "" {
		for _, pid := range cgroup.Members(f.Cgroup) {
			found = append(found, candidate{pid: pid, why: byCgroup})
		}
	}
	if leaseHeld {
		buf := procfs.GetBuffer()
		defer procfs.PutBuffer(buf)
		for _, pid := range c.openers(f.Lease) {
			known := slices.ContainsFunc(found, func(m candidate) bool { return m.pid == pid })
			if !known && memberByLease(pid, f, buf) {
				found = append(found, candidate{pid: pid, why: byLease})
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	stats := c.all()
	return descend(found, stats, c.children, ourselves())
}

func childrenOf(stats map[int]procfs.Stat) map[int][]int {
	children := make(map[int][]int)
	for pid, s := range stats {
		children[s.PPID] = append(children[s.PPID], pid)
	}
	return children
}

// descend adds all descendants of roots. It removes duplicates, and this process and its ancestors: the descendants of
// this process include other workers.
func descend(
	roots []candidate, stats map[int]procfs.Stat, children map[int][]int, ourselves map[int]bool,
) []candidate {
	var family []candidate
	known := make(map[int]bool)
	for queue := roots; len(queue) > 0; queue = queue[1:] {
		member := queue[0]
		if known[member.pid] || ourselves[member.pid] {
			continue
		}
		known[member.pid] = true
		family = append(family, member)
		for _, pid := range children[member.pid] {
			// A child is never older than its parent, unless the PID was reused meanwhile.
			if stats[pid].StartTicks >= stats[member.pid].StartTicks {
				queue = append(queue, candidate{pid: pid, why: byDescent, parent: member.pid})
			}
		}
	}
	return family
}

// ourselves returns this process and its ancestors. A master that was started from a worker's shell carries that
// worker's token and must not kill itself.
func ourselves() map[int]bool {
	found := map[int]bool{1: true, os.Getpid(): true}
	for pid := os.Getppid(); pid > 0 && !found[pid]; {
		found[pid] = true
		s, err := procfs.ReadStat(pid)
		if err != nil {
			break // hidden from this process (hidepid=), which then cannot signal it either
		}
		pid = s.PPID
	}
	return found
}
