//go:build e2e && linux && (crash || torture)

package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/e2e/harness"
)

// calls are the requests of a rig, each with its own ID: the sent ones, the acknowledged ones, and those that the
// workers have noted as handled.
type calls struct {
	prefix string
	conn   *grpc.ClientConn // to whichever master runs

	mu          sync.Mutex
	sent, acked map[string]bool
	// marked are requests sent with their ID as hsu-request-id, so that they may be sent and handled more than
	// once, and count once. open are those that are not acknowledged, in order.
	marked  map[string]bool
	open    []string
	handled map[string]int
	relayed relayed
	read    map[string]int64 // how much of each worker's notes was read
	wrong   []string         // answers that do not match the request
}

func newCalls(prefix string) calls {
	return calls{
		prefix: prefix, marked: map[string]bool{}, sent: map[string]bool{}, acked: map[string]bool{},
		handled: map[string]int{}, read: map[string]int64{}, relayed: newRelayed(),
	}
}

// call sends one request with an ID and records the result.
func (c *calls) call(ctx context.Context, options ...grpc.CallOption) error {
	c.mu.Lock()
	id := fmt.Sprintf("%s-%d", c.prefix, len(c.sent))
	c.sent[id] = true
	c.mu.Unlock()
	return c.send(ctx, id, options...)
}

func (c *calls) send(ctx context.Context, id string, options ...grpc.CallOption) error {
	answer, err := proto.NewMyBusinessServiceClient(c.conn).ProcessData(ctx,
		&proto.ProcessRequest{Data: id}, options...)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked[id] = true
	c.open = slices.DeleteFunc(c.open, func(other string) bool { return other == id })
	if answer.GetResult() != "Processed: "+id || !answer.GetSuccess() {
		c.wrong = append(c.wrong, fmt.Sprintf("%s was answered with %v", id, answer))
	}
	return nil
}

// mark returns the ID of a new request that may be sent again.
func (c *calls) mark() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := fmt.Sprintf("%s-%d", c.prefix, len(c.sent))
	c.sent[id], c.marked[id] = true, true
	c.open = append(c.open, id)
	return id
}

// sendMarked sends a marked request, for the first time or again.
func (c *calls) sendMarked(ctx context.Context, id string, options ...grpc.CallOption) error {
	return c.send(metadata.AppendToOutgoingContext(ctx, harness.RequestID, id), id, options...)
}

// crowdMarked sends n marked requests one after the other, each by several callers at once, and returns when all
// have been answered or failed.
func (c *calls) crowdMarked(n int) {
	for range n {
		id := c.mark()
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				ctx, cancel := brief()
				defer cancel()
				_ = c.sendMarked(ctx, id)
			})
		}
		callers.Wait()
	}
}

// resend resends each unacknowledged marked request until it is acknowledged.
func (c *calls) resend() error {
	c.mu.Lock()
	open := slices.Clone(c.open)
	c.mu.Unlock()
	var errs []error
	for _, id := range open {
		ctx, cancel := brief()
		if err := c.sendMarked(ctx, id, grpc.WaitForReady(true)); err != nil {
			errs = append(errs, fmt.Errorf("request %s, sent again: %w", id, err))
		}
		cancel()
	}
	return errors.Join(errs...)
}

// crowd sends n requests at once and returns when all have been answered or failed.
func (c *calls) crowd(n int) {
	var callers sync.WaitGroup
	for range n {
		callers.Go(func() {
			ctx, cancel := brief()
			defer cancel()
			_ = c.call(ctx)
		})
	}
	callers.Wait()
}

// check compares a count with the sent, handled and acknowledged requests, ID by ID. No call may be in flight.
func (c *calls) check(folder string, processed int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.readNotes(folder); err != nil {
		return err
	}
	errs := []error{}
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, w := range c.wrong {
		fail("%s", w)
	}
	c.relayed.check(fail)
	for id := range c.acked {
		if c.handled[id] == 0 {
			fail("request %s was acknowledged, and no worker has handled it", id)
		}
	}
	for id, times := range c.handled {
		if !c.sent[id] {
			fail("request %s was handled, and never sent", id)
		}
		if times > 1 && !c.marked[id] {
			fail("request %s was handled %d times", id, times)
		}
	}
	if int(processed) < len(c.acked) || int(processed) > len(c.handled) {
		fail("processed_count is %d, want it between %d acknowledged and %d handled of %d sent",
			processed, len(c.acked), len(c.handled), len(c.sent))
	}
	return errors.Join(errs...)
}

// readNotes reads the workers' notes since its last call.
func (c *calls) readNotes(folder string) error {
	names, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, n := range names {
		info, err := n.Info()
		if err != nil || info.Size() == c.read[n.Name()] {
			continue
		}
		f, err := os.Open(filepath.Join(folder, n.Name()))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(io.NewSectionReader(f, c.read[n.Name()], info.Size()))
		_ = f.Close()
		if err != nil {
			return err
		}
		text = text[:bytes.LastIndexByte(text, '\n')+1] // a line that is being written is read next time
		c.read[n.Name()] += int64(len(text))
		for line := range bytes.Lines(text) {
			c.note(strings.TrimSuffix(string(line), "\n"))
		}
	}
	return nil
}

// note records a message that was handled. The caller holds c.mu.
func (c *calls) note(message string) {
	if strings.HasPrefix(message, relayedPrefix) {
		c.relayed.handled[message]++
		return
	}
	c.handled[message]++
}
