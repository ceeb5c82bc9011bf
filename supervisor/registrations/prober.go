package registrations

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/core-tools/hsu-core/go/control"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-master/internal/dial"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Prober checks whether an endpoint answers.
type Prober interface {
	// Ping returns nil if the endpoint answers.
	Ping(ctx context.Context) error
	// Method returns the method that Ping uses.
	Method() probe.Method
	// List returns the services that its reflection lists, and the error UNIMPLEMENTED if it has no reflection.
	List(ctx context.Context) ([]string, error)
	GRPC() grpc.ClientConnInterface
	Close() error
}

// connection is the gRPC connection to a registered endpoint.
type connection struct {
	*probe.Ladder
	conn *grpc.ClientConn
}

// Dial connects to a registered endpoint with the first call or Ping.
func Dial(address string) (Prober, error) {
	var dialer net.Dialer
	health := probe.DefaultPolicy()
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		rpc.Interceptor(),
		// Each dial resolves the host name; proxies of the environment are not used.
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		// Retry often enough for the next Ping to find an endpoint that is back.
		dial.Retry(health.Interval/2, health.Timeout))
	if err != nil {
		return nil, fmt.Errorf("make a connection to %s: %w", address, err)
	}
	core := control.NewGRPCClientGateway(conn, probe.CoreLogger(slog.New(slog.DiscardHandler)))
	return &connection{Ladder: probe.NewLadder(address, conn, core), conn: conn}, nil
}

func (p *connection) GRPC() grpc.ClientConnInterface { return p.conn }
func (p *connection) Close() error                   { return p.conn.Close() }

// List queries the endpoint's reflection.
func (p *connection) List(ctx context.Context) ([]string, error) {
	return services.NewReflection(ctx, p.conn).List()
}
