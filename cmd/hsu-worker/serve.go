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

// serve returns when the worker was told to stop (nil), or cannot listen or serve.
func serve(port int, log *slog.Logger) error {
	coreLog := coreLogger(log)
	server, err := control.NewServer(control.ServerOptions{Port: port}, coreLog)
	if err != nil {
		return fmt.Errorf("port %d: %w", port, err)
	}
	// The server returns in the same way when it was stopped and when it broke; this tells them apart.
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

// coreLogger lets hsu-core write to log. Its messages are finished before they get there, and their level is
// asked for first, so that a silenced one costs nothing.
func coreLogger(log *slog.Logger) logging.Logger {
	levels := [...]slog.Level{
		logging.LogLevelDebug: slog.LevelDebug,
		logging.LogLevelInfo:  slog.LevelDebug, // routine here: the worker says itself what it does
		logging.LogLevelWarn:  slog.LevelWarn,
		logging.LogLevelError: slog.LevelError,
	}
	return logging.NewLogger("", logging.LogFuncs{LogLevelf: func(level int, format string, args ...any) {
		if ctx := context.Background(); log.Enabled(ctx, levels[level]) {
			log.Log(ctx, levels[level], "hsu-core", "message", fmt.Sprintf(format, args...))
		}
	}})
}

// pinged logs a line for each Ping, as the other methods do.
type pinged struct {
	domain.Contract
	log *slog.Logger
}

func newPinged(log *slog.Logger) pinged {
	silent := logging.NewLogger("", logging.LogFuncs{}) // the line is ours
	return pinged{domain.NewDefaultHandler(silent), log}
}

func (p pinged) Ping(ctx context.Context) error {
	p.log.DebugContext(ctx, "request", "method", "Ping")
	return p.Contract.Ping(ctx)
}

// business is the worker's own service. Its count is in memory on purpose: that it goes on growing shows that
// the process has survived.
type business struct {
	proto.UnimplementedMyBusinessServiceServer
	log       *slog.Logger
	processed atomic.Int64
}

func (b *business) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	if b.log.Enabled(ctx, slog.LevelDebug) {
		data := req.GetData()
		b.log.DebugContext(ctx, "request", "method", "ProcessData", "data", clip(data), "bytes", len(data), "priority", req.GetPriority())
	}
	b.processed.Add(1)
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

func (b *business) GetStatus(ctx context.Context, _ *proto.StatusRequest) (*proto.StatusResponse, error) {
	b.log.DebugContext(ctx, "request", "method", "GetStatus")
	return &proto.StatusResponse{Status: "running", ProcessedCount: b.processed.Load()}, nil
}

// clip bounds what a caller can write to the log with one request, in bytes.
func clip(s string) string {
	const most = 200
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}

// healthService says SERVING until stop. A watcher's call never ends by itself and would hold up a graceful stop
// for as long as that may take, so stop ends it.
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

func (h *healthService) Check(ctx context.Context, req *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
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

// watcher is a stream that also ends with ctx.
type watcher struct {
	grpc_health_v1.Health_WatchServer
	ctx context.Context
}

func (w *watcher) Context() context.Context { return w.ctx }
