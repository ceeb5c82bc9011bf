package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The end of a master, for example by a detach, ends its wait for a starting worker; the start has not failed.
func TestEndOfTheWaitIsNotThatOfTheWorker(t *testing.T) {
	w := &owner{
		Worker: &Worker{inbox: make(chan message, 1)},
		env:    &Env{AwaitListener: func(ctx context.Context, _ int, _ func(error)) error { return ctx.Err() }},
		unit:   unit.Spec{StartTimeout: time.Minute},
		rec:    records.Worker{Instance: &records.Instance{Port: 1}},
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 50 { // otherwise chance decides
		w.await(ended)
		w.helpers.Wait()
		if len(w.inbox) > 0 {
			t.Fatal("the worker is said to have failed")
		}
	}
}

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
		if got := brief(err); got != want {
			t.Errorf("brief(%v) = %q, want %q", err, got, want)
		}
	}
}
