package relay

import (
	"math"
	"time"
)

// deadline is the deadline of a call, on the relay's clock, if the client has set one.
type deadline struct {
	at  time.Duration
	set bool
}

// deadlineAfter returns the deadline of a call that began at began and may take timeout.
func deadlineAfter(began, timeout time.Duration) deadline {
	return deadline{began + min(timeout, math.MaxInt64-began), true}
}

// left returns how long the call may still take. ok is false if it has no deadline.
func (d deadline) left(now time.Duration) (left time.Duration, ok bool) { return d.at - now, d.set }

// passed reports whether the call has a deadline and that has passed.
func (d deadline) passed(now time.Duration) bool { return d.set && now >= d.at }
