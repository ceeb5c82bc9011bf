//go:build linux || darwin

package terminal

import (
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// wrapped is a writer below another one.
type wrapped struct{ io.Writer }

func (w wrapped) Unwrap() io.Writer { return w.Writer }

// The context ends as soon as the reader of a pipe closes it, without anything being written.
func TestOutputThatNobodyReads(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = write.Close() }()
	ctx, end := WithReader(t.Context(), wrapped{write})
	defer end()
	if ctx.Err() != nil {
		t.Fatal("it has ended while there is a reader")
	}
	if err := read.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on without a reader")
	}
	if !errors.Is(context.Cause(ctx), ErrNoReader) {
		t.Errorf("the cause is %v", context.Cause(ctx))
	}
}

// A command that ends before its reader leaves nothing behind.
func TestOutputThatIsReadToTheEnd(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := WithReader(t.Context(), write)
	end()
	if errors.Is(context.Cause(ctx), ErrNoReader) {
		t.Error("the reader is said to be gone")
	}
	_, _ = read.Close(), write.Close()
}
