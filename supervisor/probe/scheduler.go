package probe

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// phases is the number of groups over which the checks of an interval are spread. All checks of a group are due at the
// same instant because waking this program costs more than a check (measured: a hundred workers checked one by one take
// 2% of a processor, in five groups a third of that).
const phases = 5

// Scheduler runs the checks of any number of endpoints, each at its own interval. A check that is not due costs neither
// a goroutine nor a timer. The methods of a Scheduler and of its checks may be called from any goroutine.
type Scheduler struct {
	epoch time.Time // origin of the phases
	wake  chan struct{}

	mu     sync.Mutex
	added  int      // number of checks so far
	queue  queue    // by due time
	atOnce []*Check // to be run besides their schedule
}

// Check is the repeated check of one endpoint.
type Check struct {
	scheduler *Scheduler
	policy    Policy
	phase     time.Time // a time at which the check is due
	ask       func(ctx context.Context) error
	tell      func(ctx context.Context, r Result)
	last      atomic.Pointer[Answer]

	// Protected by the scheduler's lock:
	interval time.Duration
	due      time.Time
	position int  // in the queue, -1 if it is stopped
	running  bool // at most one at a time
	cancel   context.CancelFunc
}

// Result is the result of one check.
type Result struct {
	// Err is nil if the endpoint is healthy.
	Err error
	// Late reports whether this machine was too busy to check in time, so that Err says nothing about the endpoint.
	Late bool
	// Extra reports whether the check was made by [Check.Now] and not on schedule.
	Extra bool
}

// Answer is the last result of a check.
type Answer struct {
	At  time.Time
	Err error // nil: it passed
}

// NewScheduler returns a scheduler without checks.
func NewScheduler() *Scheduler { return &Scheduler{epoch: time.Now(), wake: make(chan struct{}, 1)} }

// Add adds a check that calls ask at each interval of the policy, with a context that ends at its timeout, and then
// tell with the result. The context of tell ends with the check. No call of either begins before tell has returned.
func (s *Scheduler) Add(
	p Policy, ask func(ctx context.Context) error, tell func(ctx context.Context, r Result),
) *Check {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &Check{scheduler: s, policy: p, interval: p.Interval, ask: ask, tell: tell}
	c.phase = s.epoch.Add(time.Duration(s.added%phases) * p.Interval / phases)
	s.added++
	c.schedule(time.Now())
	heap.Push(&s.queue, c)
	if c.position == 0 {
		s.notify()
	}
	return c
}

// Now runs the check at once, unless it is running.
func (c *Check) Now() {
	s := c.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.position >= 0 {
		s.atOnce = append(s.atOnce, c)
		s.notify()
	}
}

// Last returns the last answer, nil if there is none yet.
func (c *Check) Last() *Answer { return c.last.Load() }

// Note makes err the last answer: the question was asked besides the schedule.
func (c *Check) Note(err error) { c.last.Store(&Answer{At: time.Now(), Err: err}) }

// Due returns the time at which the check is made next on schedule, the zero time after Stop.
func (c *Check) Due() time.Time {
	c.scheduler.mu.Lock()
	defer c.scheduler.mu.Unlock()
	if c.position < 0 {
		return time.Time{}
	}
	return c.due
}

// Pace makes the check at each interval d from now on, or at the interval of its policy if that is shorter or d is 0.
func (c *Check) Pace(d time.Duration) {
	if d == 0 || d > c.policy.Interval {
		d = c.policy.Interval
	}
	s := c.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.interval == d {
		return
	}
	c.interval = d
	if c.position < 0 {
		return
	}
	c.schedule(time.Now())
	heap.Fix(&s.queue, c.position)
	if c.position == 0 {
		s.notify()
	}
}

// Stop ends the check. A result that is about to be told may still be told.
func (c *Check) Stop() {
	s := c.scheduler
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.position < 0 {
		return
	}
	heap.Remove(&s.queue, c.position)
	if c.cancel != nil {
		c.cancel()
	}
}

// schedule sets the next due time after now.
func (c *Check) schedule(now time.Time) {
	c.due = c.phase
	if since := now.Sub(c.phase); since >= 0 {
		c.due = c.phase.Add((since/c.interval + 1) * c.interval)
	}
}

func (s *Scheduler) notify() {
	select {
	case s.wake <- struct{}{}:
	default: // it has yet to wake up
	}
}

// Serve runs the checks until ctx ends, and returns when none is running any more.
func (s *Scheduler) Serve(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		if next, found := s.launch(ctx, &running); found {
			timer.Reset(time.Until(next))
		}
	}
}

// launch starts the checks that are due, and returns the next due time, if there is a check.
func (s *Scheduler) launch(ctx context.Context, running *sync.WaitGroup) (next time.Time, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(s.queue) > 0 && !s.queue[0].due.After(now) {
		c := s.queue[0]
		c.start(ctx, running, Result{Late: now.Sub(c.due) > c.policy.Lateness})
		c.schedule(now)
		heap.Fix(&s.queue, 0)
	}
	for _, c := range s.atOnce {
		c.start(ctx, running, Result{Extra: true})
	}
	s.atOnce = nil
	if len(s.queue) == 0 {
		return time.Time{}, false
	}
	return s.queue[0].due, true
}

// start runs the check in a goroutine unless it is running or stopped. The caller holds the scheduler's lock.
func (c *Check) start(ctx context.Context, running *sync.WaitGroup, r Result) {
	if c.running || c.position < 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	c.running, c.cancel = true, cancel
	running.Go(func() {
		defer c.ended()
		began := time.Now()
		bounded, cancel := context.WithTimeout(ctx, c.policy.Timeout)
		r.Err = c.ask(bounded)
		cancel()
		answer := Answer{At: time.Now(), Err: r.Err}
		if d, early := errors.AsType[decided](r.Err); early {
			answer.At = d.at
		}
		r.Late = r.Late || answer.At.Sub(began) > c.policy.Timeout+c.policy.Lateness
		if ctx.Err() == nil {
			c.last.Store(&answer)
			c.tell(ctx, r)
		}
	})
}

func (c *Check) ended() {
	c.scheduler.mu.Lock()
	defer c.scheduler.mu.Unlock()
	c.cancel()
	c.running, c.cancel = false, nil
}

// queue is a heap of checks, the next due one first.
type queue []*Check

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].position, q[j].position = i, j
}

func (q *queue) Push(x any) {
	c := x.(*Check) //nolint:forcetypeassert // package heap passes what Add gives it
	c.position = len(*q)
	*q = append(*q, c)
}

func (q *queue) Pop() any {
	last := len(*q) - 1
	c := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	c.position = -1
	return c
}
