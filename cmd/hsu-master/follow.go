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

const (
	// watchRetry is the interval between attempts to reach a master again.
	watchRetry = 250 * time.Millisecond
	// stuckAfter is how long a process of a master may be there without an answer before a follower says so. A new
	// program has a minute to serve, then the former one is executed again.
	stuckAfter = 90 * time.Second
)

// followMasters goes on after a master has ended with err: it calls receive, which prints what the next master sends,
// for one master after another. begun reports whether the master has answered. It returns nil when ctx is done, and the
// first error that another attempt would not help against.
func followMasters(
	ctx context.Context, notes io.Writer, err error, receive func(context.Context) (begun bool, err error),
) error {
	var a absence
	for {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was interrupted
		}
		if err = a.note(notes, err); err != nil {
			return err
		}
		select {
		case <-time.After(watchRetry):
		case <-ctx.Done():
			return nil
		}
		var begun bool
		if begun, err = receive(ctx); begun {
			a = absence{}
		}
	}
}

// absence is the time from the end of a master to the answer of the next one.
type absence struct {
	told  bool      // that the follower waits
	stuck bool      // it was told that a process is there and does not answer
	since time.Time // of the first of the attempts in a row that such a process has not answered
}

// note records that an attempt to reach a master has ended with err. It returns an error if there is no use in another
// one.
func (a *absence) note(notes io.Writer, err error) error {
	none := errors.Is(err, exit.ErrNoMaster)
	_, silent := errors.AsType[noAnswerError](err)
	silent = silent || errors.Is(err, exit.ErrHeld)
	if err != nil && !none && !silent && status.Code(err) != codes.Unavailable {
		return err
	}
	if !a.told {
		a.told = true
		fmt.Fprintf(notes, "hsu-master: %s\n", render.MasterAway)
	}
	switch {
	case !silent:
		a.since = time.Time{}
	case a.since.IsZero():
		a.since = time.Now()
	case !a.stuck && time.Since(a.since) >= stuckAfter:
		a.stuck = true
		fmt.Fprintf(notes, "hsu-master: still waiting: %v\n", err)
	}
	return nil
}

// untilAnswer returns a context that ends, with an error for the user as its cause, if answered is not called within a
// time. The caller must call end.
func untilAnswer(ctx context.Context, f folders, within time.Duration) (_ context.Context, answered, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	hangs := time.AfterFunc(within, func() {
		cancel(f.silent(within))
	})
	return ctx, func() { hangs.Stop() }, func() {
		hangs.Stop()
		cancel(nil)
	}
}
