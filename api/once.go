package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/api/relay"
	"github.com/core-tools/hsu-master/store"
)

// RequestIDKey is the metadata by which a caller marks a request: whatever comes with
// the same id is one request, sent again because its answer was lost. It is processed
// again only where nothing is known of it, counted once, and answered alike each time.
const RequestIDKey = relay.RequestID

const (
	// maxForwards bounds how often one request that is marked is sent to workers.
	maxForwards = 5
	// The first pause before a worker is tried again that was lost; each is the double
	// of the one before. Others are tried without a pause.
	firstForwardPause = 25 * time.Millisecond
)

var (
	errRequestID    = errors.New("bad " + RequestIDKey)
	errOtherRequest = errors.New("another request was sent with this " + RequestIDKey)
	errLeftOut      = fmt.Errorf("the request was processed and counted, but its answer was larger than %d bytes and is not kept", store.MaxResponse)
)

// results keeps what requests with an id were answered.
type results interface {
	// Result returns what was stored under an id, and whether anything was.
	Result(id string) (store.Result, bool, error)
	// CountOnce counts a request and stores its result, both or neither, durably, and
	// then tells done; see [store.DB.CountOnce].
	CountOnce(r store.Result, done store.Counted)
}

// requestID returns the id that the caller gave its request, or "".
func requestID(ctx context.Context) (string, error) {
	ids := metadata.ValueFromIncomingContext(ctx, RequestIDKey)
	if len(ids) == 0 {
		return "", nil
	}
	if len(ids) > 1 {
		return "", fmt.Errorf("%w: there are %d", errRequestID, len(ids))
	}
	if err := store.CheckRequestID(ids[0]); err != nil {
		return "", fmt.Errorf("%w: %w", errRequestID, err)
	}
	return ids[0], nil
}

// flights are the requests with an id that are being processed. Others with the same id
// wait for them.
type flights struct {
	mu   sync.Mutex
	byID map[string]*flight
}

// flight is one of them.
type flight struct {
	all    *flights
	id     string
	digest [sha256.Size]byte

	done chan struct{}
	// Valid once done is closed.
	resp *proto.ProcessResponse
	err  error
}

// board returns the flight with this id, and whether it is the caller's to see to.
func (all *flights) board(id string, digest [sha256.Size]byte) (f *flight, mine bool) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if f := all.byID[id]; f != nil {
		return f, false
	}
	f = &flight{all: all, id: id, digest: digest, done: make(chan struct{})}
	if all.byID == nil {
		all.byID = make(map[string]*flight)
	}
	all.byID[id] = f
	return f, true
}

func (f *flight) land(err error) {
	f.err = err
	f.all.mu.Lock()
	delete(f.all.byID, f.id)
	f.all.mu.Unlock()
	close(f.done)
}

// Counted is called by the store when the result is stored, or cannot be.
func (f *flight) Counted(err error) { f.land(err) }

// once processes a request that has an id, or finds out what it was answered. Where
// the one that was under way has failed, or its caller has given up, the next one runs.
// Each caller waits no longer than its ctx, but what was begun to be stored is, so that
// no caller's end makes a request count twice.
func (b *Business) once(ctx context.Context, id string, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	digest, err := digestOf(req)
	if err != nil {
		return nil, err
	}
	for {
		f, mine := b.flights.board(id, digest)
		if mine {
			b.fly(ctx, f, req)
		} else if f.digest != digest {
			return nil, errOtherRequest
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch {
		case f.err == nil:
			return f.resp, nil
		case errors.Is(f.err, store.ErrDuplicate): // it was stored since it was looked for
		case mine:
			return nil, f.err
		}
	}
}

// fly sees to a flight: it lands at once, or when its result is stored.
func (b *Business) fly(ctx context.Context, f *flight, req *proto.ProcessRequest) {
	stored, found, err := b.results.Result(f.id)
	if err == nil && found {
		f.resp, err = answerOf(stored, f.digest)
		f.land(err)
		return
	}
	if err == nil {
		// What could not be counted is not done in the first place.
		err = b.counter.Writable()
	}
	if err == nil {
		f.resp, err = b.processMarked(ctx, req)
	}
	var encoded []byte
	if err == nil {
		encoded, err = protobuf.Marshal(f.resp)
	}
	if err != nil {
		f.land(err)
		return
	}
	b.results.CountOnce(store.Result{
		ID: f.id, Method: proto.MyBusinessService_ProcessData_FullMethodName, Digest: f.digest, Response: encoded,
	}, f)
}

// answerOf is what a request that comes again is answered.
func answerOf(stored store.Result, digest [sha256.Size]byte) (*proto.ProcessResponse, error) {
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

// digestOf tells a request from others.
func digestOf(req *proto.ProcessRequest) ([sha256.Size]byte, error) {
	encoded, err := protobuf.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(append([]byte(proto.MyBusinessService_ProcessData_FullMethodName+"\x00"), encoded...)), nil
}

// processMarked is process for a request that may be sent again: where a worker is lost
// before it has answered, another one gets it, or the same when it is back.
func (b *Business) processMarked(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	if b.pool.Standalone(businessName) {
		return Process(req), nil
	}
	key, limit, err := b.treat(ctx, req)
	if err != nil {
		return nil, err
	}
	lease, err := b.pool.Acquire(ctx, businessName, key)
	if err != nil {
		return nil, err
	}
	var tried []string
	for pause := firstForwardPause; ; {
		a := forward(ctx, lease, req, limit...)
		tried = append(tried, lease.Worker())
		// What was not seen has cost no worker anything.
		again := a.lost && len(tried) < maxForwards && (a.unseen || lease.Retry())
		if a.end(lease, again); !again {
			return a.result(ctx)
		}
		if lease, err = b.pool.TryAcquire(businessName, key, tried...); err == nil {
			continue
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		pause *= 2
		if lease, err = b.pool.Acquire(ctx, businessName, key); err != nil {
			return nil, err
		}
	}
}
