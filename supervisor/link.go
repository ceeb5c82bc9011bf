package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc"
)

// link is the hsu-core connection to a worker.
type link interface {
	domain.Contract
	GRPC() grpc.ClientConnInterface
	Shutdown()
}

type coreLink struct {
	control.Connection
	domain.Contract
}

// dialWorker attaches to the unit that listens on the port.
func dialWorker(port int, log *slog.Logger) (link, error) {
	core := CoreLogger(log)
	conn, err := control.NewConnection(control.ConnectionOptions{AttachPort: port}, core)
	if err != nil {
		return nil, fmt.Errorf("attach to port %d: %w", port, err)
	}
	return coreLink{Connection: conn, Contract: control.NewGRPCClientGateway(conn.GRPC(), core)}, nil
}

// A worker that starts alone is probed every millisecond, since it is ready within
// a few; all that start together as often as one, so that a hundred do not eat the
// processor that they start on. One that takes its time is probed less and less.
const (
	probeEvery = time.Millisecond
	probeMost  = 100 * time.Millisecond
	// How long a start counts as quick.
	probeEager = 50 * time.Millisecond
)

// probing counts the workers that are being probed now.
var probing atomic.Int64

// awaitListener returns when something accepts on the port, or ctx ends. The
// gRPC connection is made only then: a refused dial of it waits a whole second
// before its second try.
func awaitListener(ctx context.Context, port int) error {
	probing.Add(1)
	defer probing.Add(-1)
	var dialer net.Dialer
	address := WorkerAddress(port)
	for began := time.Now(); ; {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		delay := min(max(probeEvery*time.Duration(probing.Load()), (time.Since(began)-probeEager)/10), probeMost)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return fmt.Errorf("nothing accepts on %s: %w", address, err)
		}
	}
}

// WorkerAddress is where the worker with that port serves: on loopback.
func WorkerAddress(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// CoreLogger lets hsu-core log through slog. Its messages are about single
// calls, so they appear at debug level; warnings and errors stay what they are.
func CoreLogger(log *slog.Logger) logging.Logger {
	at := func(level slog.Level) logging.LogFunc {
		return func(format string, args ...any) {
			if log.Enabled(context.Background(), level) {
				log.Log(context.Background(), level, "hsu-core", "text", fmt.Sprintf(format, args...))
			}
		}
	}
	return logging.NewLogger("", logging.LogFuncs{
		Debugf: at(slog.LevelDebug),
		Infof:  at(slog.LevelDebug),
		Warnf:  at(slog.LevelWarn),
		Errorf: at(slog.LevelError),
	})
}
