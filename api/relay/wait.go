package relay

import (
	"errors"
	"time"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// delay handles a call that no endpoint can take now.
func (k *call) delay(w *work, err error) {
	switch {
	case errors.Is(err, services.ErrBusy):
		k.crowdedOut(w, err.Error())
		return
	case errors.Is(err, services.ErrHopeless):
		k.fail(w, codeUnavailable, err.Error())
		return
	}
	if k.attempts.n > 0 {
		// Wait would call back at once: the registry does not know yet that the endpoints in tried are gone.
		k.pause(w)
		return
	}
	u := callUse{k, k.gen}
	cancel, err := k.service.Wait(k.client.asClient(), func(err error) {
		if err != nil {
			u.giveWay(err)
		} else {
			u.wake(forEndpoint)
		}
	})
	if err != nil {
		k.crowdedOut(w, err.Error())
		return
	}
	k.waitFor(forEndpoint, cancel)
}

// pause makes the call wait for a moment, after which it may try all endpoints again.
func (k *call) pause(w *work) {
	k.attempts.pause()
	u, left := callUse{k, k.gen}, k.waitLeft()
	if left <= 0 {
		k.expired(w)
		return
	}
	if k.service != nil {
		k.service.Paused(1)
	}
	k.waiting.begin(forPause, nil, time.AfterFunc(min(k.waiting.nextPause(), left), func() { u.wake(forPause) }))
}

// waitFor makes the call wait until it is woken, or until it may not wait any longer.
func (k *call) waitFor(kind waitKind, cancel func() bool) {
	u := callUse{k, k.gen}
	k.waiting.begin(kind, cancel, time.AfterFunc(k.waitLeft(), func() { u.expire(kind) }))
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
	case k.waiting.is(forPause) && k.service != nil:
		k.service.Paused(-1)
	}
	k.waiting.end()
}

// callUse is one use of a call. The call may have ended, and be in use for another one, when its turn comes; the methods
// then do nothing.
type callUse struct {
	call *call
	gen  uint32
}

// resume continues a call that has waited for a stream. It returns false if the call has to wait again.
func (u callUse) resume(w *work) bool {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen != u.gen || !k.waiting.is(forStream) {
		return true
	}
	k.place = nil // it has left the queue
	k.stopWaiting()
	k.attempts.undo()
	k.send(w, true)
	k.closeFinished(w)
	return !k.waiting.is(forStream)
}

// displace ends a call that a call of another client has displaced from the queue.
func (u callUse) displace(w *work) {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen == u.gen && k.waiting.is(forStream) {
		k.crowdedOut(w, waitingForStream)
	}
}

// wake continues a call that has waited for an endpoint or for the end of a pause.
func (u callUse) wake(kind waitKind) {
	var w work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.is(kind) {
		k.waiting.fired()
		k.stopWaiting()
		k.dispatch(&w)
		k.closeFinished(&w)
	}
	k.unlock(&w)
	w.do()
}

// giveWay ends a call that has lost its place in the queue for an endpoint.
func (u callUse) giveWay(err error) {
	var w work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.is(forEndpoint) {
		k.crowdedOut(&w, err.Error())
	}
	k.unlock(&w)
	w.do()
}

// expire ends a call that has waited too long.
func (u callUse) expire(kind waitKind) {
	var w work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.is(kind) {
		k.expired(&w)
	}
	k.unlock(&w)
	w.do()
}
