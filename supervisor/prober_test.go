package supervisor

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// pinger is the common interface of workers and registered endpoints.
type pinger interface {
	Ping(ctx context.Context) error
	Method() probe.Method
}

// Workers and registered endpoints are probed in the same ways, here with real servers.
func TestServersAreAskedByTheFirstMethodThatTheyImplement(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	core := probe.CoreLogger(log)
	state := health.NewServer()
	servers := map[string]struct {
		serve func(*grpc.Server)
		want  probe.Method
	}{
		"an HSU": {
			func(s *grpc.Server) { control.RegisterGRPCServerHandler(s, domain.NewDefaultHandler(core), core) },
			probe.Ping,
		},
		"with health":        {func(s *grpc.Server) { healthpb.RegisterHealthServer(s, state) }, probe.GRPC},
		"with neither":       {func(*grpc.Server) {}, probe.TCP},
		"an HSU that is ill": {func(s *grpc.Server) { control.RegisterGRPCServerHandler(s, ill{}, core) }, probe.Ping},
	}
	dialers := map[string]func(t *testing.T, l net.Listener) pinger{
		"worker": func(t *testing.T, l net.Listener) pinger {
			p, err := worker.Dial(l.Addr().(*net.TCPAddr).Port, log)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Shutdown)
			return p
		},
		"from outside": func(t *testing.T, l net.Listener) pinger {
			p, err := registrations.Dial(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close() })
			return p
		},
	}
	for name, server := range servers {
		for kind, dial := range dialers {
			t.Run(name+"/"+kind, func(t *testing.T) {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				srv := grpc.NewServer()
				server.serve(srv)
				ended := make(chan error, 1)
				go func() { ended <- srv.Serve(l) }()
				p := dial(t, l)
				ping := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					return p.Ping(ctx)
				}
				for range 2 {
					if err := ping(); (err == nil) != (name != "an HSU that is ill") {
						t.Errorf("Ping: %v", err)
					}
					if got := p.Method(); got != server.want {
						t.Errorf("asked by %s, want %s", got, server.want)
					}
				}
				if server.want == probe.GRPC {
					state.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
					if err := ping(); err == nil || !strings.Contains(err.Error(), "NOT_SERVING") {
						t.Errorf("it is not serving: %v", err)
					}
					state.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
				}
				srv.Stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if err := ping(); err == nil {
					t.Error("it answers after its end")
				}
			})
		}
	}
}

// ill is a core service that answers every Ping with an error.
type ill struct{}

func (ill) Ping(context.Context) error { return status.Error(codes.FailedPrecondition, "no database") }
