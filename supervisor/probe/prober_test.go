package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestBrief(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]error{
		"connection refused":       dial,
		"Unavailable: gone":        fmt.Errorf("ping: %w", status.Error(codes.Unavailable, "gone")),
		"its health is UNKNOWN":    errors.New("its health is UNKNOWN"),
		"DeadlineExceeded: \uFFFD": status.Error(codes.DeadlineExceeded, "\xff"),
		context.Canceled.Error():   context.Canceled,
		strings.Repeat("x", 200):   errors.New(strings.Repeat("x", 10_000)),
	} {
		if got := Brief(err); got != want {
			t.Errorf("Brief(%v) = %q, want %q", err, got, want)
		}
	}
}
