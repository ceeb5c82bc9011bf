package relay

import (
	"errors"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// delay handles a call that no endpoint can take now.
func (k *call) delay(w *deferred.Work, err error) {
	switch {
	case errors.Is(err, services.ErrBusy):
		k.crowdedOut(w, err.Error())
		return
	case errors.Is(err, services.ErrHopeless):
		k.fail(w, protocol.CodeUnavailable, err.Error())
		return
	}
	if k.attempts.Any() {
		// Wait would call back at once: the registry does not know yet that the endpoints in tried are gone.
		k.pause(w)
		return
	}
	u := callUse{k, k.gen}
	cancel, err := k.service.Wait(k.client.asClient(), func(err error) {
		if err != nil {
			u.giveWay(err)
		} else {
			u.wake(retry.ForEndpoint)
		}
	})
	if err != nil {
		k.crowdedOut(w, err.Error())
		return
	}
	k.waitFor(retry.ForEndpoint, cancel)
}

// pause makes the call wait for a moment, after which it may try all endpoints again.
func (k *call) pause(w *deferred.Work) {
	k.attempts.Pause()
	u, left := callUse{k, k.gen}, k.waitLeft()
	if left <= 0 {
		k.expired(w)
		return
	}
	if k.service != nil {
		k.service.Paused(1)
	}
	k.waiting.Begin(retry.ForPause, nil, time.AfterFunc(min(k.waiting.NextPause(), left), func() { u.wake(retry.ForPause) }))
}

// waitFor makes the call wait until it is woken, or until it may not wait any longer.
func (k *call) waitFor(kind retry.WaitKind, cancel func() bool) {
	u := callUse{k, k.gen}
	k.waiting.Begin(kind, cancel, time.AfterFunc(k.waitLeft(), func() { u.expire(kind) }))
}

// waitLeft returns how long the call may still wait.
func (k *call) waitLeft() time.Duration {
	return k.waiting.Left(k.relay.now(), k.deadline, k.relay.opts.MaxWait)
}

// stopWaiting ends the call's wait, and gives up its place in the queue for a stream.
func (k *call) stopWaiting() {
	switch {
	case k.place != nil:
		k.pool.forget(k)
	case k.waiting.Is(retry.ForPause) && k.service != nil:
		k.service.Paused(-1)
	}
	k.waiting.End()
}

// callUse is one use of a call. The call may have ended, and be in use for another one, when its turn comes; the methods
// then do nothing.
type callUse struct {
	call *call
	gen  uint32
}

// resume continues a call that has waited for a stream. It returns false if the call has to wait again.
func (u callUse) resume(w *deferred.Work) bool {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen != u.gen || !k.waiting.Is(retry.ForStream) {
		return true
	}
	k.place = nil // it has left the queue
	k.stopWaiting()
	k.attempts.Undo()
	k.attempt(w, true)
	k.closeFinished(w)
	return !k.waiting.Is(retry.ForStream)
}

// displace ends a call that a call of another client has displaced from the queue.
func (u callUse) Displace(w *deferred.Work) {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen == u.gen && k.waiting.Is(retry.ForStream) {
		k.crowdedOut(w, waitingForStream)
	}
}

// wake continues a call that has waited for an endpoint or for the end of a pause.
func (u callUse) wake(kind retry.WaitKind) {
	var w deferred.Work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.Is(kind) {
		k.waiting.Fired()
		k.stopWaiting()
		k.dispatch(&w)
		k.closeFinished(&w)
	}
	k.unlock(&w)
	w.Do()
}

// giveWay ends a call that has lost its place in the queue for an endpoint.
func (u callUse) giveWay(err error) {
	var w deferred.Work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.Is(retry.ForEndpoint) {
		k.crowdedOut(&w, err.Error())
	}
	k.unlock(&w)
	w.Do()
}

// expire ends a call that has waited too long.
func (u callUse) expire(kind retry.WaitKind) {
	var w deferred.Work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.Is(kind) {
		k.expired(&w)
	}
	k.unlock(&w)
	w.Do()
}
