package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
)

// serve does what a good unit does, and answers signals by its habit.
func serve(o options) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port)))
	if err != nil {
		return err
	}
	silent := logging.NewLogger("", logging.LogFuncs{})
	srv := grpc.NewServer()
	control.RegisterGRPCServerHandler(srv, domain.NewDefaultHandler(silent), silent)
	proto.RegisterMyBusinessServiceServer(srv, &business{born: rand.Text()})

	switch signals := make(chan os.Signal, 8); o.habit {
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	case "stops-on-term":
		signal.Notify(signals, syscall.SIGTERM)
		go func() {
			for range signals {
				_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			}
		}()
	case "reexec":
		signal.Notify(signals, syscall.SIGHUP)
		arguments, environ := os.Args, os.Environ()
		go func() {
			<-signals
			srv.Stop()
			fmt.Println("executing itself")
			_ = syscall.Exec("/proc/self/exe", arguments, environ)
		}()
		fmt.Println("serving")
		_ = srv.Serve(l)
		select {} // the exec ends this
	default:
		signal.Notify(signals, syscall.SIGTERM)
		go func() {
			<-signals
			srv.GracefulStop()
		}()
	}
	fmt.Println("serving")
	return srv.Serve(l)
}

// business answers with what only this process's memory has.
type business struct {
	proto.UnimplementedMyBusinessServiceServer
	born      string
	processed atomic.Int64
}

func (b *business) ProcessData(_ context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	b.processed.Add(1)
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

func (b *business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: b.born, ProcessedCount: b.processed.Load()}, nil
}
