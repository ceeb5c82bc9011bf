package relay

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// hold begins that many calls, which a slow server does not end, and returns when the relay has handled them.
func (p *peer) hold(from uint32, n int) {
	p.t.Helper()
	for i := range uint32(n) {
		p.must(p.open(from + 2*i))
		p.must(p.WriteData(from+2*i, true, make([]byte, 5)))
	}
	p.handled()
}

// handled returns when the relay has handled everything that was sent.
func (p *peer) handled() {
	p.t.Helper()
	p.must(p.WritePing(false, [8]byte{1}))
	next(p, func(f *http2.PingFrame) bool { return f.IsAck() })
	// The calls that came with the PING in one read begin after the frames of that read have been handled, and so
	// perhaps after the answer. They have begun when the relay reads again.
	p.must(p.WriteSettings())
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
}

// others holds the addresses of the clients other than the one at 127.0.0.1.
var others = map[string]string{"another peer": "127.0.0.2", "another connection of the peer": "127.0.0.1"}

// wantServed makes a call from each of the other addresses.
func wantServed(t *testing.T, address string) {
	t.Helper()
	for name, from := range others {
		client := rawClientFrom(t, from, address)
		client.call(1, false)
		client.must(client.WriteData(1, true, []byte{0, 0, 0, 0, 2, 2 << 3, 1})) // quick
		client.wantStatus(1, protocol.CodeOK)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// A client whose calls do not end leaves some of an endpoint's concurrent streams to others.
func TestOneClientLeavesStreamsToOthers(t *testing.T) {
	const streams = 100
	s := &slow{}
	ep, _ := startBackend(t, s, grpc.MaxConcurrentStreams(streams))
	r, addr := startRelay(t, Options{MaxBackendConns: 1}, ep)
	greedy := rawClient(t, addr)
	greedy.hold(1, 3*streams)
	wantServed(t, addr)
	p := r.pools.of(ep, nil)
	if held := p.heldBy(clientOf(t, r, greedy)); held.Conn < streams*9/10 || held.Conn >= streams {
		t.Errorf("one client has %d of %d streams", held.Conn, streams)
	}
}

// clientOf returns the client's identity at the relay.
func clientOf(t *testing.T, r *Relay, p *peer) fair.Client {
	t.Helper()
	for _, c := range r.clients.all() {
		c.mu.Lock()
		found := c.socket.Conn.RemoteAddr().String() == p.LocalAddr().String()
		c.mu.Unlock()
		if found {
			return c.asClient()
		}
	}
	t.Fatal("the relay does not know the client")
	return fair.Client{}
}

// heldBy returns the number of streams that the client has.
func (p *pool) heldBy(client fair.Client) fair.Held {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shares.Of(client).Held()
}

// However many connections a peer has, its calls at an endpoint are bounded, and each connection may have one call.
func TestOpenCallsOfOnePeerAreBounded(t *testing.T) {
	const most, conns = 100, 8
	s := &slow{}
	ep, _ := startBackend(t, s)
	r, addr := startRelay(t, Options{mostOpen: most, MaxWait: patience}, ep)
	var greedy []*peer
	for range conns {
		client := rawClient(t, addr)
		client.hold(1, most)
		greedy = append(greedy, client)
	}
	wantServed(t, addr)
	p := r.pools.of(ep, nil)
	if n := p.heldBy(clientOf(t, r, greedy[0])).Peer; n < most || n > most+conns {
		t.Errorf("%d calls are open, want %d and one for each of %d connections", n, most, conns)
	}
	// Waiting calls continue when others have ended.
	for id := uint32(1); id < 2*most; id += 2 {
		greedy[0].must(greedy[0].WriteRSTStream(id, http2.ErrCodeCancel))
	}
	awaitThat(t, "the calls that have come to the endpoint, and those that wait",
		func() bool { return s.calls.Load() > most+conns },
		func() any { return s.calls.Load() }, func() any { return p.waiters() })
}

// Streams on connections that accept no more of them do not count as places of the other connections.
func TestOldConnectionsTakeNoPlaces(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxBackendConns: 1}, b.endpoint)
	const streams = 64
	client := rawClient(t, addr)
	for round := range uint32(3) {
		for i := range uint32(streams / 2) {
			client.call(round*streams+2*i+1, true)
		}
		p := b.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streams})
		for range streams / 2 {
			next(p, anyHeaders)
		}
		p.must(p.WriteGoAway(frames.MaxID, http2.ErrCodeNo, nil))
		p.must(p.WritePing(false, [8]byte{1}))
		next(p, func(f *http2.PingFrame) bool { return f.IsAck() })
	}
}

// If the queue for a stream is full, the client with the most waiting calls gives way, and clients take turns for
// streams.
func TestClientWithMostWaitingForAStreamGivesWay(t *testing.T) {
	b := newRawBackend(t)
	// The calls may wait, and the backend be silent, for as long as the test takes.
	r, addr := startRelay(t, Options{MaxBackendConns: 1, MaxWait: patience, BackendSilence: patience}, b.endpoint)
	rawClientFrom(t, "127.0.0.3", addr).call(1, true)
	p := b.acceptOne()
	pool := r.pools.of(b.endpoint, nil)
	greedy := make([]*peer, mostWaiting/1000+1)
	for i := range greedy {
		greedy[i] = rawClient(t, addr)
		greedy[i].hold(1, 1000)
	}
	if n := pool.waiters(); n != mostWaiting {
		t.Fatalf("%d calls wait, want %d", n, mostWaiting)
	}
	victims := make(map[string]*peer)
	for name, from := range others {
		victims[name] = rawClientFrom(t, from, addr)
		victims[name].call(1, true, "name", name)
		victims[name].handled()
	}
	if n := pool.waiters(); n != mostWaiting {
		t.Errorf("%d calls wait, want %d", n, mostWaiting)
	}
	id := uint32(1)
	for turn := 1; len(victims) > 0; turn++ {
		p.answer(id)
		f := next(p, anyHeaders)
		id = f.StreamID
		name := field(f, "name")
		victim := victims[name]
		if victim == nil {
			continue
		}
		p.answer(id)
		victim.wantStatus(1, protocol.CodeOK)
		delete(victims, name)
		if limit := 2 * (len(greedy) + 2); turn > limit {
			t.Errorf("%s: its call was number %d, want %d at most", name, turn, limit)
		}
		if len(victims) > 0 {
			id = next(p, anyHeaders).StreamID
		}
	}
	// A client that is refused and retries at once is slowed down.
	for range 2 {
		client := rawClient(t, addr)
		for id := uint32(1); id < 2*1000; id += 2 {
			client.must(client.open(id))
		}
	}
	account := clientOf(t, r, greedy[0]).Conn.(*peers.Account)
	awaitThat(t, "refused calls are free", func() bool { return !account.MayBegin(r.now()) })
}

// acceptOne accepts a connection that allows one concurrent call, and on which there is a call.
func (b *rawBackend) acceptOne() *peer {
	b.t.Helper()
	p := b.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	next(p, anyHeaders)
	p.handled()
	return p
}

// A call that begins just when a stream becomes free is served after the calls that wait for one.
func TestNewCallOvertakesNoneThatWaits(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxBackendConns: 1}, b.endpoint)
	greedy, victim := rawClient(t, addr), rawClientFrom(t, "127.0.0.2", addr)
	greedy.call(1, true)
	p := b.acceptOne()
	victim.call(1, true, "name", "victim")
	victim.handled()
	// Both arrive in one read.
	var frames bytes.Buffer
	f := http2.NewFramer(&frames, nil)
	greedy.must(f.WriteRSTStream(1, http2.ErrCodeCancel))
	greedy.must(f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: 3, BlockFragment: flooding, EndStream: true, EndHeaders: true,
	}))
	_, err := greedy.Write(frames.Bytes())
	greedy.must(err)
	if f := next(p, anyHeaders); field(f, "name") != "victim" {
		t.Errorf("the next call is %v", f.Fields)
	}
}

// A client whose calls do not end leaves some of the calls that a service's limit allows to others.
func TestLimitOfCallsInFlightIsShared(t *testing.T) {
	const limit = 100
	s := &slow{}
	ep, _ := startBackend(t, s)
	registry := services.New(services.Options{Policies: map[string]services.Policy{"*": {MaxInFlight: limit}}})
	_, addr := startRelay(t, Options{Registry: registry}, ep)
	greedy := rawClient(t, addr)
	greedy.hold(1, 2*limit)
	wantServed(t, addr)
}

// Calls that the relay answers itself cost a client as much as calls that it resets, whatever the reason for the
// refusal.
func TestAnsweredCallsAreNotFree(t *testing.T) {
	request := func(path, contentType string) []string {
		return []string{
			":method", "POST", ":scheme", "http", ":path", path, ":authority", "test", "content-type", contentType,
		}
	}
	known := "/" + serviceName + "/UnaryCall"
	for name, headers := range map[string][]string{
		"unknown service": request("/nobody.Offers/This", "application/grpc"),
		"malformed path":  request("/nobody", "application/grpc"),
		"not gRPC":        request(known, "text/plain"),
		"no place":        request(known, "application/grpc"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := services.New(services.Options{Policies: map[string]services.Policy{"*": {MaxInFlight: 1}}})
			ep, _ := startBackend(t, &slow{})
			r, addr := startRelay(t, Options{Registry: registry, MinPing: 1}, ep)
			holder, client := rawClientFrom(t, "127.0.0.2", addr), rawClient(t, addr)
			holder.hold(1, 1)
			client.handled()
			account := clientOf(t, r, client).Conn.(*peers.Account)
			// Many at once: a call gets a token back in every 2 ms, in which a busy machine may not answer one.
			for id := uint32(1); account.MayBegin(r.now()); {
				if id > 2*20_000 {
					t.Fatal("the calls are free")
				}
				for range 100 {
					client.headers(id, true, headers...)
					id += 2
				}
				client.handled()
			}
		})
	}
}
