package process

import (
	"context"
	"iter"

	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/internal/sharing"
)

// sightings remembers what passes over /proc have read, so that the next one reads only the processes that are new. It
// answers only whether a token may be in use: a process gets its token from its parent or at its start, never later.
//
// A process is recognised by its PID together with the inode of its folder in /proc, which the kernel makes for each
// process and takes from a counter (tried: a process that reuses a PID has another one).
type sightings struct {
	known map[int]sighting
	read  func(pid int, buf *[]byte) ([]byte, procfs.EnvironState) // procfs.ReadEnviron, except in tests
}

// sighting is a process whose token does not change any more.
type sighting struct {
	inode uint64
	token string // "" if it has none
}

// noInode is the value that the kernel lists if it cannot make the inode.
const noInode = 1

// tokens returns the tokens that living processes may have.
func (s *sightings) tokens(ctx context.Context) (map[string]bool, error) {
	if err := procfs.Check(); err != nil {
		return nil, err
	}
	tokens := make(map[string]bool)
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
					tokens[known.token] = true
					continue
				}
				switch stat, err := procfs.ReadStat(pid); {
				case err != nil || inode <= noInode:
				case stat.KernelThread():
					seen[pid] = sighting{inode: inode}
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
	note := func(pid int, token string) {
		if inode, ok := settled[pid]; ok {
			seen[pid] = sighting{inode, token}
		}
	}
	for _, h := range r.holders {
		tokens[h.Token] = true
		note(h.PID, h.Token)
	}
	for _, pid := range r.free {
		note(pid, "")
	}
	s.known = seen
	delete(tokens, "")
	return tokens, context.Cause(ctx)
}

// sighted makes one pass serve all concurrent callers, of which there is one at a time.
var sighted = newSharedSightings()

func newSharedSightings() *sharing.Question[map[string]bool] {
	s := &sightings{read: procfs.ReadEnviron}
	return &sharing.Question[map[string]bool]{
		Ask: func() (map[string]bool, error) { return s.tokens(context.Background()) },
	}
}
