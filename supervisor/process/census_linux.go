package process

import (
	"context"
	"errors"
	"fmt"
	"os"
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
	buf     *[]byte
	seen    func(Holder)
	holders []Holder
	users   []int
	pending []int // inside execve
}

func (r *reader) visit(pids []int) {
	self := os.Getpid()
	for _, pid := range pids {
		if pid == self {
			continue
		}
		environ, state := readEnviron(pid, r.buf)
		switch state {
		case environNone:
			continue
		case environInExec:
			r.pending = append(r.pending, pid)
			continue
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
}

// takeCensus makes one pass. Where seen is set, each holder is shown to it the
// moment it is found. Only ctx, an unreadable /proc and a flood of processes are
// errors.
func takeCensus(ctx context.Context, seen func(Holder)) (*census, error) {
	if err := checkProc(); err != nil {
		return nil, err
	}
	r := &reader{buf: getBuffer(), seen: seen}
	defer putBuffer(r.buf)
	// One reader: two were tried and are no faster on a busy machine.
	if err := walkProcesses(r.visit); err != nil {
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
func walkProcesses(visit func(pids []int)) error {
	deadline, late := time.Now().Add(passPatience), false
	var piece [16 * 24]byte
	err := walkNumbers("/proc", piece[:], func(pids []int) bool {
		visit(pids)
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
