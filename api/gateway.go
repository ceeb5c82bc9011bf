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
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// GatewayOptions are what a [Gateway] serves. The first three are required.
type GatewayOptions struct {
	Services *services.Registry
	Business proto.MyBusinessServiceServer
	Counter  relay.Counter
	TLS      *tls.Config  // of the port, nil for none
	Log      *slog.Logger // nil discards
}

// Gateway is what listens on the master's port: a relay of calls to whoever offers
// their service, with the master's own gRPC server behind it as one of them. That
// answers the business service where no worker does, the core service, since a master
// is an HSU too, and health, which says NOT_SERVING until [Gateway.SetServing].
type Gateway struct {
	relay    *relay.Relay
	services *services.Registry
	server   *grpc.Server
	inside   *bufconn.Listener
	health   *health.Server
	served   chan struct{} // closed when server has ended, which runs from the beginning
	end      sync.Once
}

// localBuffer is how much of a connection to the own server is in memory, each way.
const localBuffer = 256 << 10

// NewGateway returns a gateway that serves when Serve is called. It must be closed.
func NewGateway(o GatewayOptions) (*Gateway, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{
		// Who may have how many streams, and how large a message is, is the relay's to say: it opens few connections.
		server:   grpc.NewServer(append(ServerOptions(), grpc.MaxConcurrentStreams(math.MaxUint32), grpc.MaxRecvMsgSize(math.MaxInt32))...),
		services: o.Services,
		inside:   bufconn.Listen(localBuffer),
		health:   health.NewServer(),
		served:   make(chan struct{}),
	}
	g.SetServing(false)
	log := supervisor.CoreLogger(o.Log)
	healthpb.RegisterHealthServer(g.server, healthService{g.health, o.Services})
	proto.RegisterMyBusinessServiceServer(g.server, o.Business)
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
		_ = g.server.Serve(g.inside) // nil: it is stopped, and its listener does not fail
	}()
	return g, nil
}

// Serve accepts connections until the gateway is shut down or closed, and returns nil
// then.
func (g *Gateway) Serve(l net.Listener) error {
	if err := g.relay.Serve(l); !errors.Is(err, relay.ErrClosed) {
		return err
	}
	return nil
}

// SetServing says by grpc.health.v1 whether requests will be answered.
func (g *Gateway) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", proto.MyBusinessService_ServiceDesc.ServiceName} {
		g.health.SetServingStatus(service, state)
	}
	g.services.Changed() // for those who watch the health of what is routed
}

// Shutdown lets calls under way end, but ctx bounds the wait, and closes the gateway.
func (g *Gateway) Shutdown(ctx context.Context) {
	_ = g.relay.Shutdown(ctx) // only that ctx has ended
	g.Close()
}

// Close ends everything at once.
func (g *Gateway) Close() {
	g.end.Do(func() {
		g.relay.Close()
		g.server.Stop()
		<-g.served
	})
}

// Figures are those of all connections and calls.
func (g *Gateway) Figures() GatewayFigures {
	s := g.relay.Stats()
	return GatewayFigures{Clients: s.Clients, Backends: s.Backends, Streams: s.Streams, Queued: s.Queued}
}
