package relay

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Two clients share a backend connection. One client does not read: its sender must wait, and the other receives
// everything.
func TestSlowReaderHoldsUpItselfOnly(t *testing.T) {
	b := newRawBackend(t)
	r, addr := startRelay(t, Options{MaxBackendConns: 1}, b.endpoint)
	slow, fast := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}), rawClient(t, addr)
	slow.must(slow.WritePing(false, [8]byte{1}))
	next(slow, func(f *http2.PingFrame) bool { return f.IsAck() })
	slow.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	fast.call(1, true)
	next(p, anyHeaders)
	p.headers(1, false, ":status", "200", "content-type", "application/grpc")
	p.headers(3, false, ":status", "200", "content-type", "application/grpc")
	// Use up the window of the slow client's stream, on a connection whose own window stays open.
	window := frames.FirstWindow
	p.must(p.WriteData(1, false, []byte{0, 0, 16, 0, 0}))
	window -= 5
	for window > 0 {
		n := min(window, 16<<10)
		p.must(p.WriteData(1, false, make([]byte, n)))
		window -= n
	}
	for range 40 {
		p.message(3, 1000, false)
		if f := next(fast, func(f *http2.DataFrame) bool { return true }); len(f.Data()) != 1005 {
			t.Fatalf("%d bytes", len(f.Data()))
		}
	}
	// One byte beyond the window violates the protocol, and ends only that call.
	if n := r.Stats().Queued; n > frames.FirstWindow {
		t.Errorf("%d bytes are queued", n)
	}
	p.must(p.WriteData(1, false, []byte{1}))
	if f := next[*http2.RSTStreamFrame](p, nil); f.StreamID != 1 || f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("beyond the window: %v", f)
	}
	p.headers(3, true, "grpc-status", "0")
	fast.wantStatus(1, 0)
}

func TestWindowsOfAClient(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
	client.call(1, false)
	client.request(1, 1000, true)
	f := next(client, func(f *http2.DataFrame) bool { return true })
	if len(f.Data()) != 10 {
		t.Fatalf("%d bytes with a window of 10", len(f.Data()))
	}
	got := 10
	// A new initial window changes the windows of open streams too, and may make them negative.
	client.must(client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30}))
	got += len(next(client, func(f *http2.DataFrame) bool { return true }).Data())
	client.must(client.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
	client.must(client.WriteWindowUpdate(1, 30))
	client.must(client.WritePing(false, [8]byte{}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	client.must(client.WriteWindowUpdate(1, 7))
	got += len(next(client, func(f *http2.DataFrame) bool { return true }).Data())
	if got != 37 {
		t.Errorf("%d bytes with windows of 37 together", got)
	}
	client.must(client.WriteWindowUpdate(1, 1<<20))
	client.wantStatus(1, 0)

	client.call(3, false)
	client.must(client.WriteWindowUpdate(3, frames.MaxWindow))
	client.must(client.WriteWindowUpdate(3, frames.MaxWindow))
	if f := next[*http2.RSTStreamFrame](client, nil); f.StreamID != 3 || f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("a window too large: %v", f)
	}
	client.must(client.WriteWindowUpdate(0, frames.MaxWindow))
	client.wantGoAway(http2.ErrCodeFlowControl)
}

// If one frame sets the window several times, only the last value counts.
func TestWindowThatIsSetTwiceInAFrame(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	client.call(1, false)
	client.request(1, 1000, true)
	next(client, anyHeaders)
	window := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n} }
	client.must(client.WriteSettings(window(500), window(30)))
	if f := next(client, func(f *http2.DataFrame) bool { return true }); len(f.Data()) != 30 {
		t.Errorf("%d bytes with a window of 30", len(f.Data()))
	}
	client.must(client.WriteSettings(window(10), window(2000)))
	client.wantStatus(1, 0)
	client.must(client.WriteSettings(window(1<<31), window(10)))
	client.wantGoAway(http2.ErrCodeFlowControl)
}

func TestTableSizeOfAClient(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
	client.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(0)
	for i := range 4 {
		client.call(uint32(2*i+1), false)
		client.request(uint32(2*i+1), 1, true)
		client.wantStatus(uint32(2*i+1), 0)
	}
}

// One stream carries much more data than any window, with little memory.
func TestBulkNeedsLittleMemory(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	r, addr := startRelay(t, Options{}, ep)
	s, err := dial(t, addr).FullDuplexCall(timeout(t))
	if err != nil {
		t.Fatal(err)
	}
	const messages, size = 300, 100_000
	sent := make(chan error, 1)
	go func() {
		payload := &testpb.Payload{Body: make([]byte, size)}
		for range messages {
			if err := s.Send(&testpb.StreamingOutputCallRequest{Payload: payload}); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.CloseSend()
	}()
	// Nothing is read: the sender must stop long before everything is sent.
	deadline := time.Now().Add(200 * time.Millisecond)
	for time.Now().Before(deadline) {
		runtime.Gosched()
		if n := r.Stats().Queued; n > 2*mostWindow {
			t.Fatalf("%d bytes are queued", n)
		}
	}
	select {
	case err := <-sent:
		t.Fatalf("all was sent while nobody read: %v", err)
	default:
	}
	for i := range messages {
		if out, err := s.Recv(); err != nil || len(out.GetPayload().GetBody()) != size {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// A client that stops reading many answers receives all of them in full when it reads on.
func TestManyAnswersThatAreReadLate(t *testing.T) {
	const message = 64 << 10
	for name, c := range map[string]struct {
		calls, messages int
		before          int // messages of each answer that are read before the pause
	}{
		"from the start":        {600, 3, 0},
		"after they were quick": {32, 40, 24},
	} {
		t.Run(name, func(t *testing.T) {
			ep, _ := startBackend(t, echo{})
			r, addr := startRelay(t, Options{}, ep)
			// Fixed windows: otherwise the client enlarges them, and may receive everything without reading.
			client, ctx := dial(t, addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(16<<20)), timeout(t)
			in := &testpb.StreamingOutputCallRequest{}
			for range c.messages {
				in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: message})
			}
			read := func(s grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse], n int) {
				for i := range n {
					if out, err := s.Recv(); err != nil || len(out.GetPayload().GetBody()) != message {
						t.Errorf("message %d: %v", i, err)
						return
					}
				}
			}
			var begun, ended sync.WaitGroup
			begun.Add(c.calls)
			goOn := make(chan struct{})
			for range c.calls {
				ended.Go(func() {
					s, err := client.StreamingOutputCall(ctx, in)
					if err == nil {
						read(s, c.before)
					}
					begun.Done()
					<-goOn
					if err != nil {
						t.Error(err)
						return
					}
					read(s, c.messages-c.before)
					if _, err := s.Recv(); !errors.Is(err, io.EOF) {
						t.Errorf("at the end: %v", err)
					}
				})
			}
			begun.Wait()
			// Each answer stops when its window is used up, except for credit too small to be given yet.
			var most int64
			want := int64(c.calls * frames.FirstWindow / 2)
			awaitThat(t, "the number of bytes that wait", func() bool {
				most = r.Stats().Queued
				return most >= want
			}, func() any { return most })
			// More data may arrive, which makes the bound a better test. The test does not depend on it.
			for last := time.Now(); time.Since(last) < 100*time.Millisecond; time.Sleep(time.Millisecond) {
				if n := r.Stats().Queued; n > most {
					most, last = n, time.Now()
				}
			}
			if bound := int64(c.calls*frames.FirstWindow + budgetGrown); most > bound {
				t.Errorf("%d bytes waited, want %d at most", most, bound)
			}
			close(goOn)
			ended.Wait()
		})
	}
}

// lamenting is like echo, but reports answers that could not be sent.
type lamenting struct {
	echo
	broken chan<- struct{}
}

func (b lamenting) StreamingOutputCall(
	in *testpb.StreamingOutputCallRequest, stream grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse],
) error {
	err := b.echo.StreamingOutputCall(in, stream)
	if err != nil {
		b.broken <- struct{}{}
	}
	return err
}

// If clients hold much of the shared memory, answers to the clients that hold the most are terminated, and no
// others.
func TestOneThatDoesNotReadHarmsNoOther(t *testing.T) {
	const most, message = 4 << 20, 100_000
	broken := make(chan struct{}, 1000)
	ep, _ := startBackend(t, lamenting{broken: broken})
	r, addr := startRelay(t, Options{MaxBuffered: most}, ep)
	in := &testpb.StreamingOutputCallRequest{}
	for range 20 { // more than the largest window and the server's own buffers
		in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: message})
	}
	begin := func(calls int) (all []grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]) {
		client := dial(t, addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(16<<20))
		for range calls {
			s, err := client.StreamingOutputCall(timeout(t), in)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
		return all
	}
	read := func(s grpc.ServerStreamingClient[testpb.StreamingOutputCallResponse]) error {
		for {
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
	}
	modest := begin(1)[0]
	awaitThat(t, "the answer does not wait", func() bool { return r.Stats().Queued >= frames.FirstWindow/2 },
		func() any { return r.Stats() })
	greedy := begin(200)
	select {
	case <-broken:
	case <-time.After(patience):
		t.Fatalf("%d bytes wait, and nothing was broken off", r.Stats().Queued)
	}
	// More data may arrive before the next calls are broken off.
	awaitThat(t, fmt.Sprintf("want about half of %d bytes", most), func() bool { return r.Stats().Queued <= most*3/4 },
		func() any { return r.Stats() })
	for _, s := range greedy {
		if err := read(s); !errors.Is(err, io.EOF) &&
			status.Code(err) != codes.ResourceExhausted && status.Code(err) != codes.Internal {
			t.Errorf("of the client that holds the most: %v", err)
		}
	}
	if err := read(modest); !errors.Is(err, io.EOF) {
		t.Errorf("of the client that holds little: %v", err)
	}
}

// Data kept for second attempts does not stop a client whose calls are answered only after everything has been
// sent.
func TestKeptRequestsStopNobody(t *testing.T) {
	for name, c := range map[string]struct{ calls, size, buffered int }{
		"just more than the window": {75, 60_000, 0},
		"three times the window":    {200, 60_000, 0},
		"more than is kept of each": {70, 100_000, 0},
		"more than for all clients": {75, 60_000, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			ep, _ := startBackend(t, echo{})
			_, addr := startRelay(t, Options{MaxBuffered: c.buffered}, ep)
			client, ctx := dial(t, addr), timeout(t)
			var all, ends sync.WaitGroup
			all.Add(c.calls)
			for range c.calls {
				s, err := client.StreamingInputCall(ctx)
				ends.Go(func() {
					for sent := 0; err == nil && sent < c.size; sent += 10_000 {
						err = s.Send(&testpb.StreamingInputCallRequest{
							Payload: &testpb.Payload{Body: make([]byte, 10_000)},
						})
					}
					all.Done()
					if err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("not all could be sent: %v", err)
						return
					}
					all.Wait() // the servers may answer only now
					out, err := s.CloseAndRecv()
					if status.Code(err) == codes.ResourceExhausted && c.buffered > 0 {
						return // unsent data may exceed the limit as well; it only matters that the call ends
					}
					if err != nil || int(out.GetAggregatedPayloadSize()) != c.size {
						t.Errorf("%d bytes, %v", out.GetAggregatedPayloadSize(), err)
					}
				})
			}
			ends.Wait()
		})
	}
}

// Uploads that a backend does not read delay none of the same client's calls to others.
func TestStalledUploadsHoldUpNoOtherService(t *testing.T) {
	const uploads, size = 3 * budgetUp / 60_000, 60_000
	stalled := newRawBackend(t)
	ep, _ := startBackend(t, echo{})
	registry := services.New(services.Options{})
	registry.Add(stalled.endpoint, "stalled.Service")
	r, addr := startRelay(t, Options{Registry: registry, MinPing: time.Nanosecond}, ep)
	client := rawClient(t, addr)
	for i := range uint32(uploads) {
		client.headers(2*i+1, false, ":method", "POST", ":scheme", "http",
			":path", "/stalled.Service/Upload", ":authority", "test",
			"content-type", "application/grpc", "te", "trailers")
		for sent := 0; sent < size; sent += 15_000 {
			client.must(client.WriteData(2*i+1, false, make([]byte, 15_000))) // of empty messages
		}
		if i%32 == 31 { // so that the client's window is given back before it is used up
			client.must(client.WritePing(false, [8]byte{1}))
			next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
		}
	}
	if n := r.Stats().Queued; n < budgetUp {
		t.Fatalf("only %d bytes wait", n)
	}
	const id = 2*uploads + 1
	client.call(id, false)
	client.request(id, 10_000, true)
	client.wantStatus(id, protocol.CodeOK)
}
