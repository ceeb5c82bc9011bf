package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/retry"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// failing makes a call to which the first backend reacts with do. If the call is retried, the other backend serves it.
func failing(t *testing.T, do func(p *peer, id uint32), more ...string) (client *peer, code int, seen int) {
	t.Helper()
	var backends [2]*rawBackend
	for i := range backends {
		backends[i] = newRawBackend(t)
	}
	_, addr := startRelay(t, Options{}, backends[0].endpoint, backends[1].endpoint)
	tries := make(chan int, 4)
	for i, b := range backends {
		go func() {
			nc, err := b.Accept()
			if err != nil {
				return
			}
			p := newPeer(t, nc)
			_, _ = io.ReadFull(nc, make([]byte, len(http2.ClientPreface)))
			_ = p.WriteSettings()
			f, err := tryNext[*http2.MetaHeadersFrame](p, nil)
			if err != nil {
				return
			}
			if _, err := tryNext[*http2.DataFrame](p, nil); err != nil {
				return
			}
			tries <- i
			if len(tries) == 1 {
				do(p, f.StreamID)
			} else {
				p.answer(f.StreamID)
			}
			_, _ = tryNext[*http2.GoAwayFrame](p, nil)
		}()
	}
	client = rawClient(t, addr)
	client.call(1, false, more...)
	client.message(1, 10, true)
	code, _ = client.status(1)
	return client, code, len(tries)
}

func TestSecondEndpoint(t *testing.T) {
	mark := []string{protocol.RequestID, "1"}
	reset := func(code http2.ErrCode) func(*peer, uint32) {
		return func(p *peer, id uint32) { _ = p.WriteRSTStream(id, code) }
	}
	lose := func(p *peer, _ uint32) { _ = p.Close() }
	unavailable := func(p *peer, id uint32) {
		p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14")
	}
	for _, c := range []struct {
		name  string
		do    func(p *peer, id uint32)
		more  []string
		code  int
		tries int
	}{
		{"refused", reset(http2.ErrCodeRefusedStream), nil, 0, 2},
		{"above the last stream", func(p *peer, _ uint32) { _ = p.WriteGoAway(0, http2.ErrCodeNo, nil) }, nil, 0, 2},
		{"lost", lose, nil, 14, 1},
		{"lost and marked", lose, mark, 0, 2},
		{"unavailable", unavailable, nil, 14, 1},
		{"unavailable and marked", unavailable, mark, 0, 2},
		{"failed and marked", func(p *peer, id uint32) {
			p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "9")
		}, mark, 9, 1},
		{"begun and marked", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.headers(id, true, "grpc-status", "14")
		}, mark, 14, 1},
		{"garbage", func(p *peer, _ uint32) { _, _ = p.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, nil, 14, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, code, tries := failing(t, c.do, c.more...)
			if code != c.code || tries != c.tries {
				t.Errorf("status %d after %d tries, want %d after %d", code, tries, c.code, c.tries)
			}
		})
	}
}

// Output that calls append while the connection is being set up follows the preface.
func TestPrefaceIsFirst(t *testing.T) {
	here, there := net.Pipe()
	dialing, connected := make(chan struct{}), make(chan net.Conn, 1)
	_, addr := startRelay(t, Options{Dial: func(context.Context, string) (net.Conn, error) {
		close(dialing)
		return <-connected, nil
	}}, &services.Endpoint{Address: "pipe"})
	client := rawClient(t, addr)
	client.call(1, true)
	<-dialing
	client.call(3, true)
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	connected <- here
	b := newPeer(t, there)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(there, preface); err != nil || string(preface) != http2.ClientPreface {
		t.Fatalf("the first bytes are %q, %v", preface, err)
	}
	if f, err := b.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
		t.Fatalf("the first frame is %v, %v", f, err)
	}
	for _, id := range []uint32{1, 3} {
		if f := next(b, anyHeaders); f.StreamID != id {
			t.Errorf("stream %d, want %d", f.StreamID, id)
		}
	}
}

func TestRefusedConnectionIsNoLoss(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	registry := services.New(services.Options{})
	refuses := &services.Endpoint{Address: refusing(t)}
	_, addr := startRelay(t, Options{Registry: registry}, refuses, ep)
	client := dial(t, addr)
	for i := range 20 {
		if _, err := client.UnaryCall(timeout(t), simple(100)); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	// Refused calls do not count as failed either, except for the ejection.
	got := registry.Service(serviceName).Figures(refuses.Address)
	if got.Ejections == 0 {
		t.Error("an endpoint that refuses is not ejected")
	}
	if got.Ejections = 0; got != (services.Figures{}) {
		t.Errorf("figures of the endpoint that refuses: %+v", got)
	}
}

// A connection that turns out to lead to a foreign process gets nothing, and the call goes elsewhere.
func TestConnectionThatLeadsToAStranger(t *testing.T) {
	stranger := newRawBackend(t)
	stranger.endpoint.Verify = func(_ context.Context, nc net.Conn) error {
		if nc.RemoteAddr().String() != stranger.endpoint.Address {
			t.Errorf("asked about a connection to %s", nc.RemoteAddr())
		}
		return errors.New("no worker of ours")
	}
	ep, _ := startBackend(t, echo{})
	ep.Verify = func(context.Context, net.Conn) error { return nil }
	_, addr := startRelay(t, Options{}, stranger.endpoint, ep)
	client := dial(t, addr)
	for i := range 4 {
		if _, err := client.UnaryCall(timeout(t), simple(100)); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	nc, err := stranger.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if got, _ := io.ReadAll(nc); len(got) > 0 {
		t.Errorf("the stranger got %q", got)
	}
}

func TestRefusedStreamIsNoFailure(t *testing.T) {
	b := newRawBackend(t)
	registry := services.New(services.Options{})
	_, addr := startRelay(t, Options{Registry: registry}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	for range retry.MostAttempts {
		p.must(p.WriteRSTStream(next(p, anyHeaders).StreamID, http2.ErrCodeRefusedStream))
	}
	p.answer(next(p, anyHeaders).StreamID)
	client.wantStatus(1, protocol.CodeOK)
	if got := registry.Service(serviceName).Figures(b.endpoint.Address); got.Calls != 1 || got.Failed() != 0 {
		t.Errorf("figures: %+v, want one call that has not failed", got)
	}
}

func TestGoAwayLosesNoCall(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	first := b.accept()
	next(first, anyHeaders)
	// The first stream is not above the last stream id of the GOAWAY and continues; new calls need another
	// connection.
	first.must(first.WriteGoAway(1, http2.ErrCodeNo, nil))
	first.must(first.WritePing(false, [8]byte{1}))
	next(first, func(f *http2.PingFrame) bool { return f.IsAck() })
	client.call(3, true)
	second := b.accept()
	second.answer(next(second, anyHeaders).StreamID)
	client.wantStatus(3, 0)
	first.answer(1)
	client.wantStatus(1, 0)
	if _, err := tryNext[*http2.DataFrame](first, nil); err == nil {
		t.Error("data on the connection that is over")
	}
}

func TestStreamIDsRunOut(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	r, addr := startRelay(t, Options{lastStream: 9}, ep)
	client := dial(t, addr)
	for i := range 33 {
		if _, err := client.UnaryCall(timeout(t), simple(1)); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	// A connection ends when its backend has closed it, too.
	awaitThat(t, "connections are left open", func() bool { return r.Stats().Backends <= 2 },
		func() any { return r.Stats() })
}

func TestPeersStreamLimit(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxBackendConns: 2}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	limit := http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}
	first := b.accept(limit)
	next(first, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	client.call(3, true)
	second := b.accept(limit)
	next(second, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	// Both are full: the third call waits.
	client.call(5, true)
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	first.answer(1)
	client.wantStatus(1, 0)
	if id := next(first, func(f *http2.MetaHeadersFrame) bool { return f.StreamID > 1 }).StreamID; id != 3 {
		t.Errorf("stream %d, want 3", id)
	}
	first.answer(3)
	client.wantStatus(5, 0)
	second.answer(1)
	client.wantStatus(3, 0)
}

func TestWaitForAStreamEnds(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxBackendConns: 1, MaxWait: 50 * time.Millisecond}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	client.call(3, true, "grpc-timeout", "10m")
	client.wantStatus(3, 4)
	client.call(5, true)
	client.wantStatus(5, 14)
	client.call(7, true)
	client.must(client.WriteRSTStream(7, http2.ErrCodeCancel))
	p.answer(1)
	client.wantStatus(1, 0)
}

// A worker has died, and the registry does not know it yet: its calls wait for the next worker.
func TestCallsOutliveAWorker(t *testing.T) {
	registry := services.New(services.Options{})
	registry.Offer("the test", serviceName)
	dead := &services.Endpoint{Address: refusing(t)}
	_, addr := startRelay(t, Options{Registry: registry}, dead)
	client := rawClient(t, addr)
	client.call(1, false, "grpc-timeout", "1M")
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	service := registry.Service(serviceName)
	// Between two attempts it waits, sooner or later.
	awaitThat(t, "the call does not wait", func() bool { return service.Info().Waiting == 1 })
	registry.Remove(dead)
	ep, _ := startBackend(t, echo{})
	registry.Add(ep, serviceName)
	client.request(1, 10, true)
	client.wantStatus(1, 0)
	if n := service.Info().Waiting; n != 0 {
		t.Errorf("%d calls are said to wait when all have ended", n)
	}
}

func TestWaitForAnEndpoint(t *testing.T) {
	registry := services.New(services.Options{})
	ep, _ := startBackend(t, echo{})
	registry.AddIdle(ep, serviceName)
	_, addr := startRelay(t, Options{Registry: registry, MaxWait: 30 * time.Millisecond})
	client := rawClient(t, addr)
	client.call(1, true)
	client.wantStatus(1, 14)
	client.call(3, true, "grpc-timeout", "10m")
	client.wantStatus(3, 4)

	_, addr = startRelay(t, Options{Registry: registry})
	client = rawClient(t, addr)
	client.call(1, false, "grpc-timeout", "1M")
	client.request(1, 10_000, true)
	client.call(3, true)
	client.must(client.WriteRSTStream(3, http2.ErrCodeCancel))
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	registry.SetReady(ep, true)
	client.wantStatus(1, 0)
}

func TestDeadlineBoundsTheWait(t *testing.T) {
	registry := services.New(services.Options{})
	ep, _ := startBackend(t, echo{})
	registry.AddIdle(ep, serviceName)
	_, addr := startRelay(t, Options{Registry: registry, MaxWait: 20 * time.Millisecond})
	client := rawClient(t, addr)
	client.call(1, false, "grpc-timeout", "1M")
	client.request(1, 10, true)
	client.call(3, true)
	client.wantStatus(3, 14) // without a deadline, after waiting for MaxWait
	registry.SetReady(ep, true)
	client.wantStatus(1, 0)
}

func TestGoneEndpointIsLeft(t *testing.T) {
	registry := services.New(services.Options{})
	b := newRawBackend(t)
	registry.Add(b.endpoint, serviceName)
	_, addr := startRelay(t, Options{Registry: registry, BackendSilence: patience})
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	registry.Remove(b.endpoint)
	p.answer(1)
	client.wantStatus(1, 0)
	next[*http2.GoAwayFrame](p, nil)
}

// TestBackendThatEndsAtOnce: a connection may end before the goroutine that opened it continues. The call still
// learns of the end.
func TestBackendThatEndsAtOnce(t *testing.T) {
	b := newRawBackend(t)
	go func() {
		for {
			nc, err := b.Accept()
			if err != nil {
				return
			}
			// No stream has this id.
			_, _ = nc.Write(frames.AppendHeader(frames.AppendSettings(nil), 0, http2.FrameData, 0, 0))
			_ = nc.Close()
		}
	}()
	_, addr := startRelay(t, Options{MaxWait: time.Millisecond}, b.endpoint)
	client := rawClient(t, addr)
	for id := uint32(1); id < 1000; id += 2 {
		client.call(id, false)
		client.message(id, 100, true)
		client.wantStatus(id, protocol.CodeUnavailable)
	}
}

// TestEndpointThatIsTheRelayItself: an endpoint's address may lead to the port on which calls arrive. Calls to it
// end, and use none of the relay's own connections.
func TestEndpointThatIsTheRelayItself(t *testing.T) {
	registry := services.New(services.Options{})
	r, addr := startRelay(t, Options{Registry: registry, MaxWait: 20 * time.Millisecond})
	everywhere, err := net.Listen("tcp", ":0") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = r.Serve(everywhere) }()
	client := rawClient(t, addr)
	client.call(1, false)
	client.message(1, 100, true)
	client.wantStatus(1, protocol.CodeUnimplemented)
	id := uint32(1)
	for _, at := range []string{addr, everywhere.Addr().String()} {
		_, port, _ := net.SplitHostPort(at)
		itself := &services.Endpoint{Address: net.JoinHostPort("localhost", port)}
		registry.Add(itself, serviceName)
		id += 2
		client.call(id, false)
		client.message(id, 100, true)
		client.wantStatus(id, protocol.CodeUnavailable)
		awaitThat(t, "the relay is its own client at "+at, func() bool { return r.Stats().Clients <= 1 },
			func() any { return r.Stats() })
		registry.Remove(itself)
	}
}

// Two masters that are endpoints of each other, a setup for the case that all workers of one of them are gone.
func TestRelaysThatAreEndpointsOfEachOther(t *testing.T) {
	one, other := services.New(services.Options{}), services.New(services.Options{})
	_, addr := startRelay(t, Options{Registry: one})
	_, otherAddr := startRelay(t, Options{Registry: other})
	there, here := &services.Endpoint{Address: otherAddr}, &services.Endpoint{Address: addr}
	one.Add(there, serviceName)
	other.Add(here, serviceName)
	client := dial(t, addr)

	// No worker is alive: the call ends, and does not multiply.
	ctx, cancel := context.WithTimeout(timeout(t), 300*time.Millisecond)
	defer cancel()
	if _, err := client.UnaryCall(ctx, &testpb.SimpleRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("without a worker: %v, want DEADLINE_EXCEEDED", err)
	}
	for name, s := range map[string]*services.Service{
		"one": one.Service(serviceName), "the other": other.Service(serviceName),
	} {
		const most = 20 // the pauses grow
		if f := s.Info().Endpoints[0].Figures; f.Calls+f.Retries > most {
			t.Errorf("one call has become %d at %s", f.Calls+f.Retries, name)
		}
	}

	// The other master has a worker: each call finds it.
	worker, _ := startBackend(t, echo{})
	other.Add(worker, serviceName)
	for range 50 {
		if _, err := client.UnaryCall(timeout(t), &testpb.SimpleRequest{}); err != nil {
			t.Fatalf("with a worker at the other: %v", err)
		}
	}
}
