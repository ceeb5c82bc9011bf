// Package control connects the parts of an HSU application over gRPC: a [Server] for the unit, a [Connection]
// for whoever controls it. Everything stays on this machine: addresses are 127.0.0.1, without TLS.
package control

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-core/go/logging"
)

// APIType names a way to reach a unit.
type APIType string

// APITypeGRPC is gRPC over TCP on 127.0.0.1, so far the only one.
const APITypeGRPC APIType = "grpc"

// ServerOptions are the options of [NewServer].
type ServerOptions struct {
	// Port is the TCP port to listen on. 0 takes a free one, which only the log tells.
	Port int
}

// Server is the gRPC server of a unit.
type Server interface {
	// GRPC is where services are registered, before Run.
	GRPC() grpc.ServiceRegistrar

	// Run serves until the process gets SIGINT or SIGTERM. It then calls onShutdownFunc, still serving, and
	// afterwards stops gracefully: nothing new is accepted, calls under way may end. What has not ended 25 s
	// after the callback is cut off, and a handler that does not heed that is not waited for.
	//
	// When serving fails, Run logs the error, calls onShutdownFunc, and returns. Further signals do not
	// shorten any of this; they have their usual effect again when Run has returned. onShutdownFunc may be
	// nil. Run can be called once.
	Run(onShutdownFunc func())
}

// serverLimits are the times of a Server; tests shorten them.
type serverLimits struct {
	graceful time.Duration // for calls under way to end after the shutdown callback
	// handshake is how long a connection may take to become one of HTTP/2. gRPC's stop, the forced one too,
	// waits for those that have not, by default for two minutes.
	handshake time.Duration
}

var defaultServerLimits = serverLimits{graceful: 25 * time.Second, handshake: 10 * time.Second}

// NewServer listens on 127.0.0.1. The error tells why that can not be, most often because the port is in use
// (syscall.EADDRINUSE). From then on clients can connect; they are answered once Run is called. The logger
// may be nil.
func NewServer(options ServerOptions, logger logging.Logger) (Server, error) {
	s, err := newServer(options, logger, defaultServerLimits)
	if err != nil {
		return nil, err // not s: a nil *server is no nil Server
	}
	return s, nil
}

type server struct {
	grpc     *grpc.Server
	listener net.Listener
	logger   logging.Logger
	graceful time.Duration
}

func newServer(options ServerOptions, logger logging.Logger, limits serverLimits) (*server, error) {
	logger = orSilent(logger)
	listener, err := net.Listen("tcp", loopback(options.Port))
	if err != nil {
		return nil, fmt.Errorf("listen for gRPC: %w", err)
	}
	logger.Infof("listening on %s", listener.Addr())
	return &server{
		grpc:     grpc.NewServer(grpc.ConnectionTimeout(limits.handshake)),
		listener: listener,
		logger:   logger,
		graceful: limits.graceful,
	}, nil
}

func (s *server) GRPC() grpc.ServiceRegistrar { return s.grpc }

func (s *server) Run(onShutdownFunc func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	s.run(signals, onShutdownFunc)
}

func (s *server) run(signals <-chan os.Signal, onShutdownFunc func()) {
	var err error
	served := make(chan struct{})
	go func() {
		defer close(served)
		err = s.grpc.Serve(s.listener)
	}()

	select {
	case sig := <-signals:
		s.logger.Infof("got signal %v, shutting down", sig)
	case <-served:
		if err != nil { // nil where someone else stopped the gRPC server
			s.logger.Errorf("serve gRPC on %s: %v, shutting down", s.listener.Addr(), err)
		}
	}
	if onShutdownFunc != nil {
		onShutdownFunc()
	}
	s.stop()
	<-served
	s.logger.Infof("server stopped")
}

// stop returns when no connection is left. A handler that ignores the end of its call may run on.
func (s *server) stop() {
	force := time.NewTimer(s.graceful)
	defer force.Stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
	case <-force.C:
		s.logger.Warnf("calls did not end within %v, cutting them off", s.graceful)
		// Not waiting for GracefulStop: it waits for every handler, even now.
		s.grpc.Stop()
	}
}

// loopback is the address of a port of this machine.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func orSilent(logger logging.Logger) logging.Logger {
	if logger == nil {
		return logging.NewLogger("", logging.LogFuncs{})
	}
	return logger
}
