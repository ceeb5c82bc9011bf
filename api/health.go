package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// healthService is grpc.health.v1 on the master's port. Of itself ("", and the business
// service) the master says what it was told to; each service that is routed serves where
// an endpoint is ready for it.
type healthService struct {
	*health.Server
	services *services.Registry
}

// Check answers for a service, or with NOT_FOUND where it is neither the master's own
// nor routed.
func (h healthService) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	own, err := h.Server.Check(ctx, req)
	if status.Code(err) != codes.NotFound {
		return own, err
	}
	routed := h.routed(req.GetService())
	if routed == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, err
	}
	return &healthpb.HealthCheckResponse{Status: routed}, nil
}

// List answers for all services.
func (h healthService) List(ctx context.Context, req *healthpb.HealthListRequest) (*healthpb.HealthListResponse, error) {
	all, err := h.Server.List(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, name := range h.services.Names() {
		if all.GetStatuses()[name] == nil {
			all.Statuses[name] = &healthpb.HealthCheckResponse{Status: h.routed(name)}
		}
	}
	return all, nil
}

// Watch tells how a service is, and each change of it, until the caller ends it. One that
// nobody offers is SERVICE_UNKNOWN, and may come.
func (h healthService) Watch(req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse]) error {
	name := req.GetService()
	if _, err := h.Server.Check(stream.Context(), req); status.Code(err) != codes.NotFound {
		return h.Server.Watch(req, stream)
	}
	changed, stop := h.services.Watch()
	defer stop()
	told := healthpb.HealthCheckResponse_UNKNOWN
	for {
		if now := h.routed(name); now != told {
			told = now
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: now}); err != nil {
				return status.Error(codes.Canceled, "the stream has ended")
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func (h healthService) routed(name string) healthpb.HealthCheckResponse_ServingStatus {
	service := h.services.Service(name)
	switch {
	case service == nil:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	case len(service.Endpoints()) == 0:
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return healthpb.HealthCheckResponse_SERVING
}
