package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

func TestPingThatNeverLeftIsLocal(t *testing.T) {
	// In gRPC's own words, because gRPC gives the reason as text only.
	dialing := func(errno syscall.Errno) error {
		conn, err := grpc.NewClient("passthrough:///127.0.0.1:1",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", errno)}
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		return fmt.Errorf("ping: %w",
			conn.Invoke(t.Context(), "/proto.CoreService/Ping", &emptypb.Empty{}, &emptypb.Empty{}))
	}
	for err, want := range map[error]bool{
		dialing(syscall.EMFILE):                                     true,
		dialing(syscall.ENFILE):                                     true,
		dialing(syscall.ECONNREFUSED):                               false,
		status.Error(codes.Internal, "too many open files"):         false, // the worker's own words
		status.Error(codes.DeadlineExceeded, "deadline exceeded"):   false,
		fmt.Errorf("no answer: %w", errors.New("connection reset")): false,
	} {
		if got := Local(err); got != want {
			t.Errorf("Local(%v) = %t", err, got)
		}
	}
}
