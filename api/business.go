package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// pool hands out ready workers of a service, by its affinity's value.
type pool interface {
	Acquire(ctx context.Context, service, key string) (*supervisor.Lease, error)
	TryAcquire(service, key string, except ...string) (*supervisor.Lease, error)
	Standalone(service string) bool
	Policy(service string) services.Policy
}

// businessName is the service that Business is, whatever else the workers offer.
var businessName = proto.MyBusinessService_ServiceDesc.ServiceName

var errTooLarge = errors.New("message of the request is larger")

// counter counts durably.
type counter interface {
	AddProcessed(ctx context.Context, n int64) error
	Processed() int64
	// Writable returns nil where AddProcessed can succeed now, else why it cannot.
	Writable() error
}

// Business is proto.MyBusinessService as the master serves it: by its workers,
// or by itself where it has none, and counted before it is acknowledged.
type Business struct {
	proto.UnimplementedMyBusinessServiceServer
	pool    pool
	counter counter
	results results
	status  func() supervisor.Status
	flights flights
}

// ledger counts, and keeps the results of requests that have an id.
type ledger interface {
	counter
	results
}

// NewBusiness returns the service over the workers of s, counting in l.
func NewBusiness(s *supervisor.Supervisor, l ledger) *Business {
	return &Business{pool: s, counter: l, results: l, status: s.Status}
}

// ProcessData returns OK only when the request is in the durable count.
//
// A request with the metadata [RequestIDKey], 1 to 128 bytes of printable ASCII, is
// counted once and answered alike however often it comes, for as long as its result is
// kept ([store.Options].RequestTTL), also over the end of the worker or of the master.
// Only successes are kept. While one is under way, others with its id wait for it, and
// where it fails the next one runs. Such a request may reach a second worker where the
// first is lost before it answers. The metadata of the worker's answer goes to the caller for
// whom it was processed, and is not kept. Errors that only it has:
//
//   - INVALID_ARGUMENT: the id cannot be one.
//   - ALREADY_EXISTS: a request with other content was sent with this id.
//   - FAILED_PRECONDITION: it was processed and counted, and its answer, which was
//     larger than [store.MaxResponse], went to the one who sent it first.
func (b *Business) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	id, err := requestID(ctx)
	if err != nil {
		return nil, statusError(ctx, err)
	}
	if id != "" {
		resp, err := b.once(ctx, id, req)
		if err != nil {
			return nil, statusError(ctx, err)
		}
		return resp, nil
	}
	// What could not be counted is not done in the first place.
	if err := b.counter.Writable(); err != nil {
		return nil, statusError(ctx, err)
	}
	resp, err := b.process(ctx, req)
	if err != nil {
		return nil, statusError(ctx, err)
	}
	if err := b.counter.AddProcessed(ctx, 1); err != nil {
		return nil, statusError(ctx, err)
	}
	return resp, nil
}

// GetStatus reports what the master is doing and what it has counted.
func (b *Business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: string(b.status()), ProcessedCount: b.counter.Processed()}, nil
}

func (b *Business) process(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
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
	a := forward(ctx, lease, req, limit...)
	a.end(lease, a.unseen)
	if a.unseen { // so that nobody has acted on it
		if second, err := b.pool.TryAcquire(businessName, key, lease.Worker()); err == nil {
			a = forward(ctx, second, req, limit...)
			a.end(second, false)
		}
	}
	return a.result(ctx)
}

// treat holds a request against the service's policy, as the relay does with those that
// it sends to workers itself: key chooses the worker, and limit is for the answer.
func (b *Business) treat(ctx context.Context, req *proto.ProcessRequest) (key string, limit []grpc.CallOption, err error) {
	policy := b.pool.Policy(businessName)
	if most := policy.MaxMessage; most > 0 {
		if protobuf.Size(req) > most {
			return "", nil, fmt.Errorf("%w than %d bytes", errTooLarge, most)
		}
		limit = append(limit, grpc.MaxCallRecvMsgSize(most))
	}
	if values := metadata.ValueFromIncomingContext(ctx, policy.Affinity); len(values) > 0 {
		key = values[0]
	}
	return key, limit, nil
}

// attempt is what came of sending a request to a worker.
type attempt struct {
	resp            *proto.ProcessResponse
	header, trailer metadata.MD
	err             error
	lost            bool // the worker has gone, or says so, before it answered
	unseen          bool // it is lost, and the worker cannot have seen it
}

// forward sends the request to the leased worker. The lease is to be ended by the attempt.
func forward(ctx context.Context, lease *supervisor.Lease, req *proto.ProcessRequest, limit ...grpc.CallOption) (a attempt) {
	incoming, _ := metadata.FromIncomingContext(ctx)
	var reached peer.Peer // stays empty where no connection was there to send on
	a.resp, a.err = proto.NewMyBusinessServiceClient(lease.Conn()).ProcessData(metadata.NewOutgoingContext(ctx, passed(incoming)), req,
		append(limit, grpc.Peer(&reached), grpc.Header(&a.header), grpc.Trailer(&a.trailer))...)
	code := status.Code(a.err)
	a.lost = ctx.Err() == nil && (code == codes.Unavailable || code == codes.Canceled)
	a.unseen = a.lost && code == codes.Unavailable && reached.Addr == nil
	return a
}

// end gives the lease back. A worker that is lost is to blame, unless it said so itself:
// then at least its content-type has come.
func (a *attempt) end(lease *supervisor.Lease, retried bool) {
	lease.EndWith(services.Outcome{
		Code: uint32(status.Code(a.err)), Failed: a.lost && len(a.header)+len(a.trailer) == 0,
		Retried: retried, Unseen: retried && a.unseen,
	})
}

// result is what the caller gets: the worker's metadata too.
func (a *attempt) result(ctx context.Context) (*proto.ProcessResponse, error) {
	// These fail where no call is served, as in a test, and where nobody reads them any more.
	_ = grpc.SetHeader(ctx, passed(a.header))
	_ = grpc.SetTrailer(ctx, passed(a.trailer))
	return a.resp, a.err
}

// passed is the metadata that concerns not only the connection that it has come by.
func passed(md metadata.MD) metadata.MD {
	out := make(metadata.MD, len(md))
	for name, values := range md {
		switch {
		case strings.HasPrefix(name, ":"):
		case strings.HasPrefix(name, "grpc-") && name != "grpc-trace-bin" && name != "grpc-tags-bin":
		case slices.Contains(ofOneHop, name):
		default:
			out[name] = values
		}
	}
	return out
}

// ofOneHop are headers that each side of a forward has for itself.
var ofOneHop = []string{
	"connection", "content-length", "content-type", "host", "keep-alive", "proxy-connection",
	"te", "trailer", "transfer-encoding", "upgrade", "user-agent",
}

// Process is the reference implementation of ProcessData, which the reference
// worker and a master without workers share.
func Process(req *proto.ProcessRequest) *proto.ProcessResponse {
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}
}
