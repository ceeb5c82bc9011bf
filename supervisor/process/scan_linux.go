package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Scan finds every process whose environment names a worker's token, oldest first,
// but for this process itself. A process inside execve shows no environment, so
// that those are asked again, for a second at most.
//
// The result is a hint: open what was found with OpenPID and Verify it.
func Scan(ctx context.Context) ([]Holder, error) {
	c, err := shared.take(ctx)
	if err != nil {
		return nil, fmt.Errorf("scan for workers: %w", err)
	}
	found := make([]Holder, 0, len(c.holders))
	for _, h := range c.holders {
		if h, ok := completeHolder(h); ok {
			found = append(found, h)
		}
	}
	sortHolders(found)
	return found, nil
}

func sortHolders(holders []Holder) {
	slices.SortFunc(holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.StartTicks, b.StartTicks), cmp.Compare(a.PID, b.PID))
	})
}

// completeHolder adds what stat says to what the environment said; ok is false
// where the process has died since.
func completeHolder(h Holder) (_ Holder, ok bool) {
	stat, err := readLife(h.PID)
	if err != nil || stat.ended() {
		return h, false
	}
	// The folder's owner is the effective uid, also of an undumpable process.
	var folder unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(h.PID), &folder); err != nil {
		return h, false
	}
	h.PPID, h.PGID, h.SID = stat.PPID, stat.PGID, stat.SID
	h.State, h.StartTicks, h.UID = stat.State, stat.StartTicks, folder.Uid
	return h, true
}

// census is what one pass over /proc has found.
type census struct {
	holders []Holder // those with a token; only PID and what the environment says is set
	users   []int    // all that have an address space: neither kernel threads nor dead

	stats     sync.Once
	userStats map[int]taskStat
}

// all returns the stat of every user process. It is read on demand, since it costs
// more than all of the rest.
func (c *census) all() map[int]taskStat {
	c.stats.Do(func() {
		c.userStats = make(map[int]taskStat, len(c.users))
		for _, pid := range c.users {
			if s, err := readStat(pid); err == nil {
				c.userStats[pid] = s
			}
		}
	})
	return c.userStats
}

const (
	execPatience = time.Second // for processes inside execve to come out of it
	execPause    = 500 * time.Microsecond
	passPatience = 5 * time.Second // for a pass to come to its end, while processes are started
)

// errTooMany is better than a census that leaves somebody out.
var errTooMany = errors.New("processes are started faster than they can be looked at")

// inExec remembers processes that had no environment for all of execPatience: one
// may have said so of itself (PR_SET_MM), and shall not slow down every pass.
var inExec struct {
	sync.Mutex
	known map[int]uint64 // PID to start time
}

// takeCensus makes one pass. Each holder is shown to seen, if set, the moment it
// is found. Only ctx and an unreadable /proc are errors.
func takeCensus(ctx context.Context, seen func(Holder)) (*census, error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	buf := getBuffer()
	defer putBuffer(buf)
	c, self := &census{}, os.Getpid()
	var pending []int
	visit := func(pid int) {
		environ, state := readEnviron(pid, buf)
		switch state {
		case environNone:
			return
		case environInExec:
			pending = append(pending, pid)
			return
		case environRead:
			if h, ok := parseHolder(environ); ok {
				h.PID = pid
				c.holders = append(c.holders, h)
				if seen != nil {
					seen(h)
				}
			}
		case environCleared, environDenied:
		}
		c.users = append(c.users, pid)
	}
	// /proc lists by rising number and goes on to those that are new by then. In
	// small pieces, each seen at once, it keeps up with a chain of processes that
	// fork and exit, none of which lives as long as a pass.
	deadline, late := time.Now().Add(passPatience), false
	var piece [16 * 24]byte
	err := walkNumbers("/proc", piece[:], func(pids []int) bool {
		for _, pid := range pids {
			if pid != self {
				visit(pid)
			}
		}
		late = time.Now().After(deadline)
		return !late
	})
	if late {
		err = errTooMany
	}
	if err != nil {
		return nil, fmt.Errorf("read /proc: %w", err)
	}
	deadline = time.Now().Add(execPatience)
	for pending = withoutStuck(pending, c); len(pending) > 0; {
		if !time.Now().Before(deadline) {
			rememberStuck(pending)
			c.users = append(c.users, pending...)
			break
		}
		if err := pause(ctx, execPause); err != nil {
			return nil, err
		}
		again := pending
		pending = nil
		for _, pid := range again {
			visit(pid)
		}
	}
	return c, context.Cause(ctx)
}

// withoutStuck takes those out of pending that are known to stay there.
func withoutStuck(pending []int, c *census) []int {
	inExec.Lock()
	defer inExec.Unlock()
	if len(inExec.known) == 0 {
		return pending
	}
	return slices.DeleteFunc(pending, func(pid int) bool {
		start, known := inExec.known[pid]
		if !known {
			return false
		}
		if s, err := readStat(pid); err == nil && s.StartTicks == start {
			c.users = append(c.users, pid)
			return true
		}
		delete(inExec.known, pid)
		return false
	})
}

func rememberStuck(pids []int) {
	inExec.Lock()
	defer inExec.Unlock()
	const most = 1024
	if inExec.known == nil || len(inExec.known) > most {
		inExec.known = make(map[int]uint64)
	}
	for _, pid := range pids {
		if s, err := readStat(pid); err == nil {
			inExec.known[pid] = s.StartTicks
		}
	}
}

// pause waits, but no longer than ctx.
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

// shared lets all who ask at the same time share a pass: a hundred workers that
// died together ask for one each. A pass that has begun before is too old for who
// asks now, as it may have gone past the process in question.
var shared sharedCensus

type sharedCensus struct {
	mu      sync.Mutex
	running bool
	next    *sharedPass
}

type sharedPass struct {
	done   chan struct{}
	census *census
	err    error
}

func (s *sharedCensus) take(ctx context.Context) (*census, error) {
	s.mu.Lock()
	pass := s.next
	if pass == nil {
		pass = &sharedPass{done: make(chan struct{})}
		s.next = pass
	}
	if !s.running {
		s.running = true
		go s.run()
	}
	s.mu.Unlock()
	select {
	case <-pass.done:
		return pass.census, pass.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// run makes passes until nobody waits for one. It ends by itself soon after: a
// pass takes milliseconds, and is bounded where something is inside execve.
func (s *sharedCensus) run() {
	for {
		s.mu.Lock()
		pass := s.next
		s.next = nil
		if pass == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		pass.census, pass.err = takeCensus(context.Background(), nil)
		close(pass.done)
	}
}
