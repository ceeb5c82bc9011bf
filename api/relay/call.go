package relay

import (
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// call is one call: the client's stream, the backend's, and what flows between. It is pooled. Whoever has a pointer to
// it from a table locks mu and then looks whether it still is the call of that stream; unlock gives it back when it is
// nobody's any more.
type call struct {
	mu    sync.Mutex
	relay *Relay
	gen   uint32 // counts the uses

	client, backend     *conn // nil where that side is over, or not there yet
	clientID, backendID uint32
	up, down            flow

	service  *services.Service // nil for the local server
	policy   *services.Policy
	lease    services.Lease
	pool     *pool  // of the attempt
	request  *chunk // the headers, until the backend has answered
	affinity span   // of the value in request that chooses the endpoint
	tried    [mostAttempts]*services.Endpoint
	attempts int // at those
	tries    int // in all

	waited      time.Duration // when the call first waited, on the relay's clock; 0: never
	pauses      time.Duration // the last pause
	lastFailure string

	began   time.Duration
	timeout time.Duration // as the client gave it; 0: none
	waiting waiting

	marked   bool // carries hsu-request-id: may be done twice
	counts   bool // is to be counted before it is acknowledged
	started  bool // headers of the answer have been passed on
	plain    bool // the answer is HTTP, but not gRPC's
	counting bool // Count has been called and has not answered yet
	holding  bool // the trailers are held back
	broken   bool // the endpoint is to blame
	code     uint32
	about    *about // for the log, where that wants a line for each call
}

// span of a buffer.
type span struct{ from, to int }

var calls = sync.Pool{New: func() any {
	k := &call{}
	k.up.call, k.down.call = k, k
	return k
}}

// unlock unlocks the call, and gives it back where nothing is left of it.
func (k *call) unlock(b *batch) {
	if k.client != nil || k.backend != nil || k.counting || k.waiting.on() || k.relay == nil {
		k.mu.Unlock()
		return
	}
	k.report()
	k.free()
	k.mu.Unlock()
	calls.Put(k)
}

// free empties the call.
func (k *call) free() {
	k.relay = nil
	k.gen++
	k.client, k.backend, k.clientID, k.backendID = nil, nil, 0, 0
	k.up.empty()
	k.down.empty()
	k.service, k.policy, k.lease, k.pool = nil, nil, services.Lease{}, nil
	k.affinity, k.tried, k.attempts = span{}, [mostAttempts]*services.Endpoint{}, 0
	k.tries, k.waited, k.pauses, k.lastFailure = 0, 0, 0, ""
	k.began, k.timeout, k.waiting = 0, 0, waiting{}
	k.marked, k.counts, k.started, k.plain, k.counting, k.holding, k.broken = false, false, false, false, false, false, false
	k.code, k.about = 0, nil
}

func (f *flow) empty() {
	f.q.clear()
	if f.trailers != nil {
		f.trailers.free()
	}
	*f = flow{call: f.call}
}

// keepRequest keeps the headers, unless the client has too much of them here.
func (k *call) keepRequest(l *headers.List) bool {
	n := int64(len(l.Bytes()))
	if kept := k.client.guard.headers.Load(); kept+n > budgetHeaders || kept > 0 && k.relay.full() {
		return false
	}
	k.client.guard.headers.Add(n)
	k.relay.queued.Add(n)
	k.request = keepList(l)
	return true
}

func (k *call) dropRequest() {
	if k.request != nil {
		n := int64(len(k.request.b))
		k.client.guard.headers.Add(-n)
		k.relay.queued.Add(-n)
		k.request.free()
		k.request = nil
	}
}

// flowTo returns the flow whose sink is that stream.
func (k *call) flowTo(c *conn, id uint32) *flow {
	switch {
	case k.client == c && k.clientID == id:
		return &k.down
	case k.backend == c && k.backendID == id:
		return &k.up
	}
	return nil
}

// settle draws the conclusions from what has ended. It is called after everything that may end a flow.
func (k *call) settle(b *batch) {
	if k.backend != nil && k.down.ended {
		if !k.up.endSent {
			k.backend.reset(b, k.backendID, http2.ErrCodeNo)
		}
		k.leaveBackend(b)
	}
	if k.client != nil && k.down.endSent {
		if !k.up.ended {
			// It need not send the rest.
			k.client.reset(b, k.clientID, http2.ErrCodeNo)
		}
		k.leaveClient(b)
	}
	if k.client == nil && k.backend != nil {
		k.backend.reset(b, k.backendID, http2.ErrCodeCancel)
		k.leaveBackend(b)
	}
}

// leaveClient ends the client's side, whose last frame has been appended.
func (k *call) leaveClient(b *batch) {
	c := k.client
	k.up.q.keep = false
	k.up.q.clear()
	k.down.q.clear()
	k.up.account(b)
	k.down.account(b)
	c.guard.grown.Add(int64(-k.down.grown))
	k.dropRequest()
	c.mu.Lock()
	c.blocked.remove(&k.down)
	c.calls.remove(k.clientID)
	c.closed.add(k.clientID)
	c.idle = c.relay.now()
	c.endIdle(b)
	c.mu.Unlock()
	k.client = nil
	k.stopWaiting()
	if k.backend == nil {
		k.endUnsent()
	}
}

// leaveBackend ends the backend's side, whose last frame has been appended or has arrived, and the lease.
func (k *call) leaveBackend(b *batch) {
	k.quitBackend(b, services.Outcome{Code: k.code, Failed: k.broken})
}

// quitBackend is leaveBackend with what is to be said of the endpoint.
func (k *call) quitBackend(b *batch, o services.Outcome) {
	c := k.backend
	c.mu.Lock()
	c.blocked.remove(&k.up)
	c.calls.remove(k.backendID)
	if c.calls.n == 0 {
		c.idle = c.relay.now()
	}
	c.endIdle(b)
	c.mu.Unlock()
	if c.pool.wanted.Load() {
		b.pools = append(b.pools, c.pool)
	}
	k.backend = nil
	k.endLease(o)
}

// endUnsent ends the lease of a call that has not got a stream yet, if it has one.
func (k *call) endUnsent() { k.endLease(services.Outcome{Code: k.code, Unseen: true}) }

func (k *call) endLease(o services.Outcome) {
	k.lease.End(o)
	k.lease = services.Lease{}
}

// upData is DATA from the client.
func (k *call) upData(b *batch, p []byte, n int, end bool) {
	f := &k.up
	switch {
	case f.ended:
		k.violated(b, k.client, http2.ErrCodeStreamClosed)
		return
	case n > f.recv:
		k.violated(b, k.client, http2.ErrCodeFlowControl)
		return
	case !f.declare(len(p), end):
		k.violated(b, k.client, http2.ErrCodeProtocol)
		return
	}
	before := f.msg
	if !f.msg.add(p, k.maxMessage()) {
		f.msg = before
		f.recv -= n
		f.ended = end
		k.fail(b, codeResourceExhausted, "message of the request is larger than "+k.maxMessageText())
		return
	}
	f.data(b, p, n, end)
	k.settle(b)
}

// downData is DATA from the backend.
func (k *call) downData(b *batch, p []byte, n int, end bool) {
	f := &k.down
	switch {
	case f.ended || n > f.recv:
		code := http2.ErrCodeFlowControl
		if f.ended {
			code = http2.ErrCodeStreamClosed
		}
		k.violated(b, k.backend, code)
		return
	case !k.started:
		k.garbage(b, http2.ErrCodeProtocol, "data before headers")
		return
	}
	before := f.msg
	if !k.plain && !f.msg.add(p, k.maxMessage()) {
		f.msg = before // nothing of it is passed on
		k.fail(b, codeResourceExhausted, "message of the answer is larger than "+k.maxMessageText())
		return
	}
	if k.client == nil {
		return
	}
	if k.client.hoards() {
		k.fail(b, codeResourceExhausted, "too much waits to be read by this client")
		return
	}
	if end && !k.plain {
		// What ends without a status is no answer.
		k.broken, k.code = true, codeInternal
		k.setTrailers(codeInternal, "the server ended the call without a status")
	}
	f.data(b, p, n, end)
	k.settle(b)
}

// clientReset is RST_STREAM from the client.
func (k *call) clientReset(b *batch, code http2.ErrCode) {
	if code == http2.ErrCodeNo {
		code = http2.ErrCodeCancel
	}
	if !k.down.ended {
		k.code = codeCanceled
	}
	k.leaveClient(b)
	if k.backend != nil {
		k.backend.reset(b, k.backendID, code)
		k.leaveBackend(b)
	}
}

// violated resets both streams, because of what c did on its own.
func (k *call) violated(b *batch, c *conn, code http2.ErrCode) {
	if c == k.backend {
		k.garbage(b, code, "a frame against the rules of HTTP/2")
		return
	}
	k.code = codeCanceled
	k.client.reset(b, k.clientID, code)
	k.leaveClient(b)
	k.settle(b)
}

// backendReset is RST_STREAM from the backend.
func (k *call) backendReset(b *batch, code http2.ErrCode) {
	unseen := code == http2.ErrCodeRefusedStream
	k.lastFailure = "the server refused the call"
	k.code = codeOfReset(code)
	k.broken = !unseen && code != http2.ErrCodeCancel && code != http2.ErrCodeNo && code != http2.ErrCodeEnhanceYourCalm
	if (unseen || k.code == codeUnavailable) && k.again(b, unseen) {
		return
	}
	k.leaveBackend(b)
	if k.client == nil {
		return
	}
	if unseen && !k.started {
		k.fail(b, codeUnavailable, "the server refused the call")
		return
	}
	k.client.reset(b, k.clientID, code)
	k.leaveClient(b)
}

// backendLost is the end of the backend's connection. unseen: it cannot have seen the call.
func (k *call) backendLost(b *batch, unseen bool, reason string) {
	k.code, k.broken = codeUnavailable, !(unseen && reason == goneReason)
	k.lastFailure = reason
	if k.again(b, unseen) {
		return
	}
	k.leaveBackend(b)
	k.fail(b, codeUnavailable, reason)
}

// garbage ends a call whose backend does not speak gRPC.
func (k *call) garbage(b *batch, code http2.ErrCode, what string) {
	k.broken, k.code = true, codeInternal
	if k.backend != nil {
		k.backend.reset(b, k.backendID, code)
		k.leaveBackend(b)
	}
	k.fail(b, codeInternal, "the server answered what is no gRPC: "+what)
}

// fail ends the call with a status of the relay's own.
func (k *call) fail(b *batch, code uint32, message string) {
	k.code = code
	if k.backend != nil {
		k.backend.reset(b, k.backendID, http2.ErrCodeCancel)
		k.leaveBackend(b)
	}
	k.endUnsent()
	k.stopWaiting()
	if k.client == nil {
		return
	}
	k.up.q.release()
	switch {
	case !k.started:
		k.down.q.clear()
		var l headers.List
		l.Add(":status", "200")
		l.Add("content-type", "application/grpc")
		addStatus(&l, code, message)
		k.client.sendHeaders(b, k.clientID, l.Bytes(), true)
		k.down.ended, k.down.endSent = true, true
	case k.plain || k.down.msg.inside():
		// A status behind half of a message would not be read as one.
		k.client.reset(b, k.clientID, http2.ErrCodeInternal)
		k.leaveClient(b)
		return
	default:
		k.holding = false
		k.setTrailers(code, message)
		k.down.ended = true
		k.down.pump(b)
	}
	k.settle(b)
}

// setTrailers makes the trailers that end the answer.
func (k *call) setTrailers(code uint32, message string) {
	var l headers.List
	addStatus(&l, code, message)
	k.keepTrailers(&l)
}

func (k *call) keepTrailers(l *headers.List) {
	if k.down.trailers != nil {
		k.down.trailers.free()
	}
	k.down.trailers = keepList(l)
}

// keepList copies a list into a chunk, which is a larger one than the pooled where it must be.
func keepList(l *headers.List) *chunk {
	n := len(l.Bytes())
	if n > largeChunk {
		return &chunk{b: append([]byte(nil), l.Bytes()...)}
	}
	c := newChunk(n)
	c.b = append(c.b, l.Bytes()...)
	return c
}
