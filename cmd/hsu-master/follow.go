package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/exit"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
)

// watchRetry is the interval between attempts to reach a master again.
const watchRetry = 250 * time.Millisecond

// followMasters goes on after a master has ended with err: it calls receive, which prints what the next master sends,
// for one master after another. begun reports whether the master has answered. followMasters returns nil when ctx is
// done, and the first error that another attempt would not help against.
func followMasters(
	ctx context.Context, notes io.Writer, err error, receive func(context.Context) (begun bool, err error),
) error {
	for told := false; ; {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted
		}
		away := errors.Is(err, exit.ErrNoMaster) || errors.Is(err, exit.ErrHeld) ||
			status.Code(err) == codes.Unavailable
		if err != nil && !away {
			return err
		}
		if !told {
			told = true
			fmt.Fprintf(notes, "hsu-master: %s\n", render.MasterAway)
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
		var begun bool
		begun, err = receive(ctx)
		told = told && !begun
	}
}

// untilAnswer returns a context that ends, with an error for the user as its cause, if answered is not called within
// answerWithin. The caller must call end.
func untilAnswer(ctx context.Context, f folders) (_ context.Context, answered, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	hangs := time.AfterFunc(answerWithin, func() {
		cancel(f.silent())
	})
	return ctx, func() { hangs.Stop() }, func() {
		hangs.Stop()
		cancel(nil)
	}
}
