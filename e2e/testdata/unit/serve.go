package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// setOption sets an option of a socket before it is bound.
func setOption(option, value int) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value)
		}), err)
	}
}

// serve behaves as a good unit, and handles signals according to its habit.
func serve(o options) error {
	var config net.ListenConfig
	switch o.habit {
	case "sharing": // other sockets of this user may listen on the port too
		config.Control = setOption(unix.SO_REUSEPORT, 1)
	case "lone": // no other socket may be bound to it; Go sets the option otherwise
		config.Control = setOption(unix.SO_REUSEADDR, 0)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port))
	if o.habit == "module" { // it ignores the port
		address = o.listen
	}
	var l net.Listener
	var err error
	for one := range strings.SplitSeq(address, ",") {
		if l, err = config.Listen(context.Background(), "tcp", one); err != nil {
			break
		}
	}
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
	if o.habit == "sharing" { // so that the master soon reconnects, and may then get another socket
		options = append(options, grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: 100 * time.Millisecond,
		}))
	}
	srv := grpc.NewServer(options...)
	switch o.habit {
	case "healthy":
		healthpb.RegisterHealthServer(srv, health.NewServer())
	case "bare": // offers no service at all
	case "module": // offers no CoreService
		proto.RegisterMyBusinessServiceServer(srv, served)
	default:
		control.RegisterGRPCServerHandler(srv, domain.NewDefaultHandler(silent), silent)
		proto.RegisterMyBusinessServiceServer(srv, served)
	}
	if o.habit == "told" {
		reflection.Register(srv)
	}
	if o.echo || o.habit == "told" || o.habit == "echo" || o.habit == "module" {
		echo.Register(srv, served.Echo)
	}

	switch signals := make(chan os.Signal, 8); o.habit {
	case "abrupt": // SIGTERM ends it at once, with its calls
		served.takes = 10 * time.Millisecond
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
			if o.registry != "" {
				fmt.Println("unpublished:", o.unpublish())
			}
			srv.GracefulStop()
		}()
	}
	if port := l.Addr().(*net.TCPAddr).Port; o.habit == "module" {
		if err := o.leavePort(port); err != nil {
			return err
		}
		if o.registry != "" {
			if err := o.publish(port); err != nil {
				return err
			}
		}
	}
	fmt.Println("serving")
	return srv.Serve(l)
}

// business answers with data that exists only in this process's memory.
type business struct {
	proto.UnimplementedMyBusinessServiceServer
	born      string
	notes     notes
	unique    bool // no two answers are the same
	takes     time.Duration
	processed atomic.Int64
}

func (b *business) ProcessData(_ context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	n := b.processed.Add(1)
	b.notes.handled(req.GetData())
	time.Sleep(b.takes)
	if b.unique {
		return &proto.ProcessResponse{
			Result: fmt.Sprintf("%s, the %d. of %s", req.GetData(), n, b.born), Success: true,
		}, nil
	}
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

// Echo takes a moment for a message that contains "slow", so that many calls are in flight.
func (b *business) Echo(ctx context.Context, message string) (string, error) {
	b.notes.handled(message)
	return message, echo.Slowly(ctx, message)
}

func (b *business) GetStatus(context.Context, *proto.StatusRequest) (*proto.StatusResponse, error) {
	return &proto.StatusResponse{Status: b.born, ProcessedCount: b.processed.Load()}, nil
}
