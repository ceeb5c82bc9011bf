package relay

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// This file is the way of a call that succeeds, in the order in which it happens: its headers arrive, it gets an
// endpoint and a stream there, the request is passed on, then the response, and the call is counted and ends. A call
// that must wait and an attempt that failed are in retry.go, a call that is refused or ends early in fail.go, and how a
// call leaves its two connections in call.go.

// begin handles the headers of a new call. It uses passed for the fields that are passed on. It returns true if the
// call must be started: see start.
func (k *call) begin(w *deferred.Work, l, passed *headers.List, end bool) (start bool) {
	if l.Truncated {
		k.turnAway(w, protocol.CodeResourceExhausted, "metadata is larger than "+strconv.Itoa(maxHeaderList)+" bytes")
		return false
	}
	passed.Reset()
	h := protocol.ReadRequest(l, passed, k.env.name)
	k.up.declared = h.Length
	if h.Malformed || end && h.Length > 0 {
		k.clientViolated(w, http2.ErrCodeProtocol)
		return false
	}
	if h.Returned {
		k.env.log.CallLooped(k.client.conn.address())
		k.code = protocol.CodeUnavailable
		k.client.reset(w, http2.ErrCodeRefusedStream) // so that the sender tries another endpoint
		k.leaveClient(w)
		return false
	}
	if r, refused := h.Refusal(); refused {
		k.refuse(w, r)
		return false
	}
	k.note(&h)
	route, code, message := k.env.route(h.Path, h.Idempotent)
	if code != protocol.CodeOK {
		k.turnAway(w, code, message)
		return false
	}
	k.route = route
	if route.counted {
		if err := k.env.opts.Counter.Writable(); err != nil {
			k.fail(w, protocol.CodeUnavailable, notCounted+err.Error())
			return false
		}
	}
	if route.service == nil {
		k.client.keep(localCost)
	}
	kept := k.client.conn.account.KeptOf(peers.Headers)
	if kept+len(passed.Bytes()) > budgetHeaders || kept > 0 && k.env.full() {
		k.turnAway(w, protocol.CodeResourceExhausted, "too much metadata of this client's calls waits for answers")
		return false
	}
	k.request.headers.Keep(k.client.conn.account, peers.Headers, passed)
	k.up.q.Keep = true
	return true
}

// note keeps the values of a request that outlive the list of its headers.
func (k *call) note(h *protocol.Request) {
	k.request.idempotent = h.Idempotent
	if h.Timed {
		k.request.deadline = retry.DeadlineAfter(k.request.began, h.Timeout)
	}
	if k.env.debug {
		service, method, _ := protocol.SplitPath(strings.Clone(h.Path))
		k.about = &report.Call{
			Service: service, Method: method,
			Trace: strings.Clone(protocol.TraceID(h.Trace)), Request: strings.Clone(h.ID),
		}
	}
}

// start dispatches a call for the first time, unless the call has ended meanwhile.
func (u callUse) start(w *deferred.Work) {
	k := u.call
	k.mu.Lock()
	defer k.unlock(w)
	if k.gen != u.gen || k.client.conn == nil || k.down.endSent {
		return
	}
	k.dispatch(w)
	k.closeFinished(w)
}

// dispatch sends the call to an endpoint, makes it wait, or ends it.
func (k *call) dispatch(w *deferred.Work) {
	if k.route.service == nil {
		k.backend.pool = k.client.conn.pools.local
		k.attempt(w, false)
		return
	}
	key := ""
	if k.route.affinity != "" {
		key = k.request.value(k.route.affinity)
	}
	pick, err := k.route.service.Pick(k.client.conn.asClient(), key, k.attempts.Endpoints()...)
	if err != nil {
		k.delay(w, err)
		return
	}
	k.backend.pick = pick
	k.attempts.Choose(pick.Endpoint())
	k.backend.pool = k.client.conn.pools.of(pick.Endpoint(), nil)
	if k.about != nil {
		k.about.Endpoint = pick.Endpoint()
	}
	k.attempt(w, false)
}

// attempt opens a stream for the call. waited means that the call has waited for a stream, and it is its turn.
func (k *call) attempt(w *deferred.Work, waited bool) {
	if k.request.deadline.Passed(k.env.now()) {
		k.expired(w)
		return
	}
	k.attempts.Begin()
	opening := k.backend.pool.open(w, k, waited)
	for opening == stale {
		k.backend.pool = k.client.conn.pools.of(k.backend.pool.endpoint, k.backend.pool)
		opening = k.backend.pool.open(w, k, false)
	}
	switch opening {
	case opened, stale:
		k.up.pump(w)
	case queued:
		k.waitFor(retry.ForStream, nil)
	case overfull:
		k.crowdedOut(w, waitingForStream)
	}
}

// upData handles DATA from the client.
func (k *call) upData(w *deferred.Work, p []byte, n int, end bool) {
	f := &k.up
	switch {
	case f.ended:
		k.clientViolated(w, http2.ErrCodeStreamClosed)
		return
	case n > f.recvLeft:
		k.clientViolated(w, http2.ErrCodeFlowControl)
		return
	case !f.declare(len(p), end):
		k.clientViolated(w, http2.ErrCodeProtocol)
		return
	}
	before := f.msg
	if !f.msg.Add(p, k.route.maxMessage) {
		f.msg = before
		f.recvLeft -= n
		f.ended = end
		k.client.conn.blame(0)
		k.fail(w, protocol.CodeResourceExhausted,
			"message of the request is larger than "+strconv.Itoa(k.route.maxMessage)+" bytes")
		return
	}
	f.data(w, p, n, end)
	k.closeFinished(w)
}

// upTrailers handles headers from the client that end the request.
func (k *call) upTrailers(w *deferred.Work, l *headers.List, end bool) {
	switch {
	case k.up.ended:
		k.clientViolated(w, http2.ErrCodeStreamClosed)
	case !end || l.Truncated || !k.up.declare(0, true) || !protocol.AreTrailers(l):
		k.clientViolated(w, http2.ErrCodeProtocol)
	default:
		// No gRPC client sends trailers, and no server reads them. Only the end is passed on.
		k.up.data(w, nil, 0, true)
		k.closeFinished(w)
	}
}

// downHeaders handles a header block from the backend. It uses passed for the fields that are passed on.
func (k *call) downHeaders(w *deferred.Work, l, passed *headers.List, end bool) {
	if k.down.ended {
		k.garbage(w, http2.ErrCodeStreamClosed, brokenRules)
		return
	}
	passed.Reset()
	a := protocol.ReadResponse(l, passed)
	switch {
	case l.Truncated:
		k.garbage(w, http2.ErrCodeProtocol, "too large a header list")
	case a.Fault != "":
		k.garbage(w, http2.ErrCodeProtocol, a.Fault)
	case k.response != awaited:
		if a.Statuses > 0 || !end {
			k.garbage(w, http2.ErrCodeProtocol, "a second set of headers")
			return
		}
		k.finish(w, passed, a)
	case a.Status < 100:
		k.garbage(w, http2.ErrCodeProtocol, "headers without an HTTP status")
	case a.Status < 200:
		if end || a.Status == 101 {
			k.garbage(w, http2.ErrCodeProtocol, "an interim response that ends the stream")
			return
		}
		k.client.conn.sendInterim(w, k.client.id, passed.Bytes())
	case end:
		k.finish(w, passed, a)
	default:
		k.respond(w, a.Status == 200 && a.GRPC)
		k.client.sendHeaders(w, passed.Bytes(), false)
	}
}

// respond records that the response has begun: the backend has seen the call, which will not be sent again.
func (k *call) respond(w *deferred.Work, grpc bool) {
	k.response = plainResponse
	if grpc {
		k.response = grpcResponse
	}
	k.request.headers.Drop()
	k.up.q.Release()
	k.up.account(w)
}

// downData handles DATA from the backend.
func (k *call) downData(w *deferred.Work, p []byte, n int, end bool) {
	f := &k.down
	switch {
	case f.ended || n > f.recvLeft:
		code := http2.ErrCodeFlowControl
		if f.ended {
			code = http2.ErrCodeStreamClosed
		}
		k.garbage(w, code, brokenRules)
		return
	case k.response == awaited:
		k.garbage(w, http2.ErrCodeProtocol, "data before headers")
		return
	}
	before := f.msg
	if k.response != plainResponse && !f.msg.Add(p, k.route.maxMessage) {
		f.msg = before // none of the frame is passed on
		k.fail(w, protocol.CodeResourceExhausted,
			"message of the answer is larger than "+strconv.Itoa(k.route.maxMessage)+" bytes")
		return
	}
	if k.client.conn == nil {
		return
	}
	if end && k.response != plainResponse {
		// A response that ends without a status is not valid.
		k.broken, k.code = true, protocol.CodeInternal
		k.down.keepTrailers(protocol.StatusList(protocol.CodeInternal, "the server ended the call without a status"))
	}
	f.data(w, p, n, end)
	k.closeFinished(w)
}

// finish handles the headers that end the response. The trailers of a call that must be counted are held back until
// it is.
func (k *call) finish(w *deferred.Work, l *headers.List, a protocol.Response) {
	k.code = a.Code
	if !a.Coded {
		k.broken, k.code = true, protocol.CodeUnknown
	}
	c, id, whole := k.backend.conn, k.backend.id, k.up.endSent
	if k.response == awaited && a.Code == protocol.CodeUnavailable && k.request.idempotent && k.again(w, false) {
		if !whole {
			c.reset(w, id, http2.ErrCodeNo) // the backend need not read the rest
		}
		return
	}
	if k.response == awaited {
		k.respond(w, a.Status == 200 && a.Coded)
	}
	if k.route.service != nil && k.client.conn != nil {
		k.client.conn.account.Completed(c.live.lastHeard())
	}
	k.down.ended = true
	k.down.keepTrailers(l)
	if k.route.counted && a.Coded && a.Code == protocol.CodeOK {
		k.count = beingCounted
		k.env.opts.Counter.Count(k)
	}
	k.down.pump(w)
	k.closeFinished(w)
}

// notCounted begins the message of a call that was refused, or not acknowledged, because it could not be counted.
const notCounted = "not counted, so not done: "

// Counted is called by the [Counter] when the call has been counted, or could not be.
func (k *call) Counted(err error) {
	k.env.acks.Now(func(w *deferred.Work) { // a call is not reused while it is being counted
		k.mu.Lock()
		defer k.unlock(w)
		k.count = notCounting
		if k.client.conn == nil {
			return
		}
		if err != nil {
			k.code = protocol.CodeUnavailable
			k.down.keepTrailers(protocol.StatusList(protocol.CodeUnavailable, notCounted+err.Error()))
		}
		k.down.pump(w)
		k.closeFinished(w)
	})
}

// route is the way of a call, which the call's path decides.
type route struct {
	service    *services.Service // nil for the local server
	counted    bool              // the call must be counted before it is acknowledged
	affinity   string            // the metadata key whose value chooses the endpoint; "" if there is none
	maxMessage int               // bytes
}

// route returns the route of a call. If there is none, it returns the status that ends the call. idempotent means that
// the call has a request id.
func (e *env) route(path string, idempotent bool) (r route, code uint32, message string) {
	name, method, ok := protocol.SplitPath(path)
	switch {
	case !ok:
		return r, protocol.CodeUnimplemented, "malformed method name: " + strconv.Quote(path)
	case e.almostCounted(path):
		return r, protocol.CodeUnimplemented,
			"unknown method " + strings.Clone(method) + " for service " + strings.Clone(name)
	}
	counted := e.opts.Counted[path]
	if !e.localMethods[path] || counted && !idempotent {
		r.service = e.opts.Registry.Service(name)
	}
	policy := e.localPolicies[name]
	if r.service != nil {
		policy = r.service.Policy()
		r.counted, r.affinity = counted, policy.Affinity
	}
	if policy == nil {
		return r, protocol.CodeUnimplemented, "unknown service " + strings.Clone(name)
	}
	r.maxMessage = e.opts.MaxMessage
	if policy.MaxMessage > 0 {
		r.maxMessage = policy.MaxMessage
	}
	return r, protocol.CodeOK, ""
}

// almostCounted reports whether a path differs from that of a counted method in the case of its letters only. The
// routers of some servers, such as ASP.NET Core's, ignore the case.
func (e *env) almostCounted(path string) bool {
	for counted := range e.opts.Counted {
		if len(counted) == len(path) && counted != path && strings.EqualFold(counted, path) {
			return true
		}
	}
	return false
}
