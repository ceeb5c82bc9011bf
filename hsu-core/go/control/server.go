// Package control connects the parts of an HSU application over gRPC: a [Server] for the unit, a [Connection] for
// the program that controls the unit. All traffic stays on this machine: addresses are 127.0.0.1, without TLS.
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

// APITypeGRPC is gRPC over TCP on 127.0.0.1, the only type so far.
const APITypeGRPC APIType = "grpc"

// ServerOptions are the options of [NewServer].
type ServerOptions struct {
	// Port is the TCP port to listen on. 0 selects a free one, which only the log shows.
	Port int
}

// Server is the gRPC server of a unit.
type Server interface {
	// GRPC returns the registrar for services, which must be registered before Run.
	GRPC() grpc.ServiceRegistrar

	// Run serves until the process gets SIGINT or SIGTERM. It then calls onShutdownFunc, still serving, and
	// afterwards stops gracefully: it accepts no new calls and lets calls in flight end. Calls that have not ended
	// 25 s after the callback are cut off, and Run does not wait for a handler that ignores this.
	//
	// If serving fails, Run logs the error, calls onShutdownFunc, and returns. Further signals do not shorten the
	// shutdown; they have their usual effect again when Run has returned. onShutdownFunc may be nil. Run can be
	// called once.
	Run(onShutdownFunc func())
}

// serverLimits are the timeouts of a Server; tests shorten them.
type serverLimits struct {
	graceful time.Duration // for calls in flight to end after the shutdown callback
	// handshake is the time limit of a new connection's HTTP/2 handshake. gRPC's stop, even the forced one, waits
	// for connections in the handshake, by default for two minutes.
	handshake time.Duration
}

var defaultServerLimits = serverLimits{graceful: 25 * time.Second, handshake: 10 * time.Second}

// NewServer listens on 127.0.0.1. The error is the reason if that fails, most often because the port is in use
// (syscall.EADDRINUSE). From then on clients can connect; they are answered once Run is called. The logger may be
// nil.
func NewServer(options ServerOptions, logger logging.Logger) (Server, error) {
	s, err := newServer(options, logger, defaultServerLimits)
	if err != nil {
		return nil, err // not s: a nil *server in a Server is not nil
	}
	return s, nil
}

type server struct {
	grpc     *grpc.Server
	listener *countingListener
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
		listener: &countingListener{Listener: listener},
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
		if err != nil { // nil if other code stopped the gRPC server
			s.logger.Errorf("serve gRPC on %s: %v, shutting down", s.listener.Addr(), err)
		}
	}
	if onShutdownFunc != nil {
		onShutdownFunc()
	}
	if s.stop() {
		<-served
	}
	s.logger.Infof("server stopped")
}

// stop returns when no connection is left. It reports whether all calls ended; if not, a handler may run on that
// ignores the end of its call, and Serve does not return before that handler.
func (s *server) stop() bool {
	force := time.NewTimer(s.graceful)
	defer force.Stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
		return true
	case <-force.C:
		s.logger.Warnf("calls did not end within %v, cutting them off", s.graceful)
		// GracefulStop waits for every handler, even now, and may hold the lock that Stop needs to return.
		go s.grpc.Stop()
		s.listener.open.Wait()
		return false
	}
}

// loopback returns the address of a port on this machine.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func orSilent(logger logging.Logger) logging.Logger {
	if logger == nil {
		return logging.NewLogger("", logging.LogFuncs{})
	}
	return logger
}
