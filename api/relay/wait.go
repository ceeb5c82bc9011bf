package relay

import (
	"errors"
	"time"

	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// firstPause and lastPause are the shortest and the longest pause. The supervisor takes some milliseconds to
	// see that a worker has died.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

// waiting is the state of a call that waits: for a ready endpoint, for a stream on a connection, or for a pause to
// end. A call has one wait at a time, and may have several, one after the other.
type waiting struct {
	kind   waitKind
	cancel func() bool // leaves the queue for an endpoint; nil in other waits
	timer  *time.Timer
	since  time.Duration // when the call first waited, on the relay's clock; 0 if never
	pause  time.Duration // length of the last pause
}

type waitKind uint8

const (
	notWaiting waitKind = iota
	forEndpoint
	forStream
	forPause
)

func (w *waiting) on() bool { return w.kind != notWaiting }

func (w *waiting) begin(kind waitKind, cancel func() bool, timer *time.Timer) {
	w.kind, w.cancel, w.timer = kind, cancel, timer
}

// end ends the wait. A timer or an event that has already fired finds that the call is no longer in that wait.
func (w *waiting) end() {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.begin(notWaiting, nil, nil)
}

// left returns how long a call with that deadline may still wait. Without a deadline, it may wait for most.
func (w *waiting) left(now time.Duration, d deadline, most time.Duration) time.Duration {
	if w.since == 0 {
		w.since = now
	}
	if d.set {
		return d.at - now
	}
	return most - (now - w.since)
}

// nextPause returns the length of the next pause.
func (w *waiting) nextPause() time.Duration {
	w.pause = min(max(firstPause, 2*w.pause), lastPause)
	return w.pause
}

// delay handles a call that no endpoint can take now.
func (k *call) delay(b *batch, err error) {
	switch {
	case errors.Is(err, services.ErrBusy):
		k.crowdedOut(b, err.Error())
		return
	case errors.Is(err, services.ErrHopeless):
		k.fail(b, codeUnavailable, err.Error())
		return
	}
	if k.attempts.n > 0 {
		// Wait would call back at once: the registry does not know yet that the endpoints in tried are gone.
		k.pause(b)
		return
	}
	w := waiter{k, k.gen}
	cancel, err := k.service.Wait(k.client.asClient(), func(err error) {
		if err != nil {
			w.giveWay(err)
		} else {
			w.wake(forEndpoint)
		}
	})
	if err != nil {
		k.crowdedOut(b, err.Error())
		return
	}
	k.waitFor(forEndpoint, cancel)
}

// pause makes the call wait for a moment, after which it may try all endpoints again.
func (k *call) pause(b *batch) {
	k.attempts.pause()
	w, left := waiter{k, k.gen}, k.waitLeft()
	if left <= 0 {
		k.expired(b)
		return
	}
	if k.service != nil {
		k.service.Paused(1)
	}
	k.waiting.begin(forPause, nil, time.AfterFunc(min(k.waiting.nextPause(), left), func() { w.wake(forPause) }))
}

// waitFor makes the call wait until it is woken, or until it may not wait any longer.
func (k *call) waitFor(kind waitKind, cancel func() bool) {
	w := waiter{k, k.gen}
	k.waiting.begin(kind, cancel, time.AfterFunc(k.waitLeft(), func() { w.expire(kind) }))
}

// waitLeft returns how long the call may still wait.
func (k *call) waitLeft() time.Duration {
	return k.waiting.left(k.relay.now(), k.deadline, k.relay.opts.MaxWait)
}

// stopWaiting ends the call's wait, and gives up its place in the queue for a stream.
func (k *call) stopWaiting() {
	switch {
	case k.place != nil:
		k.pool.forget(k)
	case k.waiting.kind == forPause && k.service != nil:
		k.service.Paused(-1)
	}
	k.waiting.end()
}

// waiter is a use of a call. The call may have ended, and be in use for another one, when its turn comes; the methods
// then do nothing.
type waiter struct {
	call *call
	gen  uint32
}

// resume continues a call that has waited for a stream. It returns false if the call has to wait again.
func (w waiter) resume(b *batch) bool {
	k := w.call
	k.mu.Lock()
	defer k.unlock(b)
	if k.gen != w.gen || k.waiting.kind != forStream {
		return true
	}
	k.place = nil // it has left the queue
	k.stopWaiting()
	k.attempts.undo()
	k.send(b, true)
	k.closeFinished(b)
	return k.waiting.kind != forStream
}

// displace ends a call that a call of another client has displaced from the queue.
func (w waiter) displace(b *batch) {
	k := w.call
	k.mu.Lock()
	defer k.unlock(b)
	if k.gen == w.gen && k.waiting.kind == forStream {
		k.crowdedOut(b, waitingForStream)
	}
}

// wake continues a call that has waited for an endpoint or for the end of a pause.
func (w waiter) wake(kind waitKind) {
	var b batch
	k := w.call
	k.mu.Lock()
	if k.gen == w.gen && k.waiting.kind == kind {
		k.waiting.cancel = nil
		k.stopWaiting()
		k.dispatch(&b)
		k.closeFinished(&b)
	}
	k.unlock(&b)
	b.flush()
}

// giveWay ends a call that has lost its place in the queue for an endpoint.
func (w waiter) giveWay(err error) {
	var b batch
	k := w.call
	k.mu.Lock()
	if k.gen == w.gen && k.waiting.kind == forEndpoint {
		k.crowdedOut(&b, err.Error())
	}
	k.unlock(&b)
	b.flush()
}

// expire ends a call that has waited too long.
func (w waiter) expire(kind waitKind) {
	var b batch
	k := w.call
	k.mu.Lock()
	if k.gen == w.gen && k.waiting.kind == kind {
		k.expired(&b)
	}
	k.unlock(&b)
	b.flush()
}
