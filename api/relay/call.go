package relay

import (
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
	"golang.org/x/net/http2"
)

// callCost and localCost are the bytes that a call itself costs: a call to an endpoint, and a call to the master's
// own server, which has a goroutine and buffers for it (measured: 12.6 KB).
const (
	callCost  = 1 << 10
	localCost = 16 << 10
)

// call is one call: the client's stream, the backend's stream, and the data that flows between them. Calls are
// pooled. Code that gets a pointer to a call from a table locks mu and then checks that the call still belongs to
// that stream. unlock returns the call to the pool when nothing uses it any more.
type call struct {
	mu  sync.Mutex
	env *env
	gen uint32 // number of uses

	client   clientSide
	backend  backendSide
	up, down flow

	request  request
	route    route
	attempts retry.Attempts
	waiting  retry.Wait

	count    countState
	response response
	broken   bool // the endpoint is to blame
	code     uint32
	about    *report.Call // for the log; nil unless each call is logged
}

// response is the part of the response that has been passed on to the client.
type response uint8

const (
	awaited       response = iota // nothing: the call may be sent to another endpoint
	grpcResponse                  // headers of gRPC
	plainResponse                 // headers that are HTTP, but not gRPC
)

// countState is the state of the count of one call.
type countState uint8

const (
	notCounting  countState = iota
	beingCounted            // Count has been called, and the trailers are held back until it calls Counted
	outdated                // Count has been called, but the call has failed meanwhile, and nothing is held back
)

var calls = sync.Pool{New: func() any {
	k := &call{}
	k.up.init(k)
	k.down.init(k)
	return k
}}

// unlock unlocks the call, and returns it to the pool if nothing uses it any more.
func (k *call) unlock(w *deferred.Work) {
	if k.client.conn != nil || k.backend.conn != nil || k.count != notCounting || k.waiting.On() || k.env == nil {
		k.mu.Unlock()
		return
	}
	if k.about != nil {
		k.env.log.Call(k.about, k.code, k.env.now()-k.request.began, k.attempts.All)
	}
	k.free()
	k.mu.Unlock()
	calls.Put(k)
}

// attach makes the call that of a client's new stream, whose initial window is window. end means that the request has
// no data.
func (k *call) attach(c *clientConn, id uint32, window int, end bool) {
	k.env = c.env
	k.client.conn, k.client.id = c, id
	k.client.keep(callCost)
	k.request.began = k.env.now()
	k.up.recvLeft, k.up.window = frames.FirstWindow, frames.FirstWindow
	k.down.recvLeft, k.down.window = frames.FirstWindow, frames.FirstWindow
	k.down.sendLeft = window
	k.up.ended = end
}

// free resets the call for its next use.
func (k *call) free() {
	k.env = nil
	k.gen++
	k.client, k.backend = clientSide{}, backendSide{}
	k.up.empty()
	k.down.empty()
	k.request, k.route, k.attempts, k.waiting = request{}, route{}, retry.Attempts{}, retry.Wait{}
	k.count, k.response, k.broken, k.code, k.about = notCounting, awaited, false, 0, nil
}

// kept returns the bytes that the call keeps for its client.
func (k *call) kept() int {
	return k.client.cost + k.up.counted + k.down.counted + len(k.request.headers.Bytes()) + len(k.down.trailers.Bytes())
}

// waitLeft returns how long the call may still wait.
func (k *call) waitLeft() time.Duration {
	return k.waiting.Left(k.env.now(), k.request.deadline, k.env.opts.MaxWait)
}

// stopWaiting ends the call's wait, and gives up its place in the queue for a stream.
func (k *call) stopWaiting() {
	switch {
	case k.backend.place != nil:
		k.backend.pool.forget(k)
	case k.waiting.Is(retry.ForPause) && k.route.service != nil:
		k.route.service.Paused(-1)
	}
	k.waiting.End()
}

// closeFinished ends the sides of the call whose flows have ended. It is called after everything that may end a flow.
func (k *call) closeFinished(w *deferred.Work) {
	if k.backend.conn != nil && k.down.ended {
		if !k.up.endSent {
			k.backend.reset(w, http2.ErrCodeNo)
		}
		k.leaveBackend(w, services.Outcome{})
	}
	if k.client.conn != nil && k.down.endSent {
		if !k.up.ended {
			// The client need not send the rest.
			k.client.reset(w, http2.ErrCodeNo)
		}
		k.leaveClient(w)
	}
	if k.client.conn == nil && k.backend.conn != nil {
		k.backend.reset(w, http2.ErrCodeCancel)
		k.leaveBackend(w, services.Outcome{})
	}
}

// leaveBackend ends the backend's side, whose last frame has been appended or has arrived, and gives up the pick. o is
// the outcome to report for the endpoint, without code and failure.
func (k *call) leaveBackend(w *deferred.Work, o services.Outcome) {
	b := &k.backend
	suspect := b.conn.closeStream(w, &k.up, b.id)
	o.Code, o.Failed = k.code, k.broken || suspect
	b.share.Release()
	b.share = nil
	if b.pool.wanted.Load() {
		w.Wake(b.pool)
	}
	b.conn = nil
	b.endPick(o)
}

// leaveClient ends the client's side, whose last frame has been appended or has arrived.
func (k *call) leaveClient(w *deferred.Work) {
	k.up.q.Keep = false
	k.up.q.Clear()
	k.down.q.Clear()
	k.up.account(w)
	k.down.account(w)
	k.request.headers.Drop()
	k.down.trailers.Drop()
	k.client.keep(0)
	k.client.conn.closeStream(w, k.client.id, &k.up, &k.down)
	k.client.conn = nil
	k.stopWaiting()
	if k.backend.conn == nil {
		k.backend.endPick(services.Outcome{Code: k.code, Unseen: true})
	}
}

// callUse is one use of a call. The call may have ended, and be in use for another one, when its turn comes; the
// methods then do nothing.
type callUse struct {
	call *call
	gen  uint32
}
