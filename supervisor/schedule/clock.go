package schedule

import (
	"context"
	"sync"
	"time"
)

const (
	// maxWait is the longest time for which a Clock does not look at the time: it notices within it that the clock was
	// set, or that the machine slept.
	maxWait = time.Minute
	// stepped is the smallest step of the clock that is noticed.
	stepped = time.Second
)

// Clock notices that the due times of any number of alarms have come, with one timer. The methods of a Clock and of its
// alarms may be called from any goroutine.
type Clock struct {
	now  func() time.Time // the wall clock
	wake chan struct{}    // the next due time may be sooner

	mu     sync.Mutex
	alarms map[*Alarm]struct{} // those that are set
}

// NewClock returns a clock without alarms. now is the wall clock; nil means that of the machine.
func NewClock(now func() time.Time) *Clock {
	if now == nil {
		now = time.Now
	}
	return &Clock{now: now, wake: make(chan struct{}, 1), alarms: map[*Alarm]struct{}{}}
}

// Now returns the time on the wall.
func (c *Clock) Now() time.Time { return c.now().Round(0).UTC() }

// Alarm is one due time of a [Clock].
type Alarm struct {
	clock *Clock
	c     chan struct{}
	due   time.Time
}

// NewAlarm returns an alarm that is not set.
func (c *Clock) NewAlarm() *Alarm { return &Alarm{clock: c, c: make(chan struct{}, 1)} }

// C returns the channel that gets a value when the alarm has gone off: its time has come, or the clock was set. Whether
// it is time is for the receiver to see, which sets the alarm again.
func (a *Alarm) C() <-chan struct{} { return a.c }

// Set makes due the time of the alarm. The zero time stops it.
func (a *Alarm) Set(due time.Time) {
	c := a.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	a.due = due
	if due.IsZero() {
		delete(c.alarms, a)
		return
	}
	c.alarms[a] = struct{}{}
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Serve sets off the alarms until ctx ends.
func (c *Clock) Serve(ctx context.Context) {
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	for wall, since := c.Now(), time.Now(); ; {
		now, elapsed, set := c.Now(), time.Since(since), false
		if elapsed >= stepped { // a clock that is set all the time must not keep the workers busy
			set = now.Sub(wall.Add(elapsed)).Abs() >= stepped
			wall, since = now, time.Now()
		}
		if wait, more := c.ring(now, set); more {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-c.wake:
		case <-ctx.Done():
			return
		}
	}
}

// ring sets off the alarms whose time has come, or all, and returns how long to wait for the next one, if there is any.
func (c *Clock) ring(now time.Time, all bool) (wait time.Duration, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = maxWait
	for a := range c.alarms {
		left := a.due.Sub(now)
		if left > 0 && !all {
			wait = min(wait, left)
			continue
		}
		delete(c.alarms, a)
		select {
		case a.c <- struct{}{}:
		default:
		}
	}
	return wait, len(c.alarms) > 0
}
