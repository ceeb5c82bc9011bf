package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/probe"

	"example.com/custom-master/proto"
)

// business is the master's service. It forwards each request to a ready worker.
type business struct {
	proto.UnimplementedMyBusinessServiceServer
	workers *supervisor.Supervisor
	store   *store.DB
}

func (b *business) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	pick, err := b.acquire(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := proto.NewMyBusinessServiceClient(pick.Conn()).ProcessData(ctx, req)
	pick.End(err)
	if err != nil {
		return nil, err
	}
	// Count the request before it is acknowledged, so that no crash can lose it.
	if err := b.store.AddProcessed(ctx, 1); err != nil {
		return nil, status.Error(codes.Unavailable, "not counted, so not done: "+err.Error())
	}
	return resp, nil
}

func (b *business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: string(b.workers.Status()), ProcessedCount: b.store.Processed()}, nil
}

func (b *business) Summarize(ctx context.Context, req *proto.SummarizeRequest) (*proto.SummarizeResponse, error) {
	pick, err := b.acquire(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := proto.NewMyBusinessServiceClient(pick.Conn()).Summarize(ctx, req)
	pick.End(err)
	return resp, err
}

func (b *business) acquire(ctx context.Context) (*supervisor.Pick, error) {
	pick, err := b.workers.Acquire(ctx, proto.MyBusinessService_ServiceDesc.ServiceName, "")
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return pick, nil
}

// runWorker runs the program as a worker: an HSU that answers Ping and processes requests.
func runWorker(log *slog.Logger, args []string) error {
	flags := flag.NewFlagSet("custom-master worker", flag.ExitOnError)
	port := flags.Int("port", 0, "port to serve on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	core := probe.CoreLogger(log)
	server, err := control.NewServer(control.ServerOptions{Port: *port}, core)
	if err != nil {
		return fmt.Errorf("serve as a worker: %w", err)
	}
	control.RegisterGRPCServerHandler(server.GRPC(), domain.NewDefaultHandler(core), core)
	proto.RegisterMyBusinessServiceServer(server.GRPC(), &work{})
	server.Run(nil)
	return nil
}

type work struct {
	proto.UnimplementedMyBusinessServiceServer
	processed atomic.Int64
}

func (w *work) ProcessData(_ context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	w.processed.Add(1)
	return &proto.ProcessResponse{Result: "Done: " + req.GetData(), Success: true}, nil
}

func (w *work) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: "running", ProcessedCount: w.processed.Load()}, nil
}

func (w *work) Summarize(_ context.Context, req *proto.SummarizeRequest) (*proto.SummarizeResponse, error) {
	words := len(strings.Fields(req.GetText()))
	//nolint:gosec // both fit: a message has 4 MiB
	return &proto.SummarizeResponse{Words: int32(words), WorkerPid: int32(os.Getpid())}, nil
}
