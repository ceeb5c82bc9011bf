package relay

import (
	"errors"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
	"golang.org/x/net/http2"
)

// backendReset handles RST_STREAM from the backend.
func (k *call) backendReset(w *deferred.Work, code http2.ErrCode) {
	unseen := code == http2.ErrCodeRefusedStream
	k.attempts.Failure = "the server refused the call"
	k.code = protocol.CodeOfReset(code)
	k.broken = !unseen && code != http2.ErrCodeCancel && code != http2.ErrCodeEnhanceYourCalm
	if (unseen || k.code == protocol.CodeUnavailable) && k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	if k.client.conn == nil {
		return
	}
	if unseen && k.response == awaited {
		k.fail(w, protocol.CodeUnavailable, "the server refused the call")
		return
	}
	code = protocol.ResetOf(code)
	k.code = protocol.CodeOfReset(code)
	k.client.reset(w, code)
	k.leaveClient(w)
}

// goneReason is the reason of a call whose backend has announced that it shuts down.
const goneReason = "the server is shutting down"

// backendLost handles the end of the backend's connection. unseen means that the backend cannot have seen the call,
// answered that it has answered calls on this connection.
func (k *call) backendLost(w *deferred.Work, unseen, answered bool, reason string) {
	k.code, k.broken = protocol.CodeUnavailable, !(unseen && reason == goneReason)
	k.attempts.Failure = reason
	if unseen && reason == goneReason && answered && k.waitLeft() > 0 {
		k.attempts.Forgive()
	}
	if k.again(w, unseen) {
		return
	}
	k.leaveBackend(w, services.Outcome{})
	k.fail(w, protocol.CodeUnavailable, reason)
}

// again retries the call if that is safe. It returns false if the failure is final.
func (k *call) again(w *deferred.Work, unseen bool) bool {
	if k.client.conn == nil || k.env.closing.Load() {
		return false
	}
	again, budget := retry.MayTryAgain(retry.Failed{
		Unseen: unseen, Idempotent: k.request.idempotent, Started: k.response != awaited,
		Whole: k.up.q.Keep && k.request.headers.Kept(), Attempts: k.attempts.All,
	})
	if !again || budget && (k.route.service == nil || !k.route.service.Retry()) {
		return false
	}
	k.leaveBackend(w, services.Outcome{Retried: true, Unseen: unseen})
	k.up.replay += k.up.q.Kept
	k.up.q.Rewind()
	k.up.endSent = false
	k.code, k.broken = 0, false
	if k.attempts.MustPause() {
		k.pause(w)
	} else {
		k.dispatch(w)
	}
	return true
}

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
	cancel, err := k.route.service.Wait(k.client.conn.asClient(), func(err error) {
		if err != nil { // the call has lost its place in the queue
			u.event(retry.ForEndpoint, func(k *call, w *deferred.Work) { k.crowdedOut(w, err.Error()) })
		} else {
			u.event(retry.ForEndpoint, (*call).woken)
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
	if k.route.service != nil {
		k.route.service.Paused(1)
	}
	timer := time.AfterFunc(min(k.waiting.NextPause(), left), func() { u.event(retry.ForPause, (*call).woken) })
	k.waiting.Begin(retry.ForPause, nil, timer)
}

// waitFor makes the call wait until it is woken, or until it may not wait any longer.
func (k *call) waitFor(kind retry.WaitKind, cancel func() bool) {
	u := callUse{k, k.gen}
	k.waiting.Begin(kind, cancel, time.AfterFunc(k.waitLeft(), func() { u.event(kind, (*call).expired) }))
}

// resume continues a call that has waited for a stream. It returns false if the call has to wait again.
func (u callUse) resume(w *deferred.Work) bool {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen != u.gen || !k.waiting.Is(retry.ForStream) {
		return true
	}
	k.backend.place = nil // it has left the queue
	k.stopWaiting()
	k.attempts.Undo()
	k.attempt(w, true)
	k.closeFinished(w)
	return !k.waiting.Is(retry.ForStream)
}

// Displace ends a call that a call of another client has displaced from the queue.
func (u callUse) Displace(w *deferred.Work) {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen == u.gen && k.waiting.Is(retry.ForStream) {
		k.crowdedOut(w, waitingForStream)
	}
}

// event calls do, unless the call has ended or no longer waits in that way. No lock is held.
func (u callUse) event(kind retry.WaitKind, do func(k *call, w *deferred.Work)) {
	var w deferred.Work
	k := u.call
	k.mu.Lock()
	if k.gen == u.gen && k.waiting.Is(kind) {
		do(k, &w)
	}
	k.unlock(&w)
	w.Do()
}

// woken continues a call that has waited for an endpoint or for the end of a pause.
func (k *call) woken(w *deferred.Work) {
	k.waiting.Fired()
	k.stopWaiting()
	k.dispatch(w)
	k.closeFinished(w)
}
