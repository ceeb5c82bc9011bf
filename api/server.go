package api

import (
	"context"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/core-tools/hsu-master/api/proto"
)

// Bounds on what a caller can make the master hold.
const (
	// MaxMessageSize of a request in bytes; a larger one is RESOURCE_EXHAUSTED.
	MaxMessageSize = 4 << 20
	// MaxStreams at a time on one connection.
	MaxStreams = 1024
)

// ServerOptions are those of the master's public server. A benchmark's baseline
// uses the same ones, so that it differs in what is measured only.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageSize),
		grpc.MaxConcurrentStreams(MaxStreams),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
}

// Public is the server on the master's port.
type Public struct {
	*grpc.Server
	health *health.Server
}

// NewPublic returns the server with all that is public: the business service,
// the core service, since a master is an HSU too, and health, which says
// NOT_SERVING until [Public.SetServing].
func NewPublic(business proto.MyBusinessServiceServer, log logging.Logger) *Public {
	p := &Public{Server: grpc.NewServer(ServerOptions()...), health: health.NewServer()}
	p.SetServing(false)
	healthpb.RegisterHealthServer(p, p.health)
	proto.RegisterMyBusinessServiceServer(p, business)
	control.RegisterGRPCServerHandler(p, domain.NewDefaultHandler(log), log)
	return p
}

// SetServing says by grpc.health.v1 whether requests will be answered.
func (p *Public) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", proto.MyBusinessService_ServiceDesc.ServiceName} {
		p.health.SetServingStatus(service, state)
	}
}

// StopGracefully lets requests under way end, but ctx bounds the wait.
func StopGracefully(ctx context.Context, srv *grpc.Server) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.GracefulStop()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		// It does not wait for handlers, as GracefulStop goes on to do: one that
		// ignores its context must not keep the master from ending.
		srv.Stop()
	}
}
