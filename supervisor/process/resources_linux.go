package process

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/supervisor/cgroup"
	"github.com/core-tools/hsu-master/supervisor/process/internal/kernel"
)

// Measure returns what each of the families uses, from one pass over all processes. It finds an instance by Session and
// StartTicks, its other members as [Family.Members] does, but reads the environment of a process only the first time. A
// family without a member that can be seen has no Processes.
func Measure(ctx context.Context, families []Family) ([]Resources, error) {
	if len(families) == 0 {
		return nil, nil
	}
	c, err := sighted.Answer(ctx)
	if err != nil {
		return nil, fmt.Errorf("read what processes use: %w", err)
	}
	buf := procfs.GetBuffer()
	defer procfs.PutBuffer(buf)
	stats, used := c.all(), make([]Resources, len(families))
	for i, members := range c.assign(families, buf) {
		for _, m := range members {
			if s, known := stats[m.pid]; known {
				used[i].add(m.pid, s, buf)
			}
		}
		if cpu, ok := families[i].cgroupCPU(); ok && used[i].Processes > 0 {
			used[i].CPU = cpu
		}
	}
	return used, nil
}

// add adds what one process uses.
func (r *Resources) add(pid int, s procfs.Stat, buf *[]byte) {
	r.Processes++
	r.Threads += s.Threads
	r.CPU += time.Duration(s.CPUTicks) * procfs.Tick //nolint:gosec // ticks of processor time
	pages := s.ResidentPages
	if s.Ended() {
		pages = threadPages(pid, buf)
	}
	r.Resident += pages * pageSize
	switch n, ok := countFiles(pid, buf); {
	case !ok:
		r.Files = -1
	case r.Files >= 0:
		r.Files += n
	}
}

var pageSize = int64(os.Getpagesize())

// threadPages returns the resident pages of a process whose first thread has ended before others.
func threadPages(pid int, buf *[]byte) int64 {
	tid, err := procfs.LivingThread(pid)
	if err != nil {
		return 0
	}
	text, err := procfs.ReadAll(procfs.TaskPath(pid, tid, "statm"), buf)
	if err != nil {
		return 0
	}
	fields := bytes.Fields(text) // all pages, the resident ones, ... (proc_pid_statm(5))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages
}

// countFiles returns the number of a process's open descriptors, 0 if it has ended. It returns false if they cannot be
// read. Since Linux 6.2 it is the size of the folder, which any user may ask for.
func countFiles(pid int, buf *[]byte) (int, bool) {
	var folder unix.Stat_t
	if !kernel.Withheld.FolderSize.Load() && unix.Stat(procfs.Path(pid, "fd"), &folder) == nil && folder.Size > 0 {
		return int(folder.Size), true
	}
	_, open, err := procfs.Descriptors(pid, buf)
	return len(open), !procfs.Denied(err)
}

// assign returns the members of each family. It looks for holders of a lease only among the processes that belong to no
// family by other evidence, and reads the descriptors of each of them once.
func (c *census) assign(families []Family, buf *[]byte) [][]candidate {
	stats, spared := c.all(), ourselves()
	roots := c.roots(families)
	members, known := make([][]candidate, len(families)), make(map[int]bool, len(c.users))
	for i := range families {
		members[i] = descend(roots[i], stats, c.children, spared)
		for _, m := range members[i] {
			known[m.pid] = true
		}
	}
	leases := leasesOf(families)
	seenFiles.keep(stats)
	for _, pid := range c.users {
		s, lives := stats[pid]
		if !lives || known[pid] || spared[pid] || !leases.mayHold(s) {
			continue
		}
		i, ok := leases.holder(pid, s, families, buf)
		if !ok {
			continue
		}
		for _, m := range descend([]candidate{{pid: pid, why: byLease}}, stats, c.children, spared) {
			if !known[m.pid] {
				members[i], known[m.pid] = append(members[i], m), true
			}
		}
	}
	return members
}

// roots returns the members of each family that are known without looking at leases or at descent.
func (c *census) roots(families []Family) [][]candidate {
	stats, roots, byTokens := c.all(), make([][]candidate, len(families)), make(map[string]int, len(families))
	for i, f := range families {
		if s, lives := stats[f.Session]; lives && s.StartTicks == f.StartTicks {
			roots[i] = append(roots[i], candidate{pid: f.Session, why: byMain})
		}
		if f.Token != "" {
			byTokens[f.Token] = i
		}
		if f.Cgroup != "" {
			for _, pid := range cgroup.Members(f.Cgroup) {
				roots[i] = append(roots[i], candidate{pid: pid, why: byCgroup})
			}
		}
	}
	for _, h := range c.holders {
		if i, ok := byTokens[h.Token]; ok {
			roots[i] = append(roots[i], candidate{pid: h.PID, why: byToken})
		}
	}
	return roots
}

// leases are those of several families.
type leases struct {
	families map[identity.FileID]int // the index of each one's family
	sessions map[int]bool
	earliest uint64 // start of the instances
}

func leasesOf(families []Family) leases {
	l := leases{families: map[identity.FileID]int{}, sessions: map[int]bool{}, earliest: math.MaxUint64}
	for i, f := range families {
		if f.LeasePath != "" && f.Lease != (identity.FileID{}) {
			l.families[f.Lease], l.sessions[f.Session] = i, true
			l.earliest = min(l.earliest, f.StartTicks)
		}
	}
	return l
}

// mayHold reports whether a process can be a member of a family by its lease: see memberByLease.
func (l leases) mayHold(s procfs.Stat) bool { return s.StartTicks >= l.earliest || l.sessions[s.SID] }

// holder returns the family whose lease a process holds.
func (l leases) holder(pid int, s procfs.Stat, families []Family, buf *[]byte) (family int, found bool) {
	for _, id := range seenFiles.of(pid, s, buf) {
		if i, ok := l.families[id]; ok && memberByLease(pid, families[i], buf) {
			return i, true
		}
	}
	return 0, false
}
