package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/domain"
	"github.com/core-tools/hsu-core/go/logging"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/proto"
)

// serviceForward is a second service of the bench's worker, beside the business service: the same ProcessData under
// a name that the master does not count, and a stream.
const serviceForward = "bench.Forward"

// streamName is the stream's method: it returns each message unchanged.
const streamName = "Echo"

var streamDesc = grpc.StreamDesc{StreamName: streamName, ServerStreams: true, ClientStreams: true}

// childWorker is a worker of a master. Its arguments are the flags that the master passes, with --port.
func childWorker(c *childIO) error {
	port := 0
	flags := flag.NewFlagSet("worker", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.IntVar(&port, "port", 0, "")
	if err := flags.Parse(c.args); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	server := newServer()
	go func() {
		<-stop
		server.Stop()
	}()
	return server.Serve(listener)
}

// newServer returns a server of both services that answers Pings.
func newServer() *grpc.Server {
	silent := logging.NewLogger("", logging.LogFuncs{})
	server := grpc.NewServer(grpc.MaxRecvMsgSize(largestMessage))
	control.RegisterGRPCServerHandler(server, domain.NewDefaultHandler(silent), silent)
	desc := proto.MyBusinessService_ServiceDesc
	server.RegisterService(&desc, processor{})
	desc.ServiceName = serviceForward
	echo := streamDesc
	echo.Handler = echoStream
	desc.Streams = []grpc.StreamDesc{echo}
	server.RegisterService(&desc, processor{})
	return server
}

type processor struct {
	proto.UnimplementedMyBusinessServiceServer
}

func (processor) ProcessData(_ context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	return &proto.ProcessResponse{Result: "Processed: " + req.GetData(), Success: true}, nil
}

func echoStream(_ any, stream grpc.ServerStream) error {
	for {
		message := new(proto.ProcessRequest)
		if err := stream.RecvMsg(message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
}

// workerFlags returns the flags with which a master runs n of the bench's workers and offers their services.
func (l *lab) workerFlags(n int) []string {
	return []string{
		"--worker-path", l.benchPath, "--worker-count", strconv.Itoa(n),
		"--worker-arg", childMark, "--worker-arg", "worker",
		"--worker-service", proto.MyBusinessService_ServiceDesc.ServiceName, "--worker-service", serviceForward,
	}
}

// gateway is a master with workers.
type gateway struct {
	*master
	workers []string // their addresses
}

// startGateway starts a master with workers and further flags. With secure it serves TLS.
func (l *lab) startGateway(
	ctx context.Context, workers int, secure *certificate, flags ...string,
) (_ *gateway, err error) {
	dir, err := l.newFolder()
	if err != nil {
		return nil, err
	}
	m, err := l.startMaster(dir, slices.Concat(l.workerFlags(workers), secure.flags(), flags)...)
	if err != nil {
		return nil, err
	}
	m.secure = secure
	defer func() {
		if err != nil {
			err = errors.Join(err, m.stop())
		}
	}()
	if _, err := m.awaitWorkers(ctx, workers); err != nil {
		return nil, err
	}
	if _, err := m.awaitServing(ctx); err != nil {
		return nil, err
	}
	running, err := m.runningWorkers(ctx, workers)
	if err != nil {
		return nil, err
	}
	g := &gateway{master: m}
	for _, w := range running {
		g.workers = append(g.workers, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(w.GetPort()))))
	}
	return g, nil
}

// filler returns a message of about size bytes.
func filler(size int) *proto.ProcessRequest {
	return &proto.ProcessRequest{Data: strings.Repeat("x", size)}
}

// openEcho opens the stream of a worker, directly or through a proxy.
func openEcho(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &streamDesc, "/"+serviceForward+"/"+streamName)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return stream, nil
}
