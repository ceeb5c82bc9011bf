package api

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestHealthOfRoutedServices(t *testing.T) {
	const name = "pkg.Service"
	known := services.New(services.Options{})
	db, s := standalone(t)
	g, err := NewGateway(GatewayOptions{Services: known, Business: NewBusiness(s, db), Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	g.SetServing(true)
	client := healthpb.NewHealthClient(serveOn(t, g, g.Close, "tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ask := &healthpb.HealthCheckRequest{Service: name}
	stream, err := client.Watch(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	want := func(state healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if told, err := stream.Recv(); err != nil || told.GetStatus() != state {
			t.Fatalf("told %v, %v, want %v", told, err, state)
		}
		answer, err := client.Check(ctx, ask)
		if state == healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
			if status.Code(err) != codes.NotFound {
				t.Errorf("of what nobody offers: %v, %v", answer, err)
			}
			return
		}
		if err != nil || answer.GetStatus() != state {
			t.Errorf("%v, %v, want %v", answer, err, state)
		}
	}
	want(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)
	known.Offer("worker-0", name)
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	ep := &services.Endpoint{Address: "127.0.0.1:1", Worker: "worker-0"}
	known.Add(ep, name)
	want(healthpb.HealthCheckResponse_SERVING)
	all, err := client.List(ctx, &healthpb.HealthListRequest{})
	if err != nil || all.GetStatuses()[name].GetStatus() != healthpb.HealthCheckResponse_SERVING ||
		all.GetStatuses()[""] == nil {
		t.Errorf("list is %v, %v", all, err)
	}
	known.Remove(ep)
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	known.Offer("worker-0")
	want(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)

	// The business service is the master's own if no endpoint offers it.
	ask = &healthpb.HealthCheckRequest{Service: proto.MyBusinessService_ServiceDesc.ServiceName}
	if stream, err = client.Watch(ctx, ask); err != nil {
		t.Fatal(err)
	}
	want(healthpb.HealthCheckResponse_SERVING)
	known.Offer("worker-0", ask.GetService())
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	known.Add(ep, ask.GetService())
	want(healthpb.HealthCheckResponse_SERVING)
	g.SetServing(false)
	want(healthpb.HealthCheckResponse_NOT_SERVING)
	g.SetServing(true)
	want(healthpb.HealthCheckResponse_SERVING)
	if answer, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil ||
		answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("of the master: %v, %v", answer, err)
	}
}
