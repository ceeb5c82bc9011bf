package retry

import "time"

const (
	// firstPause and lastPause are the shortest and the longest pause. The supervisor takes some milliseconds to
	// see that a worker has died.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// Wait is the state of a call that waits: for a ready endpoint, for a stream on a connection, or for a pause to
// end. A call has one wait at a time, and may have several, one after the other.
type Wait struct {
	kind   WaitKind
	cancel func() bool // leaves the queue for an endpoint; nil in other waits
	timer  *time.Timer
	since  time.Duration // when the call first waited, on the relay's clock; 0 if never
	pause  time.Duration // length of the last pause
}

// WaitKind is the kind of a wait of a call.
type WaitKind uint8

const (
	notWaiting WaitKind = iota
	ForEndpoint
	ForStream
	ForPause
)

// On reports whether the call waits.
func (w *Wait) On() bool { return w.kind != notWaiting }

// Is reports whether the call waits in that way.
func (w *Wait) Is(kind WaitKind) bool { return w.kind == kind }

// Fired records that the event has happened that the call waits for, so that it has left the queue.
func (w *Wait) Fired() { w.cancel = nil }

// Begin begins a wait. timer ends it at the latest; cancel leaves the queue for an endpoint.
func (w *Wait) Begin(kind WaitKind, cancel func() bool, timer *time.Timer) {
	w.kind, w.cancel, w.timer = kind, cancel, timer
}

// End ends the wait. A timer or an event that has already fired finds that the call is no longer in that wait.
func (w *Wait) End() {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.Begin(notWaiting, nil, nil)
}

// Left returns how long a call with that deadline may still wait. Without a deadline, it may wait for most.
func (w *Wait) Left(now time.Duration, d Deadline, most time.Duration) time.Duration {
	if w.since == 0 {
		w.since = now
	}
	if left, ok := d.Left(now); ok {
		return left
	}
	return most - (now - w.since)
}

// NextPause returns the length of the next pause.
func (w *Wait) NextPause() time.Duration {
	w.pause = min(max(firstPause, 2*w.pause), lastPause)
	return w.pause
}
