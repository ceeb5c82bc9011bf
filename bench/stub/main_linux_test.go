package main

import (
	"errors"
	"syscall"
	"testing"

	"github.com/core-tools/hsu-core/go/control"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/proto"
)

// A client of gRPC, such as the master, understands the answers.
func TestStubAnswersPings(t *testing.T) {
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
		syscall.Listen(socket, syscall.SOMAXCONN))
	if err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = serve(socket) }() // until the test ends its process
	for range 2 {
		conn, err := control.NewConnection(control.ConnectionOptions{
			AttachPort: at.(*syscall.SockaddrInet4).Port,
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		core := control.NewGRPCClientGateway(conn.GRPC(), nil)
		for range 100 {
			if err := core.Ping(t.Context()); err != nil {
				t.Fatalf("ping: %v", err)
			}
		}
		request := &proto.ProcessRequest{Data: "a message"}
		_, err = proto.NewMyBusinessServiceClient(conn.GRPC()).ProcessData(t.Context(), request)
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("a call with a message = %v, want UNIMPLEMENTED", err)
		}
		conn.Shutdown()
	}
}
