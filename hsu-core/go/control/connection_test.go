//go:build go1.25

package control

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-core/go/domain"
)

func TestNewConnectionRefuses(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "unit")
	if err := os.WriteFile(notExecutable, []byte("no program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		options ConnectionOptions
	}{
		{"both unset", ConnectionOptions{}},
		{"negative port", ConnectionOptions{AttachPort: -1}},
		{"negative port with a path", ConnectionOptions{AttachPort: -1, ServerPath: os.Args[0]}},
		{"port too high", ConnectionOptions{AttachPort: 65536}},
		{"path missing", ConnectionOptions{ServerPath: filepath.Join(t.TempDir(), "missing")}},
		{"path not executable", ConnectionOptions{ServerPath: notExecutable}},
		{"path a folder", ConnectionOptions{ServerPath: t.TempDir()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := NewConnection(c.options, nil)
			if err == nil || conn != nil {
				t.Errorf("NewConnection = %v, %v, want nil and an error", conn, err)
			}
		})
	}
}

func TestAttachConnectsLazily(t *testing.T) {
	port := quietPort(t)
	conn, err := NewConnection(ConnectionOptions{AttachPort: port}, nil)
	if err != nil {
		t.Fatalf("NewConnection to a port that nobody listens on: %v", err)
	}
	defer conn.Shutdown()
	channel, ok := conn.GRPC().(*grpc.ClientConn)
	if !ok {
		t.Fatalf("GRPC() is a %T, want *grpc.ClientConn", conn.GRPC())
	}
	if state := channel.GetState(); state != connectivity.Idle {
		t.Errorf("state before the first call: %v, want %v", state, connectivity.Idle)
	}

	unit := NewGRPCClientGateway(conn.GRPC(), nil)
	if err := ping(t, unit); status.Code(err) != codes.Unavailable {
		t.Errorf("Ping without a unit = %v, want Unavailable", err)
	}

	s, err := newServer(ServerOptions{Port: port}, nil, defaultServerLimits)
	if err != nil {
		t.Fatal(err)
	}
	RegisterGRPCServerHandler(s.GRPC(), domain.NewDefaultHandler(nil), nil)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.run(nil, nil)
	}()
	defer func() {
		s.grpc.Stop()
		<-served
	}()
	options := domain.RetryPingOptions{RetryAttempts: 100, RetryInterval: 10 * time.Millisecond}
	if err := domain.RetryPing(t.Context(), unit, options, nil); err != nil {
		t.Errorf("RetryPing once the unit is there: %v", err)
	}
}

func TestShutdownOfAnAttachedUnit(t *testing.T) {
	r := serve(t, domain.NewDefaultHandler(nil), nil, defaultServerLimits)
	conn, err := NewConnection(ConnectionOptions{AttachPort: r.port(), ServerPath: "/does/not/matter"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	unit := NewGRPCClientGateway(conn.GRPC(), nil)
	if err := ping(t, unit); err != nil {
		t.Fatal(err)
	}
	conn.Shutdown()
	conn.Shutdown()
	if err := ping(t, unit); status.Code(err) != codes.Canceled {
		t.Errorf("Ping after Shutdown = %v, want Canceled", err)
	}
	if err := ping(t, client(t, r.port())); err != nil {
		t.Errorf("the unit after Shutdown of a connection to it: %v, want it to run on", err)
	}
}
