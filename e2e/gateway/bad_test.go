//go:build e2e && linux

package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/e2e/harness"
	"github.com/core-tools/hsu-master/e2e/testdata/echo"
)

// bystanders call the gateway continuously while other clients misbehave.
type bystanders struct {
	calls atomic.Int64
	end   func()
}

// startBystanders starts them. stop, which is also called at the end of the test, fails the test if one of their
// calls failed.
func startBystanders(t *testing.T, port int) *bystanders {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &bystanders{}
	var all sync.WaitGroup
	for i := range 4 {
		conn := harness.Dial(t, port)
		all.Go(func() {
			for ctx.Err() == nil {
				call, done := context.WithTimeout(context.Background(), harness.Patience)
				if err := echo.Call(call, conn, fmt.Sprintf("bystander %d", i), grpc.WaitForReady(true)); err != nil {
					t.Errorf("a bystander is harmed: %v", err)
				}
				done()
				b.calls.Add(1)
			}
		})
	}
	b.end = sync.OnceFunc(func() { cancel(); all.Wait() })
	t.Cleanup(b.end)
	return b
}

// awaitMore returns when n more calls of the bystanders were answered.
func (b *bystanders) awaitMore(t *testing.T, n int64) {
	t.Helper()
	harness.AwaitMore(t, "bystanders' calls answered", &b.calls, n)
}

// rude is a client that follows only the framing rules of HTTP/2.
type rude struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

func dialRude(t *testing.T, at string, settings ...http2.Setting) *rude {
	t.Helper()
	conn, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * harness.Patience))
	r := &rude{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	r.hpack = hpack.NewEncoder(&r.block)
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err = errors.Join(err, r.framer.WriteSettings(settings...)); err != nil {
		t.Fatal(err)
	}
	return r
}

// call begins a stream; pairs follow the header fields that each call has.
func (r *rude) call(stream uint32, path string, end bool, pairs ...string) error {
	r.block.Reset()
	fields := append([]string{
		":method", "POST", ":scheme", "http", ":path", path, ":authority", "rude",
		"content-type", "application/grpc", "te", "trailers",
	}, pairs...)
	for i := 0; i < len(fields); i += 2 {
		if err := r.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	const most = 16 << 10
	block := r.block.Bytes()
	err := r.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: block[:min(most, len(block))], EndStream: end, EndHeaders: len(block) <= most,
	})
	for err == nil && len(block) > most {
		block = block[most:]
		err = r.framer.WriteContinuation(stream, len(block) <= most, block[:min(most, len(block))])
	}
	return err
}

// outcome reads until the stream has ended, and returns how: "grpc-status N ...", "http-status N", "RST_STREAM
// CODE", "GOAWAY CODE" or "closed".
func (r *rude) outcome(stream uint32) string {
	for {
		frame, err := r.framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = r.framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = r.framer.WritePing(true, f.Data)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream || !f.StreamEnded() {
				continue
			}
			pairs := map[string]string{}
			for _, field := range f.Fields {
				pairs[field.Name] = field.Value
			}
			if code, ok := pairs["grpc-status"]; ok {
				return "grpc-status " + code + " " + pairs["grpc-message"]
			}
			return "http-status " + pairs[":status"]
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "RST_STREAM " + f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "GOAWAY " + f.ErrCode.String()
			}
		}
	}
}

// grpcMessage returns a message in the format of DATA frames.
func grpcMessage(content []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(content))), content...)
}

func TestCallOfWhatNobodyOffersGetsUnimplemented(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo")
	m := h.Start()
	defer m.Stop()
	awaitService(h, echoService, 1)
	conn := h.Dial()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, method := range []string{
		"/no.Such/Method", "/proto.EchoService2/Echo", echoService + "x/Echo",
		"/proto.EchoService/NoSuch", "/%s%d%n/%v",
	} {
		var answer blob
		err := conn.Invoke(ctx, method, &blob{}, &answer, grpc.ForceCodecV2(rawCodec{}))
		if got := status.Convert(err); got.Code() != codes.Unimplemented || got.Message() == "" {
			t.Errorf("%q: %v, want UNIMPLEMENTED and why", method, err)
		}
	}
	// All of them use one connection: none of them breaks the next.
	r := dialRude(t, h.Address())
	stream := uint32(1)
	for _, path := range []string{
		"no-slash", "/", "//", "/proto.EchoService", "/proto.EchoService/", "//Echo",
		"/" + strings.Repeat("x", 4000) + "/Echo", "*",
	} {
		if err := r.call(stream, path, true); err != nil {
			t.Fatal(err)
		}
		if got := r.outcome(stream); !strings.HasPrefix(got, "grpc-status 12 ") && got != "http-status 404" {
			t.Errorf("path %.50q: %s, want UNIMPLEMENTED", path, got)
		}
		stream += 2
	}
	if err := echo.Call(ctx, conn, "and now a good one"); err != nil {
		t.Error(err)
	}
}

func TestOversizedMetadataAndMessagesAreRefusedAndNobodyElseSuffers(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo", "echo")
	m := h.Start()
	awaitService(h, echoService, 2)
	others := startBystanders(t, h.Port)
	conn := h.Dial()
	call := func(ctx context.Context, message string) codes.Code {
		ctx, cancel := context.WithTimeout(ctx, harness.Patience)
		defer cancel()
		return status.Code(echo.Call(ctx, conn, message))
	}
	before := residentSize(t, m.PID)
	for range 20 {
		if got := call(t.Context(), strings.Repeat("x", 64<<20)); got != codes.ResourceExhausted {
			t.Errorf("64 MiB: %s, want RESOURCE_EXHAUSTED", got)
		}
		huge := metadata.AppendToOutgoingContext(t.Context(), "x-huge", strings.Repeat("x", 4<<20))
		if got := call(huge, "small"); got == codes.OK || got == codes.DeadlineExceeded || got == codes.Unknown {
			t.Errorf("4 MiB of metadata: %s, want a clear refusal", got)
		}
	}
	// A client that ignores the advertised limit.
	for range 20 {
		r := dialRude(t, h.Address())
		_ = r.call(1, echoMethod, true, "x-huge", strings.Repeat("x", 4<<20)) // it may be cut off while sending
		if got := r.outcome(1); strings.HasPrefix(got, "grpc-status 0") {
			t.Errorf("4 MiB of metadata: %s", got)
		}
	}
	wantSize(t, m.PID, before)
	// Metadata within the limit is forwarded.
	fits := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", 4<<10))
	if got := call(fits, strings.Repeat("x", 3<<20)); got != codes.OK {
		t.Errorf("3 MiB: %s", got)
	}
	others.awaitMore(t, 20)
	others.end()
	m.Stop()
}

// floodService sends without end, and never reads.
const floodService, floodMethod = "test.Flood", "/test.Flood/Run"

func floodServer(t *testing.T) (at string, sent, running *atomic.Int64) {
	t.Helper()
	sent, running = new(atomic.Int64), new(atomic.Int64)
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}))
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: floodService, HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "Run", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error {
				running.Add(1)
				defer running.Add(-1)
				for message := playMessage(64<<10, 0); ; sent.Add(1) {
					if err := stream.SendMsg(message); err != nil {
						return err
					}
				}
			},
		}},
	}, new(any))
	return serve(t, server), sent, running
}

// A client that opens streams and windows and never reads makes the server wait; the master's memory does not grow.
func TestClientThatNeverReadsCostsNoMemory(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo")
	m := h.Start()
	awaitService(h, echoService, 1)
	flood, sent, running := floodServer(t)
	register(h, offer{floodService, flood})
	others := startBystanders(t, h.Port)
	others.awaitMore(t, 50)
	before := residentSize(t, m.PID)
	const widest = 1<<31 - 1
	var deaf []*rude
	for range 4 {
		r := dialRude(t, h.Address(), http2.Setting{ID: http2.SettingInitialWindowSize, Val: widest})
		deaf = append(deaf, r)
		if err := r.framer.WriteWindowUpdate(0, widest-65535); err != nil {
			t.Fatal(err)
		}
		for i := range 50 {
			if err := r.call(uint32(2*i+1), floodMethod, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	// At rest, the server sends nothing more.
	last := int64(-1)
	harness.WaitFor(t, "the flood has stopped", func() error {
		now := sent.Load()
		if before := last; before != now || running.Load() == 0 {
			last = now
			return fmt.Errorf("%d, then %d messages of %d streams", before, now, running.Load())
		}
		return nil
	})
	others.awaitMore(t, 50)
	t.Logf("%d MiB were sent", sent.Load()*64>>10)
	wantSize(t, m.PID, before)
	// When such a client disconnects, its calls end.
	for _, r := range deaf {
		_ = r.conn.Close()
	}
	harness.WaitFor(t, "no stream is left at the server", func() error {
		if n := running.Load(); n > 0 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	others.end()
	m.Stop()
}

// A client that begins calls and resets them at once (CVE-2023-44487) costs the master no memory and gives the
// worker no more load than it can take.
func TestFloodOfResetsIsBorneOrRefused(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = echoes(h, "echo")
	m := h.Start()
	awaitService(h, echoService, 1)
	others := startBystanders(t, h.Port)
	others.awaitMore(t, 50)
	before := residentSize(t, m.PID)
	var attackers sync.WaitGroup
	for range 4 {
		r := dialRude(t, h.Address())
		attackers.Go(func() {
			go func() { _, _ = io.Copy(io.Discard, r.conn) }()
			for i := range 20_000 {
				stream := uint32(2*i + 1)
				err := r.call(stream, echoMethod, false)
				if err = errors.Join(err, r.framer.WriteRSTStream(stream, http2.ErrCodeCancel)); err != nil {
					return // it is disconnected, as it should be
				}
			}
		})
	}
	attackers.Wait()
	others.awaitMore(t, 50)
	wantSize(t, m.PID, before)
	others.end()
	m.Stop()
}

func TestCallWithoutAReadyWorkerWaitsAsLongAsTheCallerAndNoLonger(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t)
	h.Flags = harness.ShortGrace(h.Units("deaf"))
	m := h.Start()
	r := h.CLI("call", "process-data", "--data", "x", "--timeout", "200ms")
	explained := strings.Contains(r.Stderr, "within 200ms") || strings.Contains(r.Stderr, "no worker is ready")
	if r.Code != 1 || !explained || !strings.Contains(r.Stderr, "hsu-master") {
		t.Errorf("exit code %d, %q, want 1 and why", r.Code, r.Stderr)
	}
	if got := h.Dump().ProcessedCount; got != 0 {
		t.Errorf("processed_count = %d, want 0", got)
	}
	m.Stop()
}

func TestOversizedRequestIsRefusedAndNothingElseSuffers(t *testing.T) {
	t.Parallel()
	h := harness.NewHost(t, harness.Workers(1)...)
	m := h.Start()
	before := h.AwaitRunning(1)
	cmd := exec.CommandContext(t.Context(), harness.Programs.Master, "call", "process-data",
		"--data", "-", "--state-dir", h.State)
	cmd.Stdin = bytes.NewReader(bytes.Repeat([]byte("x"), 5<<20))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit code 1", err)
	}
	got := stderr.String()
	if !strings.Contains(got, "larger than 4194304 bytes") || !strings.Contains(got, "hint: send less at a time") {
		t.Errorf("stderr = %q, want the limit and the next step", got)
	}
	// The largest request that fits is forwarded and answered.
	fits := strings.Repeat("y", 4<<20-100)
	h.Ask(fits)
	after := h.AwaitRunning(1)
	if after.ProcessedCount != 1 {
		t.Errorf("processed_count = %d, want 1", after.ProcessedCount)
	}
	after.WantInstances(t, before.Instances())
	m.Stop()
}
