package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/api/relay"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// GatewayOptions configures a [Gateway]. Services, Business and Counter are required.
type GatewayOptions struct {
	Services *services.Registry
	Business proto.MyBusinessServiceServer
	Counter  relay.Counter
	TLS      *tls.Config  // for the port; nil disables TLS
	Log      *slog.Logger // nil discards
}

// Gateway serves the master's port. It is a relay that forwards calls to the endpoints of their service. The
// master's own gRPC server is one of these endpoints. It serves the business service if no worker offers it, the
// core service, because the master is itself an HSU, and the health service, which reports NOT_SERVING until
// [Gateway.SetServing].
type Gateway struct {
	relay    *relay.Relay
	services *services.Registry
	server   *grpc.Server
	inside   *bufconn.Listener
	health   *health.Server
	served   chan struct{} // closed when server has ended; NewGateway starts it
	end      sync.Once
}

// localBuffer is the buffer size in bytes, in each direction, of an in-memory connection to the master's own
// server.
const localBuffer = 256 << 10

// streamWorkers is the number of goroutines of the master's own server that wait for calls. Each keeps its stack,
// which a new goroutine for each call would have to enlarge step by step: a tenth of the processor time of a call.
const streamWorkers = 64

// NewGateway returns a gateway that accepts connections when Serve is called. The caller must close it.
func NewGateway(o GatewayOptions) (*Gateway, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		// The relay limits streams, messages and headers, adds some headers, and opens few connections.
		server: grpc.NewServer(append(ServerOptions(), grpc.MaxConcurrentStreams(math.MaxUint32),
			grpc.MaxRecvMsgSize(math.MaxInt32), grpc.MaxHeaderListSize(32<<10),
			grpc.NumStreamWorkers(streamWorkers))...),
		services: o.Services,
		inside:   bufconn.Listen(localBuffer),
		health:   health.NewServer(),
		served:   make(chan struct{}),
	}
	g.SetServing(false)
	log := probe.CoreLogger(o.Log)
	healthpb.RegisterHealthServer(g.server, healthService{g.health, o.Services})
	proto.RegisterMyBusinessServiceServer(g.server, o.Business)
	registerMasterService(g.server, o.Business)
	control.RegisterGRPCServerHandler(g.server, domain.NewDefaultHandler(log), log)
	reflect(g.server, o.Services, reflectionWithin)
	local := make(map[string][]string)
	for name, info := range g.server.GetServiceInfo() {
		local[name] = nil
		for _, method := range info.Methods {
			local[name] = append(local[name], method.Name)
		}
	}
	var err error
	if g.relay, err = relay.New(relay.Options{
		Registry:   o.Services,
		Local:      local,
		LocalDial:  g.inside.Dial,
		Counted:    map[string]bool{proto.MyBusinessService_ProcessData_FullMethodName: true},
		Counter:    o.Counter,
		TLS:        o.TLS,
		MaxMessage: MaxMessageSize,
		Log:        o.Log,
	}); err != nil {
		return nil, fmt.Errorf("prepare the gateway: %w", err)
	}
	go func() {
		defer close(g.served)
		_ = g.server.Serve(g.inside) // nil: only Stop ends it, and a bufconn listener does not fail
	}()
	return g, nil
}

// Serve accepts connections until the gateway is shut down or closed, and then returns nil.
func (g *Gateway) Serve(l net.Listener) error {
	if err := g.relay.Serve(l); !errors.Is(err, relay.ErrClosed) {
		return err
	}
	return nil
}

// SetServing sets the status that the health service reports for the master.
func (g *Gateway) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", proto.MyBusinessService_ServiceDesc.ServiceName} {
		g.health.SetServingStatus(service, state)
	}
	g.services.Changed() // wake the Watch calls of the health service
}

// Shutdown waits until the calls in flight have ended or ctx is done, and then closes the gateway.
func (g *Gateway) Shutdown(ctx context.Context) {
	_ = g.relay.Shutdown(ctx) // the only error is that of ctx
	g.Close()
}

// Drain stops accepting connections, and waits until the calls in flight have ended or ctx is done. It returns how many
// have not ended. Connections that wait in the queue of the listener remain there if the caller has a duplicate of it.
// Unlike Shutdown, it refuses no connection that was accepted.
func (g *Gateway) Drain(ctx context.Context) (left int) {
	g.relay.StopAccepting()
	if g.relay.Drain(ctx) != nil {
		return g.relay.Stats().Streams
	}
	return 0
}

// Close closes all connections and ends all calls at once.
func (g *Gateway) Close() {
	g.end.Do(func() {
		g.relay.Close()
		g.server.Stop()
		<-g.served
	})
}

// Figures returns the current totals of connections and calls.
func (g *Gateway) Figures() GatewayFigures {
	s := g.relay.Stats()
	return GatewayFigures{Clients: s.Clients, Backends: s.Backends, Streams: s.Streams, Queued: s.Queued}
}
