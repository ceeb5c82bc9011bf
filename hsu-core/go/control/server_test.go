//go:build go1.25

package control

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
)

// pingFunc implements domain.Contract.
type pingFunc func(ctx context.Context) error

func (f pingFunc) Ping(ctx context.Context) error { return f(ctx) }

func (s *server) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// running is a server of this process with its own signal channel.
type running struct {
	*server
	signals chan os.Signal
	events  events        // "callback", and the test's own
	done    chan struct{} // closed when run has returned
}

type events struct {
	mu   sync.Mutex
	list []string
}

func (e *events) add(event string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, event)
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.list, " ")
}

// serve runs a server that answers Pings with handler, and calls callback, if not nil, on shutdown.
func serve(t *testing.T, handler domain.Contract, callback func(*running), limits serverLimits) *running {
	t.Helper()
	s, err := newServer(ServerOptions{}, nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{server: s, signals: make(chan os.Signal, 1), done: make(chan struct{})}
	RegisterGRPCServerHandler(s.GRPC(), handler, nil)
	go func() {
		defer close(r.done)
		s.run(r.signals, func() {
			r.events.add("callback")
			if callback != nil {
				callback(r)
			}
		})
	}()
	t.Cleanup(func() {
		s.grpc.Stop()
		<-r.done
	})
	return r
}

// client returns a Contract for the server on port.
func client(t *testing.T, port int) domain.Contract {
	t.Helper()
	conn, err := NewConnection(ConnectionOptions{AttachPort: port}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Shutdown)
	return NewGRPCClientGateway(conn.GRPC(), nil)
}

func ping(t *testing.T, unit domain.Contract) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return unit.Ping(ctx)
}

func TestServerAnswersPing(t *testing.T) {
	r := serve(t, domain.NewDefaultHandler(nil), nil, defaultServerLimits)
	if err := ping(t, client(t, r.port())); err != nil {
		t.Errorf("Ping = %v, want nil", err)
	}
}

func TestHandlerErrorsReachTheCaller(t *testing.T) {
	for _, c := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{status.Error(codes.FailedPrecondition, "not yet"), codes.FailedPrecondition, "not yet"},
		{errors.New("100% %s"), codes.Unknown, "100% %s"},
	} {
		r := serve(t, pingFunc(func(context.Context) error { return c.err }), nil, defaultServerLimits)
		err := ping(t, client(t, r.port()))
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("Ping = %v, want %v with %q", err, c.code, c.text)
		}
	}
}

func TestPortInUseIsTheError(t *testing.T) {
	first, err := newServer(ServerOptions{}, nil, defaultServerLimits)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.listener.Close() }()
	second, err := NewServer(ServerOptions{Port: first.port()}, nil)
	if !errors.Is(err, syscall.EADDRINUSE) || second != nil {
		t.Errorf("NewServer = %v, %v, want nil and %v", second, err, syscall.EADDRINUSE)
	}
	for _, port := range []int{-1, 65536} {
		if s, err := NewServer(ServerOptions{Port: port}, nil); err == nil || s != nil {
			t.Errorf("NewServer on port %d = %v, %v, want nil and an error", port, s, err)
		}
	}
}

func TestServerListensOnLoopbackOnly(t *testing.T) {
	var log events
	infof := func(format string, args ...any) { log.add(format) }
	s, err := newServer(ServerOptions{}, logging.NewLogger("", logging.LogFuncs{Infof: infof}), defaultServerLimits)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.listener.Close() }()
	if ip := s.listener.Addr().(*net.TCPAddr).IP; !ip.Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("listens on %v, want 127.0.0.1", ip)
	}
	if log.String() == "" {
		t.Error("nothing logged: nobody could tell a port that was chosen for them")
	}
}

func TestRunReturnsWhenServeFails(t *testing.T) {
	r := serve(t, domain.NewDefaultHandler(nil), nil, defaultServerLimits)
	if err := ping(t, client(t, r.port())); err != nil {
		t.Fatal(err)
	}
	_ = r.listener.Close()
	<-r.done
	if got := r.events.String(); got != "callback" {
		t.Errorf("events %q, want the callback once", got)
	}
}

func TestRunReturnsWhenServeFailsAtOnce(t *testing.T) {
	s, err := newServer(ServerOptions{}, nil, defaultServerLimits)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.listener.Close()
	s.Run(nil) // the exported method, with a nil callback
}

func TestGracefulStopLetsCallsEnd(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	handler := pingFunc(func(context.Context) error {
		close(entered)
		<-release
		return nil
	})
	// The server still serves the call during the callback; the call is released only afterwards.
	r := serve(t, handler, func(r *running) {
		time.AfterFunc(50*time.Millisecond, func() { close(release) })
	}, defaultServerLimits)

	unit, answer := client(t, r.port()), make(chan error, 1)
	go func() {
		err := unit.Ping(context.Background())
		r.events.add("answer")
		answer <- err
	}()
	<-entered
	r.signals <- syscall.SIGTERM
	if err := <-answer; err != nil {
		t.Errorf("call under way ended with %v, want nil", err)
	}
	<-r.done
	if got := r.events.String(); got != "callback answer" {
		t.Errorf("events %q, want callback, then answer", got)
	}
	if err := ping(t, client(t, r.port())); status.Code(err) != codes.Unavailable {
		t.Errorf("after the stop: %v, want Unavailable", err)
	}
}

func TestForcedStopBeginsAfterTheCallback(t *testing.T) {
	const graceful = 200 * time.Millisecond
	entered, canceled := make(chan struct{}), make(chan struct{})
	handler := pingFunc(func(ctx context.Context) error {
		close(entered)
		<-ctx.Done()
		close(canceled)
		return ctx.Err()
	})
	var callbackEnded time.Time
	r := serve(t, handler, func(*running) {
		select {
		case <-canceled:
			t.Error("call cut off while the callback ran")
		case <-time.After(2 * graceful): // longer than the limit if it counted from the signal
		}
		callbackEnded = time.Now()
	}, serverLimits{graceful: graceful, handshake: time.Minute})

	unit, answer := client(t, r.port()), make(chan error, 1)
	go func() { answer <- unit.Ping(context.Background()) }()
	<-entered
	r.signals <- syscall.SIGINT
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Errorf("call that does not end: %v, want Unavailable", err)
	}
	<-r.done
	if took := time.Since(callbackEnded); took < graceful {
		t.Errorf("forced %v after the callback, want %v", took, graceful)
	}
}

// A handler that ignores the end of its call must not keep Run from returning.
func TestForcedStopWithAHandlerThatIgnoresIt(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	handler := pingFunc(func(context.Context) error {
		close(entered)
		<-release
		return nil
	})
	r := serve(t, handler, nil, serverLimits{graceful: 50 * time.Millisecond, handshake: time.Minute})
	unit, answer := client(t, r.port()), make(chan error, 1)
	go func() { answer <- unit.Ping(context.Background()) }()
	<-entered
	r.signals <- syscall.SIGTERM
	<-r.done
	if err := <-answer; status.Code(err) != codes.Unavailable {
		t.Errorf("call that does not end: %v, want Unavailable", err)
	}
}

// A connection that never sends anything must not keep the server from stopping.
func TestStopWithASilentConnection(t *testing.T) {
	r := serve(t, domain.NewDefaultHandler(nil), nil,
		serverLimits{graceful: 50 * time.Millisecond, handshake: 300 * time.Millisecond})
	conn, err := net.Dial("tcp", r.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// The silent connection has been accepted once another one is served. On a busy machine that one may exceed the
	// time limit of the handshake too, and is then made again.
	again := domain.RetryPingOptions{RetryAttempts: 20, RetryInterval: 10 * time.Millisecond}
	if err := domain.RetryPing(t.Context(), client(t, r.port()), again, nil); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	r.signals <- syscall.SIGTERM
	<-r.done
	if took := time.Since(start); took > time.Minute { // gRPC's own limit of the handshake is two minutes
		t.Errorf("stopped after %v", took)
	}
}

func TestDefaultServerLimits(t *testing.T) {
	if defaultServerLimits.graceful != 25*time.Second || defaultServerLimits.handshake >= defaultServerLimits.graceful {
		t.Errorf("limits %+v, want 25 s, and a handshake that is over by then", defaultServerLimits)
	}
}

func TestGRPCReturnsTheServer(t *testing.T) {
	r := serve(t, domain.NewDefaultHandler(nil), nil, defaultServerLimits)
	if _, ok := r.GRPC().(*grpc.Server); !ok {
		t.Errorf("GRPC() is a %T, want *grpc.Server", r.GRPC())
	}
}
