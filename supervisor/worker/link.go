package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/probe"
)

// Link is how the master reaches a worker: the hsu-core connection to its port, or its process if it has no port.
type Link interface {
	domain.Contract
	// Method returns the method that Ping uses.
	Method() probe.Method
	// GRPC returns the connection for calls, nil if the worker has no port.
	GRPC() grpc.ClientConnInterface
	Shutdown()
}

type coreLink struct {
	control.Connection
	*probe.Ladder
}

// Dial attaches to the unit that listens on the port.
func Dial(port int, log *slog.Logger) (Link, error) {
	core := probe.CoreLogger(log)
	conn, err := control.NewConnection(control.ConnectionOptions{AttachPort: port}, core)
	if err != nil {
		return nil, fmt.Errorf("attach to port %d: %w", port, err)
	}
	calls := rpc.Conn{ClientConnInterface: conn.GRPC()}
	ladder := probe.NewLadder(ports.Address(port), calls, control.NewGRPCClientGateway(calls, core))
	return coreLink{Connection: conn, Ladder: ladder}, nil
}

// processLink is the link to a worker without a port.
type processLink struct{ inst launcher.Process }

// Ping returns nil while the process runs. The end of the process is noticed without Pings.
func (l processLink) Ping(context.Context) error {
	if l.inst.Suspended() {
		return errSuspended
	}
	return nil
}

var errSuspended = errors.New("stopped by a signal")

func (processLink) Method() probe.Method           { return probe.Process }
func (processLink) GRPC() grpc.ClientConnInterface { return nil }
func (processLink) Shutdown()                      {}

// A worker that starts alone is probed every millisecond, since it is ready within a few. Workers that start
// together share that rate, so that a hundred of them do not take up the processor that they start on. A worker
// that takes longer is probed less and less often.
const (
	probeEvery = time.Millisecond
	probeMost  = 100 * time.Millisecond
	// A start is quick until this time has passed.
	probeEager = 50 * time.Millisecond
)

// probing counts the workers that are being probed now.
var probing atomic.Int64

// AwaitListener returns when a process accepts on the port, or ctx ends. It reports each refused connect. The gRPC
// connection is created only afterwards, because it dials less often.
//
// The table of listeners shows when to connect, and for most listeners that a connect succeeds. Then none is made: it
// would cost the worker a connection. Other connects are for the ports that the table does not show, such as one that
// is redirected.
func AwaitListener(ctx context.Context, port int, refused func(error)) error {
	probing.Add(1)
	defer probing.Add(-1)
	wait, stop := opened.await(port)
	defer stop()
	var dialer net.Dialer
	address, listens, delay := ports.Address(port), wait.over, probeMost
	err := errors.New("no listener is known")
	for began := time.Now(); ; {
		select {
		case <-time.After(delay):
		case <-listens:
			if wait.accept {
				return nil
			}
			listens = nil
		case <-ctx.Done():
			return fmt.Errorf("nothing accepts on %s: %w", address, err)
		}
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, "tcp", address); err == nil {
			return conn.Close()
		}
		if ctx.Err() == nil {
			refused(err)
		}
		if listens == nil {
			delay = min(max(probeEvery*time.Duration(probing.Load()), (time.Since(began)-probeEager)/10), probeMost)
		}
	}
}
