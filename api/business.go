package api

import (
	"context"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// pool hands out ready workers of a service. key is the value of the request's affinity metadata.
type pool interface {
	Acquire(ctx context.Context, service, key string) (*supervisor.Pick, error)
	TryAcquire(service, key string, except ...string) (*supervisor.Pick, error)
	Standalone(service string) bool
	Policy(service string) services.Policy
}

// businessName is the full name of the service that Business implements. Workers may offer other services as
// well.
var businessName = proto.MyBusinessService_ServiceDesc.ServiceName

// counter is a durable count of processed requests.
type counter interface {
	AddProcessed(ctx context.Context, n int64) error
	Processed() int64
	// Writable returns nil if AddProcessed can succeed now, and otherwise the reason why it cannot.
	Writable() error
}

// Business implements proto.MyBusinessService for the master. It forwards each request to a worker, or processes
// it itself if the master has no workers, and counts the request before it acknowledges it.
type Business struct {
	proto.UnimplementedMyBusinessServiceServer
	pool     pool
	counter  counter
	results  results
	status   func() supervisor.Status
	inflight inflight
}

// ledger is a counter that also stores the results of requests with an id.
type ledger interface {
	counter
	results
}

// NewBusiness returns a Business that uses the workers of s and counts in l.
func NewBusiness(s *supervisor.Supervisor, l ledger) *Business {
	return &Business{pool: s, counter: l, results: l, status: s.Status}
}

// ProcessData returns OK only after the request is in the durable count.
//
// A request with the metadata [RequestIDKey], 1 to 128 bytes of printable ASCII, is counted once and gets the
// same answer each time it is sent, for as long as its result is stored ([store.Options].RequestTTL), even if the
// worker or the master exits in between. Only successful results are stored. While a request is in flight, other
// requests with the same id wait for it; if it fails, the next of them runs. If a worker is lost before it
// answers, such a request may be sent to a second worker. The metadata of the worker's answer is returned only to
// the caller whose request was forwarded; it is not stored. The following errors occur only for requests with an
// id:
//
//   - INVALID_ARGUMENT: the id is malformed.
//   - ALREADY_EXISTS: a request with different content was sent with this id.
//   - FAILED_PRECONDITION: the request was processed and counted, but its answer was larger than
//     [records.MaxResponse]. Only the first caller received it.
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
	// Do not process a request that cannot be counted.
	if err := b.counter.Writable(); err != nil {
		return nil, statusError(ctx, err)
	}
	resp, err := b.process(ctx, req, false)
	if err != nil {
		return nil, statusError(ctx, err)
	}
	if err := b.counter.AddProcessed(ctx, 1); err != nil {
		return nil, statusError(ctx, err)
	}
	return resp, nil
}

// GetStatus returns the status of the master and its count of processed requests.
func (b *Business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: string(b.status()), ProcessedCount: b.counter.Processed()}, nil
}

// Process is the reference implementation of ProcessData. The reference worker and a master without workers give
// the same answer.
func Process(req *proto.ProcessRequest) *proto.ProcessResponse {
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}
}
