package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/supervisor"
)

// pool hands out ready workers.
type pool interface {
	Acquire(ctx context.Context) (*supervisor.Lease, error)
	TryAcquire(except ...string) (*supervisor.Lease, error)
	Standalone() bool
}

// counter counts durably.
type counter interface {
	AddProcessed(ctx context.Context, n int64) error
	Processed() int64
}

// Business is proto.MyBusinessService as the master serves it: by its workers,
// or by itself where it has none, and counted before it is acknowledged.
type Business struct {
	proto.UnimplementedMyBusinessServiceServer
	pool    pool
	counter counter
	status  func() supervisor.Status
}

// NewBusiness returns the service over the workers of s, counting in c.
func NewBusiness(s *supervisor.Supervisor, c counter) *Business {
	return &Business{pool: s, counter: c, status: s.Status}
}

// ProcessData returns OK only when the request is in the durable count.
func (b *Business) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
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
	if b.pool.Standalone() {
		return Process(req), nil
	}
	lease, err := b.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	resp, unseen, err := forward(ctx, lease, req)
	if !unseen {
		return resp, err
	}
	// The connection failed before anything was sent, so nobody has acted on it.
	second, acquireErr := b.pool.TryAcquire(lease.Worker())
	if errors.Is(acquireErr, supervisor.ErrNoWorker) {
		return nil, err
	}
	resp, _, err = forward(ctx, second, req)
	return resp, err
}

// forward sends the request to the leased worker and ends the lease. unseen
// tells that the worker cannot have seen it.
func forward(ctx context.Context, lease *supervisor.Lease, req *proto.ProcessRequest) (resp *proto.ProcessResponse, unseen bool, err error) {
	defer lease.Release()
	var reached peer.Peer // stays empty where no connection was there to send on
	resp, err = proto.NewMyBusinessServiceClient(lease.Conn()).ProcessData(ctx, req, grpc.Peer(&reached))
	return resp, status.Code(err) == codes.Unavailable && reached.Addr == nil && ctx.Err() == nil, err
}

// Process is the reference implementation of ProcessData, which the reference
// worker and a master without workers share.
func Process(req *proto.ProcessRequest) *proto.ProcessResponse {
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}
}
