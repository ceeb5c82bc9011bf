package process

import (
	"context"
	"iter"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/internal/sharing"
)

// sightings remembers what passes over /proc have read, so that the next one reads only the processes that are new: a
// process gets its token from its parent or at its start, never later.
//
// A process is recognised by its PID together with the inode of its folder in /proc, which the kernel makes for each
// process and takes from a counter (tried: a process that reuses a PID has another one).
type sightings struct {
	known map[int]sighting
	read  func(pid int, buf *[]byte) ([]byte, procfs.EnvironState) // procfs.ReadEnviron, except in tests
}

// sighting is a process whose token does not change any more.
type sighting struct {
	inode  uint64
	token  string // "" if it has none
	kernel bool   // it is a kernel thread
}

// noInode is the value that the kernel lists if it cannot make the inode.
const noInode = 1

// census makes one pass. Of the holders only PID and token are set. A process that was seen before and has ended counts
// until its parent has reaped it.
func (s *sightings) census(ctx context.Context) (*census, error) {
	if err := procfs.Check(); err != nil {
		return nil, err
	}
	seen := make(map[int]sighting, len(s.known))
	settled := make(map[int]uint64) // the inodes of new processes
	r := &reader{read: s.read}
	err := r.look(func(visit func([]int) bool) error {
		var pids []int
		return procfs.WalkInodes(func(processes iter.Seq2[int, uint64]) bool {
			pids = pids[:0]
			for pid, inode := range processes {
				if known, ok := s.known[pid]; ok && known.inode == inode && inode > noInode {
					seen[pid] = known
					continue
				}
				switch stat, err := procfs.ReadStat(pid); {
				case err != nil || inode <= noInode:
				case stat.KernelThread():
					seen[pid] = sighting{inode: inode, kernel: true}
					continue
				case procfs.HasOwnEnviron(stat):
					settled[pid] = inode
				}
				pids = append(pids, pid)
			}
			return visit(pids)
		})
	})
	if err == nil {
		err = r.retryExecing(ctx)
	}
	if err != nil {
		return nil, err
	}
	c := &census{holders: r.holders, users: r.users}
	for pid, known := range seen {
		c.note(pid, known)
	}
	remember := func(pid int, token string) {
		if inode, ok := settled[pid]; ok {
			seen[pid] = sighting{inode: inode, token: token}
		}
	}
	for _, h := range r.holders {
		remember(h.PID, h.Token)
	}
	for _, pid := range r.free {
		remember(pid, "")
	}
	s.known = seen
	return c, context.Cause(ctx)
}

// note adds a process that was seen before.
func (c *census) note(pid int, known sighting) {
	if known.kernel {
		return
	}
	c.users = append(c.users, pid)
	if known.token != "" {
		c.holders = append(c.holders, Holder{PID: pid, Token: known.token})
	}
}

// sighted makes one pass serve all concurrent callers, of which there is one at a time.
var sighted = newSharedSightings()

func newSharedSightings() *sharing.Question[*census] {
	s := &sightings{read: procfs.ReadEnviron}
	return &sharing.Question[*census]{Ask: func() (*census, error) { return s.census(context.Background()) }}
}
