//go:build linux || darwin

package terminal

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// WithReader returns a context that ends when the output w has lost its reader, such as a pipe that "head"
// has closed: a command that waits for something to print would notice that only with the next line. end releases it.
func WithReader(ctx context.Context, w io.Writer) (_ context.Context, end func()) {
	out := File(w)
	if out == nil {
		return ctx, func() {}
	}
	wake, closed, err := os.Pipe()
	if err != nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	fds := []unix.PollFd{
		{Fd: int32(out.Fd())},  //nolint:gosec // a descriptor fits in 32 bits; errors and hang-ups are always reported
		{Fd: int32(wake.Fd())}, //nolint:gosec // likewise
	}
	go func() {
		defer close(done)
		for {
			_, err := unix.Poll(fds, -1)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err == nil && fds[1].Revents == 0 && fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0 {
				cancel(ErrNoReader)
			}
			return
		}
	}()
	return ctx, func() {
		_ = closed.Close() // hangs the other end up
		<-done
		_ = wake.Close()
		cancel(nil)
	}
}
