// Package probe checks whether an endpoint is healthy.
package probe

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Method is a way to ask an endpoint, in the order in which a [Ladder] tries them.
type Method int32

const (
	Ping Method = iota // the core service of an HSU
	GRPC               // the standard health service, grpc.health.v1
	TCP                // a connection that is accepted
	methods

	// Process is not part of a ladder: the process runs.
	Process
)

// String returns the name that commands and JSON show: "ping", "grpc", "tcp" or "process".
func (m Method) String() string {
	switch m {
	case Ping:
		return "ping"
	case GRPC:
		return "grpc"
	case TCP:
		return "tcp"
	case Process:
		return "process"
	default:
		return fmt.Sprintf("method-%d", int32(m))
	}
}

// Describe returns the name for sentences: "no answer to Ping".
func (m Method) Describe() string {
	switch m {
	case Ping:
		return "Ping"
	case GRPC:
		return "grpc.health.v1"
	case TCP:
		return "a TCP connect"
	case Process:
		return "its process"
	default:
		return m.String()
	}
}

// Ladder checks an endpoint by the first method that the endpoint implements, and remembers that method. It is
// safe for concurrent use.
type Ladder struct {
	address string
	conn    grpc.ClientConnInterface
	core    domain.Contract
	method  atomic.Int32
}

// NewLadder returns a ladder for the endpoint at address, "host:port". The core service
// and conn reach that endpoint.
func NewLadder(address string, conn grpc.ClientConnInterface, core domain.Contract) *Ladder {
	return &Ladder{address: address, conn: conn, core: core}
}

// Method returns the method in use: Ping until the endpoint has answered that it does not
// implement it.
func (l *Ladder) Method() Method { return Method(l.method.Load()) }

// Ping returns nil if the endpoint answers that it is healthy. Only UNIMPLEMENTED makes the ladder try another
// method; any other error is the result.
func (l *Ladder) Ping(ctx context.Context) error {
	current := l.Method()
	err := l.ask(ctx, current)
	// UNIMPLEMENTED from a remembered method means that another program now listens there.
	for m := Ping; m < methods && status.Code(err) == codes.Unimplemented; m++ {
		if m == current {
			continue
		}
		if err = l.ask(ctx, m); status.Code(err) != codes.Unimplemented {
			l.method.Store(int32(m))
		}
	}
	return err
}

func (l *Ladder) ask(ctx context.Context, m Method) error {
	switch m {
	case Ping:
		return l.core.Ping(ctx)
	case GRPC:
		return checkHealth(ctx, l.conn, "")
	default:
		return connect(ctx, l.address)
	}
}

// checkHealth asks for the health of a service, "" for that of the whole server.
func checkHealth(ctx context.Context, conn grpc.ClientConnInterface, service string) error {
	request := &grpc_health_v1.HealthCheckRequest{Service: service}
	answer, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	if status.Code(err) == codes.NotFound && service == "" {
		return nil // the server does not report its overall health, but it answers
	}
	if err == nil && answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("its health is %s", answer.GetStatus())
	}
	return err
}

func connect(ctx context.Context, address string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}
