package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/core-tools/hsu-master/api/proto"
)

// serve runs the worker. It returns nil when a signal stops the worker, and an error if the worker cannot listen
// or serve.
func serve(port int, log *slog.Logger) error {
	coreLog := coreLogger(log)
	server, err := control.NewServer(control.ServerOptions{Port: port}, coreLog)
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	// The server returns the same way when a signal stops it and when it fails. The channel tells the two apart.
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(stop)

	healthy := newHealthService(log)
	control.RegisterGRPCServerHandler(server.GRPC(), newPinged(log), coreLog)
	proto.RegisterMyBusinessServiceServer(server.GRPC(), &business{log: log})
	grpc_health_v1.RegisterHealthServer(server.GRPC(), healthy)

	log.Info("worker started", "port", port, "pid", os.Getpid())
	server.Run(healthy.stop)
	if len(stop) == 0 {
		return fmt.Errorf("port %d: the server ended by itself", port)
	}
	log.Info("worker stopped")
	return nil
}

// coreLogger returns a logger for hsu-core that writes to log. It formats a message only if its level is enabled,
// so that a suppressed message costs nothing.
func coreLogger(log *slog.Logger) logging.Logger {
	levels := [...]slog.Level{
		logging.LogLevelDebug: slog.LevelDebug,
		logging.LogLevelInfo:  slog.LevelDebug, // routine messages; the worker logs its own
		logging.LogLevelWarn:  slog.LevelWarn,
		logging.LogLevelError: slog.LevelError,
	}
	return logging.NewLogger("", logging.LogFuncs{LogLevelf: func(level int, format string, args ...any) {
		if ctx := context.Background(); log.Enabled(ctx, levels[level]) {
			log.Log(ctx, levels[level], "hsu-core", "message", fmt.Sprintf(format, args...))
		}
	}})
}

// pinged logs each Ping, as the other methods log their requests.
type pinged struct {
	domain.Contract
	log *slog.Logger
}

func newPinged(log *slog.Logger) pinged {
	silent := logging.NewLogger("", logging.LogFuncs{}) // pinged logs the request itself
	return pinged{domain.NewDefaultHandler(silent), log}
}

func (p pinged) Ping(ctx context.Context) error {
	p.log.DebugContext(ctx, "request", "method", "Ping")
	return p.Contract.Ping(ctx)
}

// business is the worker's own service. Its count is only in memory on purpose: a count that continues to grow
// shows that the process has survived.
type business struct {
	proto.UnimplementedMyBusinessServiceServer
	log       *slog.Logger
	processed atomic.Int64
}

func (b *business) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	if b.log.Enabled(ctx, slog.LevelDebug) {
		data := req.GetData()
		b.log.DebugContext(ctx, "request", "method", "ProcessData", "data", clip(data), "bytes", len(data),
			"priority", req.GetPriority())
	}
	b.processed.Add(1)
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

func (b *business) GetStatus(ctx context.Context, _ *proto.StatusRequest) (*proto.StatusResponse, error) {
	b.log.DebugContext(ctx, "request", "method", "GetStatus")
	return &proto.StatusResponse{Status: "running", ProcessedCount: b.processed.Load()}, nil
}

// clip limits, in bytes, how much of a request's data is written to the log.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// healthService reports SERVING until stop. A Watch call never ends by itself and would delay a graceful stop
// indefinitely, so stop ends these calls.
type healthService struct {
	*health.Server
	log      *slog.Logger
	stopping context.Context
	end      context.CancelFunc
}

func newHealthService(log *slog.Logger) *healthService {
	h := &healthService{Server: health.NewServer(), log: log}
	h.SetServingStatus(proto.MyBusinessService_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	h.stopping, h.end = context.WithCancel(context.Background())
	return h
}

func (h *healthService) stop() {
	h.Shutdown()
	h.end()
}

func (h *healthService) Check(ctx context.Context,
	req *grpc_health_v1.HealthCheckRequest,
) (*grpc_health_v1.HealthCheckResponse, error) {
	h.log.DebugContext(ctx, "request", "method", "Check", "service", clip(req.GetService()))
	return h.Server.Check(ctx, req)
}

func (h *healthService) Watch(req *grpc_health_v1.HealthCheckRequest, stream grpc_health_v1.Health_WatchServer) error {
	h.log.DebugContext(stream.Context(), "request", "method", "Watch", "service", clip(req.GetService()))
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.stopping, cancel)()
	return h.Server.Watch(req, &watcher{stream, ctx})
}

// watcher is a stream whose context is ctx.
type watcher struct {
	grpc_health_v1.Health_WatchServer
	ctx context.Context
}

func (w *watcher) Context() context.Context { return w.ctx }
