package process

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// ListensOn returns the TCP ports on which members listen, sorted. It reads the descriptors of every member; those of
// a member that this process may not read are left out.
func (f Family) ListensOn(ctx context.Context) ([]int, error) {
	ports, err := f.listensOn(ctx)
	if err != nil {
		return nil, fmt.Errorf("find the listeners of a family: %w", err)
	}
	return ports, nil
}

func (f Family) listensOn(ctx context.Context) ([]int, error) {
	buf := getBuffer()
	defer putBuffer(buf)
	listeners, err := everyListener(ctx, buf)
	if err != nil || len(listeners) == 0 {
		return nil, err
	}
	c, err := shared.get(ctx)
	if err != nil {
		return nil, err
	}
	s := ownerSearch{missing: make(map[string]socket, len(listeners)), buf: buf}
	for _, l := range listeners {
		s.missing[socketLink(l.inode)] = l
	}
	for _, member := range f.find(c, f.leaseMayBeHeld()) {
		s.look(member.pid)
	}
	ours := make(map[int]bool)
	for _, l := range listeners {
		if _, missing := s.missing[socketLink(l.inode)]; !missing {
			ours[l.port] = true
		}
	}
	return slices.Sorted(maps.Keys(ours)), nil
}

// Includes reports whether the process with the PID is a member. The PID may be reused meanwhile: the caller holds an
// open [Process], and looks afterwards whether that has ended.
func (f Family) Includes(pid int) bool {
	buf := getBuffer()
	defer putBuffer(buf)
	ours, cgroup, lease := ourselves(), []int(nil), f.leaseMayBeHeld()
	if f.Cgroup != "" {
		cgroup = cgroupMembers(f.Cgroup)
	}
	s, err := readStat(pid)
	for seen := map[int]bool{}; err == nil && !ours[pid] && !seen[pid]; {
		seen[pid] = true
		if f.Main != nil && f.Main.PID() == pid && f.Main.alive() || slices.Contains(cgroup, pid) ||
			f.hasToken(pid, buf) || lease && memberByLease(pid, f, buf) {
			return true
		}
		parent, e := readStat(s.PPID)
		if e != nil || parent.StartTicks > s.StartTicks { // a child is never older than its parent
			return false
		}
		pid, s, err = s.PPID, parent, e
	}
	return false
}

func (f Family) hasToken(pid int, buf *[]byte) bool {
	environ, state := readEnviron(pid, buf)
	if f.Token == "" || state != environRead {
		return false
	}
	token, ok := lookupEnv(environ, EnvWorkerToken)
	return ok && token == f.Token
}
