package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// The ways to ask, in the order in which they are tried.
const (
	byPing   = iota // the core service of an HSU
	byHealth        // the standard health service
	byTCP           // that it accepts a connection
)

// outsideProber asks an endpoint in whichever way it understands, and remembers that.
type outsideProber struct {
	address string
	conn    *grpc.ClientConn
	core    domain.Contract
	way     atomic.Int32
}

func dialOutside(address string) (prober, error) {
	var dialer net.Dialer
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A host's name is looked up at each dial; no proxy of the environment is asked.
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
		// So that one that is back is found at the next ping.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: pingInterval / 2},
			MinConnectTimeout: pingTimeout,
		}))
	if err != nil {
		return nil, fmt.Errorf("make a connection to %s: %w", address, err)
	}
	core := control.NewGRPCClientGateway(conn, CoreLogger(slog.New(slog.DiscardHandler)))
	return &outsideProber{address: address, conn: conn, core: core}, nil
}

func (p *outsideProber) GRPC() grpc.ClientConnInterface { return p.conn }
func (p *outsideProber) Close() error                   { return p.conn.Close() }

// List asks the endpoint's reflection.
func (p *outsideProber) List(ctx context.Context) ([]string, error) {
	return services.NewReflection(ctx, p.conn).List()
}

// Ping returns nil where the endpoint answers.
func (p *outsideProber) Ping(ctx context.Context) error {
	way := p.way.Load()
	err := p.ask(ctx, way)
	if status.Code(err) != codes.Unimplemented {
		return err
	}
	// It is asked that way for the first time, or another program listens there now.
	for next := range int32(byTCP + 1) {
		if next == way {
			continue
		}
		if err = p.ask(ctx, next); status.Code(err) != codes.Unimplemented {
			p.way.Store(next)
			return err
		}
	}
	return err
}

func (p *outsideProber) ask(ctx context.Context, way int32) error {
	switch way {
	case byPing:
		return p.core.Ping(ctx)
	case byHealth:
		answer, err := grpc_health_v1.NewHealthClient(p.conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		if status.Code(err) == codes.NotFound {
			return nil // it says nothing of the whole, but it answers
		}
		if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			return fmt.Errorf("its health is %s", answer.GetStatus())
		}
		return err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return err
	}
	return conn.Close()
}
