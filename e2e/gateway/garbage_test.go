//go:build e2e && linux

package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
)

// refusesAll is an answer that leaves a call unprocessed, so that it may be retried.
const refusesAll = "GOAWAY for every call"

// garbled are answers on a connection that are not gRPC.
var garbled = map[string]func(net.Conn){
	"closes at once": func(net.Conn) {},
	"random bytes": func(c net.Conn) {
		_, _ = c.Write(bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 1000))
		_, _ = io.Copy(io.Discard, c)
	},
	"HTTP/1.1": func(c net.Conn) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
		_, _ = io.Copy(io.Discard, c)
	},
	"a frame that is too large": afterRequest(func(f *http2.Framer, _ uint32) {
		_ = f.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20))
	}),
	"DATA before HEADERS": afterRequest(func(f *http2.Framer, stream uint32) {
		_ = f.WriteData(stream, true, []byte("no headers"))
	}),
	"a block that is no HPACK": afterRequest(func(f *http2.Framer, stream uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: bytes.Repeat([]byte{0xff}, 100), EndHeaders: true, EndStream: true,
		})
	}),
	"HTML": afterRequest(func(f *http2.Framer, stream uint32) {
		var block bytes.Buffer
		e := hpack.NewEncoder(&block)
		_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "502"})
		_ = e.WriteField(hpack.HeaderField{Name: "content-type", Value: "text/html"})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = f.WriteData(stream, true, []byte("<h1>Bad gateway</h1>"))
	}),
	"no trailers": afterRequest(func(f *http2.Framer, stream uint32) {
		var block bytes.Buffer
		e := hpack.NewEncoder(&block)
		_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
		_ = e.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
		_ = f.WriteData(stream, true, grpcMessage(nil))
	}),
	refusesAll: afterRequest(func(f *http2.Framer, _ uint32) {
		_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
	}),
	"a stream that nobody began": afterRequest(func(f *http2.Framer, stream uint32) {
		_ = f.WriteData(stream+100, true, []byte("hello"))
	}),
	"more than the window allows": afterRequest(func(f *http2.Framer, stream uint32) {
		for range 2000 {
			if f.WriteData(stream, false, make([]byte, 16<<10)) != nil {
				return
			}
		}
	}),
	"metadata without end": afterRequest(func(f *http2.Framer, stream uint32) {
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}})
		for range 10_000 {
			if err != nil {
				return
			}
			// A literal without indexing, with a name of 3 bytes and a value of 120.
			err = f.WriteContinuation(stream, false,
				bytes.Repeat(append([]byte{0x00, 3, 'x', '-', 'y', 120}, bytes.Repeat([]byte{'v'}, 120)...), 100))
		}
	}),
}

// soundly answers Ping and every other call with an empty message.
var soundly = afterRequest(func(f *http2.Framer, stream uint32) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = e.WriteField(hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = f.WriteData(stream, false, grpcMessage(nil))
	block.Reset()
	_ = e.WriteField(hpack.HeaderField{Name: "grpc-status", Value: "0"})
	_ = f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
	})
})

// afterRequest returns an endpoint that speaks HTTP/2 until a request has arrived, without parsing the request.
func afterRequest(answer func(f *http2.Framer, stream uint32)) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
			case *http2.PingFrame:
				if !frame.IsAck() {
					_ = f.WritePing(true, frame.Data)
				}
			case *http2.HeadersFrame:
				answer(f, frame.StreamID)
			}
		}
	}
}

func TestEndpointThatAnswersGarbageFailsItsOwnCallsOnly(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo")
	m := h.Start()
	awaitService(h, echoService, 1)
	before := residentSize(t, m.PID)
	others := startBystanders(t, h.Port)
	conn := h.Dial()
	t.Run("garbage", func(t *testing.T) {
		n := 0
		for name, talk := range garbled {
			n++
			service := fmt.Sprintf("test.Garbage%d", n)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				callGarbled(h, t, conn, service, talk, name == refusesAll)
			})
		}
	})
	others.awaitMore(t, 50)
	wantSize(t, m.PID, before)
	others.end()
	m.Stop()
}

// outsider is an endpoint of a service that answers in its own way on every connection that is made after it is
// ready.
type outsider struct {
	listener net.Listener
	address  string
	ready    atomic.Bool
	relayed  atomic.Int64 // connections on which it answers in its own way
	talks    sync.WaitGroup
}

// inviteGarbler registers an outsider, and returns when it is ready.
func inviteGarbler(h *harness.Host, t *testing.T, service string, talk func(net.Conn)) *outsider {
	t.Helper()
	l := listen(t)
	o := &outsider{listener: l, address: l.Addr().String()}
	o.talks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			// The health check makes the first connection, and another one if a slow answer makes it give up. It
			// gets sound answers.
			way := soundly
			if o.ready.Load() {
				way = func(c net.Conn) { o.relayed.Add(1); talk(c) }
			}
			o.talks.Go(func() { defer c.Close(); way(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close() })
	if r := h.CLI("service", "register", service, o.address); r.Code != 0 {
		t.Fatal(r.Stderr)
	}
	harness.WaitFor(t, "it is ready", func() error {
		if d, err := h.TryDump(); err != nil || !slices.Contains(addresses(d, service), o.address) {
			return fmt.Errorf("it is not: %w", err)
		}
		return nil
	})
	o.ready.Store(true) // no call was made before
	return o
}

// dismiss deregisters it. No connection to it remains.
func dismiss(h *harness.Host, t *testing.T, service string, o *outsider) {
	t.Helper()
	if r := h.CLI("service", "deregister", service, o.address); r.Code != 0 {
		t.Error(r.Stderr)
	}
	_ = o.listener.Close()
	ended := make(chan struct{})
	go func() { o.talks.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(harness.Patience):
		t.Error("the master holds a connection to what was deregistered")
	}
}

// callGarbled calls an endpoint whose answers are not gRPC.
func callGarbled(
	h *harness.Host, t *testing.T, conn *grpc.ClientConn, service string, talk func(net.Conn), refuses bool,
) {
	o := inviteGarbler(h, t, service, talk)
	timeout := harness.Patience
	if refuses {
		timeout = 2 * time.Second // each of its refusals is a reason to wait for a better one
	}
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		var answer blob
		err := conn.Invoke(ctx, "/"+service+"/Call", &blob{}, &answer, grpc.ForceCodecV2(rawCodec{}))
		cancel()
		code := status.Code(err)
		if code == codes.DeadlineExceeded && refuses {
			if o.relayed.Load() == 0 {
				continue // on a loaded machine, the call may not have come so far
			}
			break
		}
		if code != codes.Unavailable && code != codes.Internal && code != codes.ResourceExhausted {
			t.Errorf("%v, want a clear failure", err)
		}
	}
	if n := o.relayed.Load(); n == 0 || n > 1000 {
		t.Errorf("%d connections to the endpoint, want some, and no storm of them", n)
	}
	dismiss(h, t, service, o)
}

// Calls that an endpoint cannot have processed are retried on another one, for every caller.
func TestCallThatAnEndpointHasNotSeenIsAnsweredByAnother(t *testing.T) {
	t.Parallel()
	for name, talk := range map[string]func(net.Conn){
		"GOAWAY": garbled[refusesAll],
		"REFUSED_STREAM": afterRequest(func(f *http2.Framer, stream uint32) {
			_ = f.WriteRSTStream(stream, http2.ErrCodeRefusedStream)
		}),
		"connection refused": nil, // nothing listens any more
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := harness.NewHost(t)
			flags, notes := noting(h, "echo", 1)
			h.Flags = append(flags, "--worker-service", echoService)
			m := h.Start()
			awaitService(h, echoService, 1)
			o := inviteGarbler(h, t, echoService, talk)
			if talk == nil {
				_ = o.listener.Close()
			}
			calls := startCrowd(h, "callers", 8, false, harness.Patience)
			calls.awaitMore(200)
			calls.stop()
			calls.wantFailures("with an endpoint that has seen nothing", 0)
			times, _ := handled(t, notes)
			calls.wantHandled(times)
			if talk != nil && o.relayed.Load() == 0 {
				t.Error("no call was sent to it")
			}
			dismiss(h, t, echoService, o)
			m.Stop()
		})
	}
}
