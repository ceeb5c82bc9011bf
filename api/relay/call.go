package relay

import (
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/kept"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/internal/fair"
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

	// The two sides are nil if they are over, or not there yet.
	client              *clientConn
	backend             *backendConn
	clientID, backendID uint32
	up, down            flow

	route    route
	pick     services.Pick         // of an endpoint
	pool     *pool                 // of the current attempt
	place    *fair.Waiter[callUse] // in the pool's queue
	share    *fair.Share           // of the pool's streams, while the call has one
	request  kept.List             // the headers, until the backend has answered
	affinity span                  // position in request of the value that chooses the endpoint
	attempts retry.Attempts

	began    time.Duration
	deadline retry.Deadline
	waiting  retry.Wait

	idempotent bool // carries hsu-request-id: may be executed twice
	count      countState
	response   response
	broken     bool // the endpoint is to blame
	code       uint32
	cost       int          // bytes that the call itself is counted for
	about      *report.Call // for the log; nil unless each call is logged
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

// span is a range of a buffer.
type span struct{ from, to int }

var calls = sync.Pool{New: func() any {
	k := &call{}
	k.up.init(k)
	k.down.init(k)
	return k
}}

// unlock unlocks the call, and returns it to the pool if nothing uses it any more.
func (k *call) unlock(w *deferred.Work) {
	if k.client != nil || k.backend != nil || k.count != notCounting || k.waiting.On() || k.env == nil {
		k.mu.Unlock()
		return
	}
	if k.about != nil {
		k.env.log.Call(k.about, k.code, k.now()-k.began, k.attempts.All)
	}
	k.free()
	k.mu.Unlock()
	calls.Put(k)
}

// now returns the time on the relay's clock.
func (k *call) now() time.Duration { return k.env.now() }

// asClient identifies the call's client to package fair.
func (k *call) asClient() fair.Client { return k.client.asClient() }

// account returns the account of the client's connection.
func (k *call) account() *peers.Account { return k.client.account }

// clientName returns the header list that names the client to the local server.
func (k *call) clientName() []byte { return k.client.name }

// clientAddress returns the client's address.
func (k *call) clientAddress() string { return k.client.address() }

// attach makes the call that of a client's new stream, whose initial window is window. end means that the request has
// no data.
func (k *call) attach(c *clientConn, id uint32, window int, end bool) {
	k.env, k.client, k.clientID = c.env, c, id
	k.began = k.now()
	k.keepCost(callCost)
	k.up.recvLeft, k.up.window = frames.FirstWindow, frames.FirstWindow
	k.down.recvLeft, k.down.window = frames.FirstWindow, frames.FirstWindow
	k.down.sendLeft = window
	k.up.ended = end
}

// keepCost counts what the call itself costs the client.
func (k *call) keepCost(cost int) {
	k.client.account.Keep(peers.Calls, cost-k.cost)
	k.cost = cost
}

// pools returns the pools to which the client's calls go.
func (k *call) pools() *pools { return k.client.pools }

// closing reports whether the relay is closing.
func (k *call) closing() bool { return k.env.closing.Load() }

// free resets the call for its next use.
func (k *call) free() {
	k.env = nil
	k.gen++
	k.client, k.backend, k.clientID, k.backendID = nil, nil, 0, 0
	k.up.empty()
	k.down.empty()
	k.route, k.pick, k.pool, k.place, k.share = route{}, services.Pick{}, nil, nil, nil
	k.request, k.affinity, k.attempts = kept.List{}, span{}, retry.Attempts{}
	k.began, k.deadline, k.waiting = 0, retry.Deadline{}, retry.Wait{}
	k.idempotent, k.count, k.response, k.broken = false, notCounting, awaited, false
	k.code, k.cost, k.about = 0, 0, nil
}

// clientStream returns the client's connection and the stream there, or nil if that side is over.
func (k *call) clientStream() (*conn, uint32) {
	if k.client == nil {
		return nil, 0
	}
	return &k.client.conn, k.clientID
}

// backendStream returns the backend's connection and the stream there, or nil if that side is over or not there yet.
func (k *call) backendStream() (*conn, uint32) {
	if k.backend == nil {
		return nil, 0
	}
	return &k.backend.conn, k.backendID
}

// endPick gives up the call's pick, if it has one.
func (k *call) endPick(o services.Outcome) {
	k.pick.End(o)
	k.pick = services.Pick{}
}

// kept returns the bytes that the call keeps for its client.
func (k *call) kept() int {
	return k.cost + k.up.counted + k.down.counted + len(k.request.Bytes()) + len(k.down.trailers.Bytes())
}

// timeoutLeft returns the headers to send: those of the client, with the rest of its timeout if the call has waited
// here or is sent again.
func (k *call) timeoutLeft() []byte {
	now := k.now()
	left, ok := k.deadline.Left(now)
	if !ok || now-k.began < time.Millisecond && k.attempts.All <= 1 {
		return k.request.Bytes()
	}
	var out headers.List
	l := headers.Of(k.request.Bytes())
	for f := range l.All {
		if f.Name() == "grpc-timeout" {
			var text [12]byte
			out.AddBytes("grpc-timeout", protocol.AppendTimeout(text[:0], left))
			continue
		}
		out.AddField(f)
	}
	return out.Bytes()
}

// sendHeaders sends a header block to the client.
func (k *call) sendHeaders(w *deferred.Work, list []byte, end bool) {
	k.client.sendHeaders(w, k.clientID, list, end)
}

// sendInterim sends the headers of an interim response to the client.
func (k *call) sendInterim(w *deferred.Work, list []byte) { k.client.sendInterim(w, k.clientID, list) }

// blame charges the client for the end of the call's stream, which has that age.
func (k *call) blame(age time.Duration) { k.client.blame(age) }

// charge charges the client for a call that is refused, since that is as much work as one that the client resets.
func (k *call) charge() { k.client.account.Refused(k.now()) }

// faultOfClient resets the client's stream for a fault of the client, and charges the client for it.
func (k *call) faultOfClient(w *deferred.Work, code http2.ErrCode) {
	k.client.streamError(w, k.clientID, code)
}

// limited logs that a limit acts on the client.
func (k *call) limited(limit string) { k.env.log.Limited(limit, k.client.account.Peer()) }

// takeGrowth takes n bytes from the budget by which the windows of the client's streams may grow, if there are as many.
func (k *call) takeGrowth(n int, upward bool) bool {
	if k.client == nil || upward && k.client.backlog.queued() >= budgetUp/2 || !k.client.backlog.grow(n) {
		return false
	}
	return true
}

// mayReplay reports whether the call may keep a part of its request for a second attempt.
func (k *call) mayReplay() bool { return !k.client.backlog.dropReplay() }

// keepData counts n more bytes of data for the client, and continues a client that was stopped because of them.
func (k *call) keepData(w *deferred.Work, n int) {
	k.client.account.Keep(peers.Data, n)
	k.client.goOn(w)
}

// dropReplay frees the part of the request that is kept for a second attempt.
func (k *call) dropReplay(w *deferred.Work) {
	if k.up.q.Kept > 0 {
		k.up.q.Release()
		k.up.account(w)
	}
}

// waitLeft returns how long the call may still wait.
func (k *call) waitLeft() time.Duration {
	return k.waiting.Left(k.now(), k.deadline, k.env.opts.MaxWait)
}

// stopWaiting ends the call's wait, and gives up its place in the queue for a stream.
func (k *call) stopWaiting() {
	switch {
	case k.place != nil:
		k.pool.forget(k)
	case k.waiting.Is(retry.ForPause) && k.route.service != nil:
		k.route.service.Paused(-1)
	}
	k.waiting.End()
}

// keepTrailers keeps the trailers that end the response, unless the client is gone.
func (k *call) keepTrailers(l *headers.List) {
	k.down.trailers.Drop()
	if k.client != nil {
		k.down.trailers.Keep(k.client.account, peers.Trailers, l)
	}
}

// closeFinished ends the sides of the call whose flows have ended. It is called after everything that may end a flow.
func (k *call) closeFinished(w *deferred.Work) {
	if k.backend != nil && k.down.ended {
		if !k.up.endSent {
			k.resetBackend(w, http2.ErrCodeNo)
		}
		k.leaveBackend(w, services.Outcome{})
	}
	if k.client != nil && k.down.endSent {
		if !k.up.ended {
			// The client need not send the rest.
			k.resetClient(w, http2.ErrCodeNo)
		}
		k.leaveClient(w)
	}
	if k.client == nil && k.backend != nil {
		k.resetBackend(w, http2.ErrCodeCancel)
		k.leaveBackend(w, services.Outcome{})
	}
}

// leaveBackend ends the backend's side, whose last frame has been appended or has arrived, and gives up the pick. o is
// the outcome to report for the endpoint, without code and failure.
func (k *call) leaveBackend(w *deferred.Work, o services.Outcome) {
	c := k.backend
	suspect := c.closeStream(w, &k.up, k.backendID)
	o.Code, o.Failed = k.code, k.broken || suspect
	k.share.Release()
	k.share = nil
	if c.pool.wanted.Load() {
		w.Wake(c.pool)
	}
	k.backend = nil
	k.endPick(o)
}

// leaveClient ends the client's side, whose last frame has been appended or has arrived.
func (k *call) leaveClient(w *deferred.Work) {
	c := k.client
	k.up.q.Keep = false
	k.up.q.Clear()
	k.down.q.Clear()
	k.up.account(w)
	k.down.account(w)
	k.request.Drop()
	k.down.trailers.Drop()
	c.closeStream(w, k, k.up.grown+k.down.grown, k.up.ended, k.up.recvLeft)
	k.cost = 0
	k.client = nil
	k.stopWaiting()
	if k.backend == nil {
		k.endPick(services.Outcome{Code: k.code, Unseen: true})
	}
}

// callUse is one use of a call. The call may have ended, and be in use for another one, when its turn comes; the
// methods then do nothing.
type callUse struct {
	call *call
	gen  uint32
}
