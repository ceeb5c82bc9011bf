package relay

import (
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/kept"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// call is one call: the client's stream, the backend's stream, and the data that flows between them. Calls are
// pooled. Code that gets a pointer to a call from a table locks mu and then checks that the call still belongs to
// that stream. unlock returns the call to the pool when nothing uses it any more.
type call struct {
	mu    sync.Mutex
	relay *Relay
	gen   uint32 // number of uses

	// The two sides are nil if they are over, or not there yet.
	client              *clientConn
	backend             *backendConn
	clientID, backendID uint32
	up, down            flow

	service  *services.Service // nil for the local server
	policy   *services.Policy
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
	counts     bool // must be counted before it is acknowledged
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
	notCounting countState = iota
	holding                // Count has been called, and the trailers are held back until it calls Counted
	outdated               // Count has been called, but the call has failed meanwhile, and nothing is held back
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
	if k.client != nil || k.backend != nil || k.count != notCounting || k.waiting.On() || k.relay == nil {
		k.mu.Unlock()
		return
	}
	if k.about != nil {
		k.relay.log.Call(k.about, k.code, k.relay.now()-k.began, k.attempts.All)
	}
	k.free()
	k.mu.Unlock()
	calls.Put(k)
}

// free resets the call for its next use.
func (k *call) free() {
	k.relay = nil
	k.gen++
	k.client, k.backend, k.clientID, k.backendID = nil, nil, 0, 0
	k.up.empty()
	k.down.empty()
	k.service, k.policy, k.pick, k.pool, k.place, k.share = nil, nil, services.Pick{}, nil, nil, nil
	k.request, k.affinity, k.attempts = kept.List{}, span{}, retry.Attempts{}
	k.began, k.deadline, k.waiting = 0, retry.Deadline{}, retry.Wait{}
	k.idempotent, k.counts, k.count, k.response, k.broken = false, false, notCounting, awaited, false
	k.code, k.cost, k.about = 0, 0, nil
}

func (f *flow) init(k *call) { f.call, f.sender.Flow = k, f }

func (f *flow) empty() {
	f.q.Clear()
	k := f.call
	*f = flow{}
	f.init(k)
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

// flowTo returns the flow whose sink is that stream, or nil.
func (k *call) flowTo(c *conn, id uint32) *flow {
	for _, f := range [...]*flow{&k.up, &k.down} {
		if sink, sinkID := f.sink(); sink == c && sinkID == id {
			return f
		}
	}
	return nil
}

// endPick gives up the call's pick, if it has one.
func (k *call) endPick(o services.Outcome) {
	k.pick.End(o)
	k.pick = services.Pick{}
}

// held returns the bytes that the call keeps for its client.
func (k *call) held() int {
	return k.cost + k.up.counted + k.down.counted + len(k.request.Bytes()) + len(k.down.trailers.Bytes())
}

// maxMessage returns how large a message of the call may be.
func (k *call) maxMessage() int {
	if k.policy != nil && k.policy.MaxMessage > 0 {
		return k.policy.MaxMessage
	}
	return k.relay.opts.MaxMessage
}

// timeoutLeft returns the headers to send: those of the client, with the rest of its timeout if the call has waited
// here or is sent again.
func (k *call) timeoutLeft() []byte {
	now := k.relay.now()
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
