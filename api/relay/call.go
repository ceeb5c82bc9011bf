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

// clientSide is the side of a call towards its client: a stream of the client's connection, and the costs of the call
// for the client. The call's lock guards it.
type clientSide struct {
	conn *clientConn // nil if the side is over
	id   uint32
	cost int // bytes that the call itself is counted for
}

// on reports whether the call has that stream of that connection.
func (s *clientSide) on(c *clientConn, id uint32) bool { return s.conn == c && s.id == id }

// stream returns the connection and the stream there, or nil if the side is over.
func (s *clientSide) stream() (*conn, uint32) {
	if s.conn == nil {
		return nil, 0
	}
	return &s.conn.conn, s.id
}

// keep sets the bytes that the call itself is counted for.
func (s *clientSide) keep(cost int) {
	s.conn.account.Keep(peers.Calls, cost-s.cost)
	s.cost = cost
}

// sendHeaders sends a header block to the client.
func (s *clientSide) sendHeaders(w *deferred.Work, list []byte, end bool) {
	s.conn.sendHeaders(w, s.id, list, end)
}

// reset resets the stream. The caller lets the call leave the client.
func (s *clientSide) reset(w *deferred.Work, code http2.ErrCode) { s.conn.reset(w, s.id, code) }

// backendSide is the side of a call towards the backend of its current attempt. It gets a pick first, if the backend is
// an endpoint, then perhaps a place in the queue for a stream, then a stream. The call's lock guards it.
type backendSide struct {
	pick  services.Pick
	pool  *pool                 // of the backend
	place *fair.Waiter[callUse] // in the pool's queue
	share *fair.Share           // of the pool's streams, while the call has one
	conn  *backendConn          // nil if the call has no stream
	id    uint32
}

// on reports whether the call has that stream of that connection.
func (s *backendSide) on(c *backendConn, id uint32) bool { return s.conn == c && s.id == id }

// stream returns the connection and the stream there, or nil if the call has none.
func (s *backendSide) stream() (*conn, uint32) {
	if s.conn == nil {
		return nil, 0
	}
	return &s.conn.conn, s.id
}

// reset resets the stream. The caller lets the call leave the backend.
func (s *backendSide) reset(w *deferred.Work, code http2.ErrCode) { s.conn.reset(w, s.id, code) }

// endPick gives up the pick, if there is one.
func (s *backendSide) endPick(o services.Outcome) {
	s.pick.End(o)
	s.pick = services.Pick{}
}

// request is the part of a call's request, besides its data, that is needed after it has arrived.
type request struct {
	began      time.Duration // when the headers arrived
	deadline   retry.Deadline
	idempotent bool      // carries hsu-request-id: may be executed twice
	headers    kept.List // those that are passed on, until the backend has answered
}

// value returns the value of a metadata key. It shares the memory of the headers.
func (q *request) value(key string) string {
	l := headers.Of(q.headers.Bytes())
	value, _ := l.Get(key)
	return value
}

// headersAt returns the headers to send at now: those of the client, with the rest of its timeout if the call has
// waited here or is sent again.
func (q *request) headersAt(now time.Duration, again bool) []byte {
	left, ok := q.deadline.Left(now)
	if !ok || now-q.began < time.Millisecond && !again {
		return q.headers.Bytes()
	}
	var out headers.List
	l := headers.Of(q.headers.Bytes())
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
