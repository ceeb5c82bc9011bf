package control

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/core-tools/hsu-core/go/logging"
	"github.com/core-tools/hsu-core/go/process"
)

// ConnectionOptions are the options of [NewConnection]. One of them must be set; AttachPort takes precedence.
type ConnectionOptions struct {
	// ServerPath is the program to start if AttachPort is 0.
	ServerPath string
	// AttachPort is the port, on 127.0.0.1, of a unit that is already running.
	AttachPort int
}

// Connection is a gRPC connection to a unit.
type Connection interface {
	// GRPC returns the connection for clients of the unit's services. It connects at the first call, and reconnects
	// by itself whenever the connection was lost.
	GRPC() grpc.ClientConnInterface

	// Shutdown closes the connection, which ends the calls in flight. It then stops a unit that NewConnection
	// started, as process.Controller.Stop does; a unit that was attached to runs on. It is safe to call repeatedly.
	Shutdown()
}

// NewConnection creates a connection to the unit on AttachPort or, if that is 0, takes a free port N and keeps
// ServerPath running with the arguments "--port N" (see process.NewController). It does not wait for the unit to
// answer: use domain.RetryPing for that. It returns an error if both options are unset, if AttachPort is not a port
// number, or if ServerPath cannot be started. The logger may be nil.
func NewConnection(options ConnectionOptions, logger logging.Logger) (Connection, error) {
	if options.AttachPort != 0 {
		conn, err := dial(options.AttachPort)
		if err != nil {
			return nil, err
		}
		return &connection{grpc: conn}, nil
	}
	if options.ServerPath == "" {
		return nil, errors.New("connect to a unit: neither ServerPath nor AttachPort is set")
	}

	logger = orSilent(logger)
	port, err := freePort()
	if err != nil {
		return nil, fmt.Errorf("connect to %s: take a free port: %w", options.ServerPath, err)
	}
	conn, err := dial(port)
	if err != nil {
		return nil, err
	}
	unit, err := process.NewController(options.ServerPath, []string{"--port", strconv.Itoa(port)}, 0,
		process.ControllerLogConfig{
			Module: filepath.Base(options.ServerPath),
			Funcs:  logging.LogFuncs{LogLevelf: logger.LogLevelf},
		})
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to a unit of one's own: %w", err)
	}
	return &connection{grpc: conn, unit: unit}, nil
}

type connection struct {
	grpc *grpc.ClientConn
	unit process.Controller // nil if attached
}

func (c *connection) GRPC() grpc.ClientConnInterface { return c.grpc }

func (c *connection) Shutdown() {
	_ = c.grpc.Close() // its only error means that it was closed before
	if c.unit != nil {
		c.unit.Stop()
	}
}

// connectParams replaces gRPC's defaults, which suit the internet: a unit that is 5 ms late would be found after a
// whole second. A dial on this machine is refused at once or, unless the machine is busy, accepted at once.
var connectParams = grpc.ConnectParams{
	Backoff: backoff.Config{
		BaseDelay:  50 * time.Millisecond,
		Multiplier: 1.6,
		Jitter:     0.2,
		MaxDelay:   time.Second,
	},
	MinConnectTimeout: 5 * time.Second,
}

const (
	// buffer is the size of the buffers for reading and writing, 4 KiB instead of gRPC's 32. A master has a connection
	// for every worker, most messages are small, and all workers may be pinged at the same time.
	buffer = 4 << 10
	// window is how much of a stream, or of all streams, the unit may send before it is read. With a window that
	// adapts itself, gRPC measures the round trip of each small answer by a PING of its own, which doubles the packets
	// of a Ping of CoreService.
	window = 1 << 20
)

// dial returns a connection that connects at the first call.
func dial(port int) (*grpc.ClientConn, error) {
	if port < 1 || port > 65535 {
		return nil, fmt.Errorf("connect to a unit: %d is no port number", port)
	}
	conn, err := grpc.NewClient("passthrough:///"+loopback(port), // nothing to resolve
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(connectParams),
		grpc.WithNoProxy(), // HTTPS_PROXY does not apply to this machine
		grpc.WithReadBufferSize(buffer),
		grpc.WithWriteBufferSize(buffer),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to the unit on port %d: %w", port, err)
	}
	return conn, nil
}

// freePort returns a port that was free a moment ago. If another process listens on it before the unit does, the
// unit exits, and is restarted until the port is free.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}
