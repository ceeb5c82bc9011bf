package retry

import (
	"math"
	"time"
)

// Deadline is the deadline of a call, on the relay's clock, if the client has set one.
type Deadline struct {
	at  time.Duration
	set bool
}

// DeadlineAfter returns the deadline of a call that began at began and may take timeout.
func DeadlineAfter(began, timeout time.Duration) Deadline {
	return Deadline{began + min(timeout, math.MaxInt64-began), true}
}

// Left returns how long the call may still take. ok is false if it has no deadline.
func (d Deadline) Left(now time.Duration) (left time.Duration, ok bool) { return d.at - now, d.set }

// Passed reports whether the call has a deadline and that has passed.
func (d Deadline) Passed(now time.Duration) bool { return d.set && now >= d.at }
