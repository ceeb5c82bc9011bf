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

// healthService implements grpc.health.v1 on the master's port. For the master itself ("", and the business
// service if no endpoint offers it) it reports the status set by [Gateway.SetServing]. A routed service is
// SERVING if the master is SERVING and the service has a ready endpoint.
type healthService struct {
	*health.Server
	services *services.Registry
}

// Check returns the status of a service. It fails with NOT_FOUND if the service is neither the master's own nor
// routed.
func (h healthService) Check(
	ctx context.Context, req *healthpb.HealthCheckRequest,
) (*healthpb.HealthCheckResponse, error) {
	if now := h.now(ctx, req.GetService()); now != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
		return &healthpb.HealthCheckResponse{Status: now}, nil
	}
	return h.Server.Check(ctx, req)
}

// List returns the status of all services.
func (h healthService) List(
	ctx context.Context, req *healthpb.HealthListRequest,
) (*healthpb.HealthListResponse, error) {
	all, err := h.Server.List(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, name := range h.services.Names() {
		all.Statuses[name] = &healthpb.HealthCheckResponse{Status: h.now(ctx, name)}
	}
	return all, nil
}

// Watch sends the status of a service and each change of it until the caller ends the stream. A service that is
// not offered is SERVICE_UNKNOWN; it may be offered later.
func (h healthService) Watch(
	req *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse],
) error {
	name := req.GetService()
	changed, stop := h.services.Watch()
	defer stop()
	told := healthpb.HealthCheckResponse_UNKNOWN
	for {
		if now := h.now(stream.Context(), name); now != told {
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

// now returns the status of a service: SERVICE_UNKNOWN if the service is neither the master's own nor routed.
func (h healthService) now(ctx context.Context, name string) healthpb.HealthCheckResponse_ServingStatus {
	service, asked := h.services.Service(name), name
	if service != nil {
		asked = "" // the master itself
	}
	own, err := h.Server.Check(ctx, &healthpb.HealthCheckRequest{Service: asked})
	switch {
	case err != nil:
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	case service != nil && len(service.Endpoints()) == 0:
		return healthpb.HealthCheckResponse_NOT_SERVING
	}
	return own.GetStatus()
}
