package process

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

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

// reader makes a pass.
type reader struct {
	seen    func(Holder)
	holders []Holder
	users   []int
	pending []int // inside execve
	// read is readEnviron but in tests.
	read func(pid int, buf *[]byte) ([]byte, environState)
}

// take notes what reading a process's environment has come to.
func (r *reader) take(pid int, environ []byte, state environState) {
	switch state {
	case environNone:
		return
	case environInExec:
		r.pending = append(r.pending, pid)
		return
	case environRead:
		if h, ok := parseHolder(environ); ok {
			h.PID = pid
			r.holders = append(r.holders, h)
			if r.seen != nil {
				r.seen(h)
			}
		}
	case environCleared, environDenied:
	}
	r.users = append(r.users, pid)
}

// takeCensus makes one pass. Where seen is set, each holder is shown to it the
// moment it is found. Only ctx, an unreadable /proc and a flood of processes are
// errors.
func takeCensus(ctx context.Context, seen func(Holder)) (*census, error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	r := &reader{seen: seen, read: readEnviron}
	// One reader: two were tried and are no faster on a busy machine.
	if err := r.look(walkProcesses); err != nil {
		return nil, err
	}
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	return &census{holders: r.holders, users: r.users}, context.Cause(ctx)
}

// walkProcesses lists all processes. /proc lists by rising number and goes on to
// those that are new by then. In small pieces, each seen at once, that keeps up with
// a chain of processes that fork and exit, none of which lives as long as a pass.
func walkProcesses(visit func(pids []int) bool) error {
	deadline, late := time.Now().Add(passPatience), false
	var piece [16 * 24]byte
	err := walkNumbers("/proc", piece[:], func(pids []int) bool {
		if !visit(pids) {
			return false
		}
		late = time.Now().After(deadline)
		return !late
	})
	if late {
		err = errTooMany
	}
	if err != nil {
		return fmt.Errorf("read /proc: %w", err)
	}
	return nil
}

// settle asks processes inside execve again until they have an environment.
func (r *reader) settle(ctx context.Context) error {
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

// stuck remembers processes that had no environment for all of execPatience: one
// may have said so of itself (PR_SET_MM), and shall not slow down every pass.
var stuck struct {
	sync.Mutex
	known map[int]uint64 // PID to start time
}

// skipStuck takes those out of pending that are known to stay there.
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
		if s, err := readStat(pid); err == nil && s.StartTicks == start {
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
		if s, err := readStat(pid); err == nil {
			stuck.known[pid] = s.StartTicks
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

// shared lets a hundred workers that died together have one pass for all.
var shared = newSharedCensus()

func newSharedCensus() *sharing[*census] {
	return &sharing[*census]{ask: func() (*census, error) { return takeCensus(context.Background(), nil) }}
}
