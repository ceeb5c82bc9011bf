//go:build e2e && linux && (crash || torture)

package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/core-tools/hsu-master/e2e/harness"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// relayed are the messages of calls that the master only forwards, unary and in streams, each with its own ID.
type relayed struct {
	sent, acked map[string]bool
	twice       map[string]bool // the caller allows them to be handled twice
	handled     map[string]int
	streams     int // number of opened streams
}

func newRelayed() relayed {
	return relayed{
		sent: map[string]bool{}, acked: map[string]bool{}, twice: map[string]bool{}, handled: map[string]int{},
	}
}

// relayedPrefix distinguishes their messages from the requests that are counted.
const relayedPrefix = "relayed "

// check fails if an acknowledged message was not handled, or if one was handled twice without permission.
func (c *relayed) check(fail func(string, ...any)) {
	for id := range c.acked {
		if c.handled[id] == 0 {
			fail("%s was answered, and nobody has handled it", id)
		}
	}
	for id, times := range c.handled {
		if !c.sent[id] {
			fail("%s was handled, and never sent", id)
		}
		if times > 1 && !c.twice[id] {
			fail("%s was handled %d times", id, times)
		}
	}
}

// message returns the text of a new message; a slow one takes a moment.
func (c *calls) message(kind string, twice bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := fmt.Sprintf("%s%s %s-%d", relayedPrefix, kind, c.prefix, len(c.relayed.sent))
	c.relayed.sent[text] = true
	if twice {
		c.relayed.twice[text] = true
	}
	return text
}

// came records the result of a message.
func (c *calls) came(text, answer string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil && answer == text:
		c.relayed.acked[text] = true
	case err == nil:
		c.wrong = append(c.wrong, fmt.Sprintf("%q was answered with %q", text, answer))
	case !slices.Contains(excusable, status.Code(err)):
		c.wrong = append(c.wrong, fmt.Sprintf("%q has failed with %v", text, err))
	}
}

// excusable are the errors that a caller may get if the master or a worker dies or is slow, or if no endpoint
// offers the service.
var excusable = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Unimplemented}

// relay calls a service once. With twice, the call has an ID, so it may be handled more than once.
func (c *calls) relay(ctx context.Context, service string, twice bool, options ...grpc.CallOption) error {
	text := c.message("call", twice)
	if twice {
		ctx = metadata.AppendToOutgoingContext(ctx, harness.RequestID, text)
	}
	answer := new(wrapperspb.StringValue)
	err := c.conn.Invoke(ctx, "/"+service+"/Echo", wrapperspb.String(text), answer, options...)
	c.came(text, answer.GetValue(), err)
	return err
}

// stream is an open stream.
type stream struct {
	calls *calls
	grpc.ClientStream
}

// openStream opens a stream, for as long as ctx.
func (c *calls) openStream(ctx context.Context, service string, options ...grpc.CallOption) (*stream, error) {
	s, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		"/"+service+"/Stream", options...)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.relayed.streams++
	c.mu.Unlock()
	return &stream{c, s}, nil
}

// exchange sends a message and receives it back.
func (s *stream) exchange(kind string) error {
	text, answer := s.calls.message(kind, false), new(wrapperspb.StringValue)
	err := s.SendMsg(wrapperspb.String(text))
	if err == nil || errors.Is(err, io.EOF) { // RecvMsg returns the reason
		err = s.RecvMsg(answer)
	}
	s.calls.came(text, answer.GetValue(), err)
	return err
}

// finish ends the stream in an orderly way.
func (s *stream) finish() error {
	err := errors.Join(s.CloseSend(), s.RecvMsg(new(wrapperspb.StringValue)))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
