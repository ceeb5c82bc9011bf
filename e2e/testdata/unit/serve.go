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
	"google.golang.org/grpc/reflection"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// serve does what a good unit does, and answers signals by its habit.
func serve(o options) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port)))
	noted := takeNotes(o.notes, err)
	if err != nil {
		return err
	}
	silent := logging.NewLogger("", logging.LogFuncs{})
	served := &business{born: rand.Text(), notes: noted, unique: o.habit == "unique"}
	var options []grpc.ServerOption
	if o.echo {
		options = append(options, echo.Streams(served.Echo))
	}
	srv := grpc.NewServer(options...)
	control.RegisterGRPCServerHandler(srv, domain.NewDefaultHandler(silent), silent)
	proto.RegisterMyBusinessServiceServer(srv, served)
	if o.habit == "told" {
		reflection.Register(srv)
	}
	if o.echo || o.habit == "told" || o.habit == "echo" {
		echo.Register(srv, served.Echo)
	}

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
	notes     notes
	unique    bool // no two answers are the same
	processed atomic.Int64
}

func (b *business) ProcessData(_ context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	n := b.processed.Add(1)
	b.notes.handled(req.GetData())
	if b.unique {
		return &proto.ProcessResponse{Result: fmt.Sprintf("%s, the %d. of %s", req.GetData(), n, b.born), Success: true}, nil
	}
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

// Echo takes a moment for a message that says "slow", so that many are under way.
func (b *business) Echo(ctx context.Context, message string) (string, error) {
	b.notes.handled(message)
	return message, echo.Slowly(ctx, message)
}

func (b *business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: b.born, ProcessedCount: b.processed.Load()}, nil
}
