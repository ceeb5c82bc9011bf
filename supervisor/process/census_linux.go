package process

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/procfs"
	"github.com/core-tools/hsu-master/internal/sharing"
)

// census is the result of one pass over /proc.
type census struct {
	holders []Holder // those with a token; only PID and the values from the environment are set
	users   []int    // all with an address space: no kernel threads and no dead processes

	stats     sync.Once
	userStats map[int]procfs.Stat
	children  map[int][]int // of each process, by the same stats

	files sync.Once
	opens map[identity.FileID][]int // the users that have a regular file open
}

// names reports whether a process has the token.
func (c *census) names(token string) bool {
	return slices.ContainsFunc(c.holders, func(h Holder) bool { return h.Token == token })
}

// all returns the stat of every user process. It reads them on the first call, because that costs more than the
// rest of the pass.
func (c *census) all() map[int]procfs.Stat {
	c.stats.Do(func() {
		c.userStats = make(map[int]procfs.Stat, len(c.users))
		for _, pid := range c.users {
			if s, err := procfs.ReadStat(pid); err == nil && (!s.Ended() || s.Threads > 1) { // else it has ended
				c.userStats[pid] = s
			}
		}
		c.children = childrenOf(c.userStats)
	})
	return c.userStats
}

// openers returns the user processes that have a regular file open, except this process and its ancestors. It reads
// the descriptors of all processes on the first call, so that the families of a thousand workers, each with a lease of
// its own, cost one pass instead of a thousand. A process may have closed the file meanwhile.
func (c *census) openers(file identity.FileID) []int {
	c.files.Do(func() {
		c.opens = make(map[identity.FileID][]int)
		buf := procfs.GetBuffer()
		defer procfs.PutBuffer(buf)
		spared := ourselves()
		for _, pid := range c.users {
			if spared[pid] {
				continue
			}
			folder, open, err := procfs.Descriptors(pid, buf)
			if err != nil {
				continue
			}
			for _, n := range open {
				id, regular, _ := procfs.FileBehind(folder + "/fd/" + strconv.Itoa(n))
				if regular && !slices.Contains(c.opens[id], pid) {
					c.opens[id] = append(c.opens[id], pid)
				}
			}
		}
	})
	return c.opens[file]
}

const (
	execPatience = time.Second // for processes inside execve to leave it
	execPause    = 500 * time.Microsecond
)

// reader makes one pass.
type reader struct {
	seen    func(Holder)
	holders []Holder
	users   []int
	free    []int // those whose environment names no token
	pending []int // inside execve
	// read is procfs.ReadEnviron, except in tests.
	read func(pid int, buf *[]byte) ([]byte, procfs.EnvironState)
}

// add records the result of reading a process's environment.
func (r *reader) add(pid int, environ []byte, state procfs.EnvironState) {
	switch state {
	case procfs.EnvironNone:
		return
	case procfs.EnvironInExec:
		r.pending = append(r.pending, pid)
		return
	case procfs.EnvironRead:
		if h, ok := parseHolder(environ); ok {
			h.PID = pid
			r.holders = append(r.holders, h)
			if r.seen != nil {
				r.seen(h)
			}
		} else {
			r.free = append(r.free, pid)
		}
	case procfs.EnvironCleared, procfs.EnvironDenied:
	}
	r.users = append(r.users, pid)
}

// takeCensus makes one pass. If seen is set, takeCensus calls it with each holder as soon as the holder is found.
// The only errors are the end of ctx, an unreadable /proc, and processes that start faster than they can be read.
func takeCensus(ctx context.Context, seen func(Holder)) (*census, error) {
	if err := procfs.Check(); err != nil {
		return nil, err
	}
	r := &reader{seen: seen, read: procfs.ReadEnviron}
	// One reader is enough: two were tried and are no faster on a busy machine.
	if err := r.look(procfs.WalkProcesses); err != nil {
		return nil, err
	}
	if err := r.retryExecing(ctx); err != nil {
		return nil, err
	}
	return &census{holders: r.holders, users: r.users}, context.Cause(ctx)
}

// retryExecing reads the processes inside execve again until they have an environment.
func (r *reader) retryExecing(ctx context.Context) error {
	deadline := time.Now().Add(execPatience)
	for r.skipStuck(); len(r.pending) > 0; {
		if !time.Now().Before(deadline) {
			rememberStuck(r.pending)
			r.users = append(r.users, r.pending...)
			return nil
		}
		if err := pause(ctx, execPause); err != nil {
			return err
		}
		again := r.pending
		slices.Sort(again)
		r.pending = nil
		r.visit(again)
	}
	return nil
}

// stuck holds the processes that had no environment for all of execPatience, so that they do not slow down every
// pass. A process can hide its environment with PR_SET_MM.
var stuck struct {
	sync.Mutex
	known map[int]uint64 // PID to start time
}

// skipStuck removes known stuck processes from pending.
func (r *reader) skipStuck() {
	stuck.Lock()
	defer stuck.Unlock()
	if len(stuck.known) == 0 {
		return
	}
	r.pending = slices.DeleteFunc(r.pending, func(pid int) bool {
		start, known := stuck.known[pid]
		if !known {
			return false
		}
		if s, err := procfs.ReadStat(pid); err == nil && s.StartTicks == start {
			r.users = append(r.users, pid)
			return true
		}
		delete(stuck.known, pid)
		return false
	})
}

func rememberStuck(pids []int) {
	stuck.Lock()
	defer stuck.Unlock()
	const most = 1024
	if stuck.known == nil || len(stuck.known) > most {
		stuck.known = make(map[int]uint64)
	}
	for _, pid := range pids {
		if s, err := procfs.ReadStat(pid); err == nil {
			stuck.known[pid] = s.StartTicks
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// shared makes one pass serve all concurrent callers, for instance a hundred workers that died together.
var shared = newSharedCensus()

func newSharedCensus() *sharing.Question[*census] {
	return &sharing.Question[*census]{Ask: func() (*census, error) { return takeCensus(context.Background(), nil) }}
}
