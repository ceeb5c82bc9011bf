package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/metadata"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
)

// RequestIDKey is the metadata key of a request id. Requests with the same id are one request that the caller
// sends again because the answer was lost. The master processes it again only if it has no result for it, counts
// it once, and gives the same answer each time.
const RequestIDKey = protocol.RequestID

var (
	errRequestID    = errors.New("bad " + RequestIDKey)
	errOtherRequest = errors.New("another request was sent with this " + RequestIDKey)
	errLeftOut      = fmt.Errorf("the request was processed and counted, "+
		"but its answer was larger than %d bytes and is not kept", records.MaxResponse)
)

// results stores the results of requests with an id.
type results interface {
	// Result returns the result stored under an id, and whether there is one.
	Result(id string) (records.Result, bool, error)
	// CountOnce counts a request and stores its result, both or neither, durably, and then calls done; see
	// [store.DB.CountOnce].
	CountOnce(r records.Result, done store.Counted)
}

// requestID returns the id of the caller's request, or "" if it has none.
func requestID(ctx context.Context) (string, error) {
	ids := metadata.ValueFromIncomingContext(ctx, RequestIDKey)
	if len(ids) == 0 {
		return "", nil
	}
	if len(ids) > 1 {
		return "", fmt.Errorf("%w: there are %d", errRequestID, len(ids))
	}
	if err := records.CheckRequestID(ids[0]); err != nil {
		return "", fmt.Errorf("%w: %w", errRequestID, err)
	}
	return ids[0], nil
}

// inflight are the requests with an id that are in flight. Other requests with the same id wait for them.
type inflight struct {
	mu   sync.Mutex
	byID map[string]*request
}

// request is a request with an id that is in flight.
type request struct {
	all    *inflight
	id     string
	digest [sha256.Size]byte

	done chan struct{}
	// Valid once done is closed.
	resp *proto.ProcessResponse
	err  error
}

// join returns the request in flight with this id. It creates one if there is none; then mine is true and the caller
// must process the request.
func (all *inflight) join(id string, digest [sha256.Size]byte) (r *request, mine bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if r := all.byID[id]; r != nil {
		return r, false
	}
	r = &request{all: all, id: id, digest: digest, done: make(chan struct{})}
	if all.byID == nil {
		all.byID = make(map[string]*request)
	}
	all.byID[id] = r
	return r, true
}

// end makes the request no longer in flight and wakes the callers that wait for it.
func (r *request) end(err error) {
	r.err = err
	r.all.mu.Lock()
	delete(r.all.byID, r.id)
	r.all.mu.Unlock()
	close(r.done)
}

// Counted implements [store.Counted]. The store calls it when the result is stored or cannot be stored.
func (r *request) Counted(err error) { r.end(err) }

// once processes a request that has an id, or returns its earlier answer. If the request in flight that it waits for
// fails, or the caller of that request gives up, the next waiting request runs. Each caller waits no longer than its
// ctx. A result whose storing has begun is stored even if its caller gives up, so that the request is not counted
// twice.
func (b *Business) once(ctx context.Context, id string, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	for {
		r, mine := b.inflight.join(id, digest)
		if mine {
			b.run(ctx, r, req)
		} else if r.digest != digest {
			return nil, errOtherRequest
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case r.err == nil:
			return r.resp, nil
		case errors.Is(r.err, store.ErrDuplicate): // the result was stored after run looked for it
		case mine:
			return nil, r.err
		}
	}
}

// run processes a request. The request ends at once on an error or if a result is already stored, and otherwise when
// the store has stored its result.
func (b *Business) run(ctx context.Context, r *request, req *proto.ProcessRequest) {
	stored, found, err := b.results.Result(r.id)
	if err == nil && found {
		r.resp, err = answerOf(stored, r.digest)
		r.end(err)
		return
	}
	if err == nil {
		// Do not process a request that cannot be counted.
		err = b.counter.Writable()
	}
	if err == nil {
		r.resp, err = b.process(ctx, req, true)
	}
	var encoded []byte
	if err == nil {
		encoded, err = protobuf.Marshal(r.resp)
	}
	if err != nil {
		r.end(err)
		return
	}
	b.results.CountOnce(records.Result{
		ID: r.id, Method: proto.MyBusinessService_ProcessData_FullMethodName, Digest: r.digest, Response: encoded,
	}, r)
}

// answerOf returns the answer to a repeated request from its stored result.
func answerOf(stored records.Result, digest [sha256.Size]byte) (*proto.ProcessResponse, error) {
	switch {
	case stored.Digest != digest:
		return nil, errOtherRequest
	case stored.LeftOut:
		return nil, errLeftOut
	}
	resp := new(proto.ProcessResponse)
	if err := protobuf.Unmarshal(stored.Response, resp); err != nil {
		return nil, fmt.Errorf("read the result of request %q: %w", stored.ID, err)
	}
	return resp, nil
}

// digestOf returns a hash of the method and content of a request, by which different requests with one id are
// detected.
func digestOf(req *proto.ProcessRequest) ([sha256.Size]byte, error) {
	encoded, err := protobuf.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(append([]byte(proto.MyBusinessService_ProcessData_FullMethodName+"\x00"), encoded...)), nil
}
