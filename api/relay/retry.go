package relay

import (
	"errors"
	"time"
	"unsafe"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// mostAttempts of one call, one after the other. A call that no endpoint can have seen is paused after these, and
	// begins anew.
	mostAttempts = 3
	// firstPause and lastPause are how long: a worker that has died takes the supervisor some milliseconds to see.
	firstPause = 5 * time.Millisecond
	lastPause  = 250 * time.Millisecond
)

const goneReason = "the server is shutting down"

// waiting is the state of a call that waits: for an endpoint to become ready, or for a stream on a connection.
type waiting struct {
	kind   waitKind
	cancel func() bool
	timer  *time.Timer
}

type waitKind uint8

const (
	notWaiting waitKind = iota
	forEndpoint
	forStream
	forPause
)

func (w *waiting) on() bool { return w.kind != notWaiting }

// failed is what is known of a call when an attempt has failed.
type failed struct {
	unseen   bool // the endpoint cannot have seen the call
	marked   bool // it may be done twice
	started  bool // something of the answer has been passed on
	whole    bool // all that was sent of the request is still here
	attempts int  // so far, this one included
}

// mayTryAgain decides whether a call may be sent once more. budget: only if the service's budget allows it.
func mayTryAgain(f failed) (again, budget bool) {
	if f.started || !f.whole || !f.unseen && (!f.marked || f.attempts >= mostAttempts) {
		return false, false
	}
	// What was not seen has cost an endpoint nothing, so that a second try adds no load to what is overloaded.
	return true, !f.unseen
}

// again sends the call once more where that is safe. It returns false where the failure stands.
func (k *call) again(b *batch, unseen bool) bool {
	again, budget := mayTryAgain(failed{
		unseen: unseen, marked: k.marked, started: k.started, whole: k.up.q.keep && k.request != nil, attempts: k.tries,
	})
	if !again || k.client == nil || k.relay.closing.Load() || budget && (k.service == nil || !k.service.Retry()) {
		return false
	}
	k.quitBackend(b, services.Outcome{Code: k.code, Failed: k.broken, Retried: true, Unseen: unseen})
	k.up.replay += k.up.q.kept
	k.up.q.rewind()
	k.up.endSent = false
	k.code, k.broken = 0, false
	if k.attempts >= mostAttempts {
		k.pause(b)
	} else {
		k.dispatch(b)
	}
	return true
}

// dispatch sends the call to an endpoint, or lets it wait, or ends it.
func (k *call) dispatch(b *batch) {
	if k.service == nil {
		k.pool = k.relay.local
		k.send(b)
		return
	}
	key := ""
	if k.affinity != (span{}) {
		value := k.request.b[k.affinity.from:k.affinity.to]
		key = unsafe.String(unsafe.SliceData(value), len(value))
	}
	lease, err := k.service.Lease(key, k.tried[:k.attempts]...)
	if err != nil {
		k.delay(b, err)
		return
	}
	k.lease = lease
	k.tried[k.attempts] = lease.Endpoint()
	k.pool = k.relay.poolOf(lease.Endpoint(), nil)
	if k.about != nil {
		k.about.endpoint = lease.Endpoint()
	}
	k.send(b)
}

// send opens a stream for the call.
func (k *call) send(b *batch) {
	k.attempts++
	k.tries++
	opening := k.pool.open(b, k)
	for opening == stale {
		k.pool = k.relay.poolOf(k.pool.endpoint, k.pool)
		opening = k.pool.open(b, k)
	}
	switch opening {
	case opened, stale:
		k.up.pump(b)
	case queued:
		k.waitFor(forStream, nil)
	case overfull:
		k.fail(b, codeResourceExhausted, "too many calls wait for a connection")
	}
}

// delay handles that no endpoint can take the call now.
func (k *call) delay(b *batch, err error) {
	switch {
	case errors.Is(err, services.ErrBusy):
		k.fail(b, codeResourceExhausted, err.Error())
		return
	case errors.Is(err, services.ErrHopeless):
		k.fail(b, codeUnavailable, err.Error())
		return
	}
	if k.attempts > 0 {
		// It would not have to wait: the registry does not know yet that those which were tried are not there.
		k.pause(b)
		return
	}
	gen := k.gen
	cancel, err := k.service.Wait(func() { k.resume(gen, forEndpoint) })
	if err != nil {
		k.fail(b, codeResourceExhausted, err.Error())
		return
	}
	k.waitFor(forEndpoint, cancel)
}

// pause lets the call wait for a moment, after which it may try all endpoints again.
func (k *call) pause(b *batch) {
	k.tried, k.attempts = [mostAttempts]*services.Endpoint{}, 0
	gen, left := k.gen, k.waitLeft()
	if left <= 0 {
		k.expired(b)
		return
	}
	if k.service != nil {
		k.service.Paused(1)
	}
	k.pauses = min(max(firstPause, 2*k.pauses), lastPause)
	k.waiting = waiting{kind: forPause, timer: time.AfterFunc(min(k.pauses, left), func() { k.resume(gen, forPause) })}
}

// waitFor lets the call wait until somebody lets it go on, or for as long as it may.
func (k *call) waitFor(kind waitKind, cancel func() bool) {
	gen := k.gen
	k.waiting = waiting{kind, cancel, time.AfterFunc(k.waitLeft(), func() { k.expire(gen, kind) })}
}

// waitLeft is how long the call may still wait here.
func (k *call) waitLeft() time.Duration {
	now := k.relay.now()
	if k.waited == 0 {
		k.waited = now
	}
	if k.timeout > 0 {
		return k.timeout - (now - k.began)
	}
	return k.relay.opts.MaxWait - (now - k.waited)
}

// stopWaiting ends a wait that is over before its time.
func (k *call) stopWaiting() {
	if k.waiting.kind == forStream {
		k.pool.forget(k)
	}
	k.endWaiting()
}

func (k *call) endWaiting() {
	if k.waiting.timer != nil {
		k.waiting.timer.Stop()
	}
	if k.waiting.cancel != nil {
		k.waiting.cancel()
	}
	if k.waiting.kind == forPause && k.service != nil {
		k.service.Paused(-1)
	}
	k.waiting = waiting{}
}

// resume lets a call go on that has waited. It does nothing where the call does so no more.
func (k *call) resume(gen uint32, kind waitKind) {
	var b batch
	k.mu.Lock()
	if k.gen == gen && k.waiting.kind == kind {
		k.waiting.cancel = nil
		k.stopWaiting()
		k.dispatch(&b)
		k.settle(&b)
	}
	k.unlock(&b)
	b.flush()
}

// expire ends a call that has waited too long.
func (k *call) expire(gen uint32, kind waitKind) {
	var b batch
	k.mu.Lock()
	if k.gen == gen && k.waiting.kind == kind {
		k.expired(&b)
	}
	k.unlock(&b)
	b.flush()
}

// expired answers a call that has waited for as long as it may.
func (k *call) expired(b *batch) {
	code, message := uint32(codeUnavailable), "no server became ready in time"
	if k.timeout > 0 && k.relay.now()-k.began >= k.timeout {
		code, message = codeDeadlineExceeded, "no server became ready before the deadline"
	}
	if k.lastFailure != "" {
		message += ": " + k.lastFailure
	}
	k.fail(b, code, message)
}

// timeoutLeft returns the headers that are sent: those of the client, with what is left of its timeout where the call
// has waited here or is sent again.
func (k *call) timeoutLeft() []byte {
	waited := k.relay.now() - k.began
	if k.timeout == 0 || waited < time.Millisecond && k.tries <= 1 {
		return k.request.b
	}
	var out headers.List
	l := headers.Of(k.request.b)
	for f := range l.All {
		if f.Name() == "grpc-timeout" {
			var text [12]byte
			out.AddBytes("grpc-timeout", appendTimeout(text[:0], k.timeout-waited))
			continue
		}
		out.AddField(f)
	}
	return out.Bytes()
}
