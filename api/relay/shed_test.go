package relay

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// memory is the MaxBuffered of the relays in these tests.
const memory = 8 << 20

// keeping holds the ways in which clients make the relay keep memory, by kind. Everything that a remote peer can
// make it keep is one of these, or is bounded per connection, and the number of connections is bounded: HPACK's
// tables of 4 KiB, and the structures and goroutines of a connection.
var keeping = [peers.Kinds]struct {
	name  string
	conns int   // that keep about twice the limit
	most  int64 // bytes kept at any time
	least int64 // bytes kept at some time, fewer than sent because of sockets and closed connections
	keep  func(client, backend *peer)
}{
	peers.Data: {"data", 5, memory / 8 * 9, memory / 2, func(client, backend *peer) {
		answerAll(client, backend, 60, func(id uint32) {
			for range 4 {
				backend.must(backend.WriteData(id, false, make([]byte, 16_000)))
			}
		})
	}},
	peers.Headers: {"headers of requests", 8, memory / 8 * 9, memory / 2, func(client, _ *peer) {
		for i := range uint32(200) {
			client.call(2*i+1, false, "x", strings.Repeat("y", 12_000))
		}
	}},
	peers.Trailers: {"trailers", 8, memory / 8 * 9, memory / 2, func(client, backend *peer) {
		answerAll(client, backend, 200, func(id uint32) {
			backend.must(backend.WriteData(id, false, []byte{0, 0, 0, 0, 0}))
			backend.headers(id, true, "grpc-status", "0", "x", strings.Repeat("y", 12_000))
		})
	}},
	peers.Output: {"output", 2, memory / 8 * 9, 1 << 20, func(client, backend *peer) {
		answerAll(client, backend, 600, func(id uint32) {
			backend.headers(id, true, "grpc-status", "0", "x", strings.Repeat("y", 12_000))
		})
	}},
	peers.Input: {"input", 160, memory, memory / 2, func(client, _ *peer) {
		client.must(client.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 16<<10)}))
		_, _ = client.Write([]byte{0}) // the first byte of the CONTINUATION frame
	}},
	peers.Calls: {"calls", 16, memory / 8 * 9, memory / 2, func(client, _ *peer) {
		for i := range uint32(1000) {
			client.call(2*i+1, false)
		}
	}},
}

// answerAll makes n calls and begins an answer to each, followed by rest.
func answerAll(client, backend *peer, n int, rest func(id uint32)) {
	for i := range uint32(n) {
		client.call(2*i+1, true)
	}
	for range n {
		id := next(backend, anyHeaders).StreamID
		backend.headers(id, false, ":status", "200", "content-type", "application/grpc")
		rest(id)
	}
}

// watchHeld samples the relay's kept bytes until stop is called. stop returns the maximum of all kinds and of one
// kind.
func watchHeld(r *Relay, kind peers.Kind) (stop func() (all, of int64)) {
	var all, of int64
	sample := func() {
		all = max(all, r.peers.Kept())
		sum := int64(0)
		for _, c := range r.clients.all() {
			sum += int64(c.account.KeptOf(kind))
		}
		of = max(of, sum)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				sample()
				return
			case <-time.After(time.Millisecond):
				sample()
			}
		}
	}()
	return func() (int64, int64) {
		close(done)
		<-ended
		return all, of
	}
}

// awaitRead waits until the relay has read all that its clients have sent, and handled it if it ends with the
// beginning of a frame.
func awaitRead(t *testing.T, r *Relay, address string, inPart bool) {
	t.Helper()
	last := rawClientFrom(t, "127.0.0.2", address) // the relay accepts connections in their order
	last.must(last.WritePing(false, [8]byte{1}))
	next(last, func(f http2.Frame) bool { p, ok := f.(*http2.PingFrame); return ok && p.IsAck() })
	_ = last.Close()
	waits := func(c *clientConn) bool {
		c.mu.Lock()
		nc := c.socket.Conn
		c.mu.Unlock()
		greedy := nc.RemoteAddr().(*net.TCPAddr).IP.String() == "127.0.0.1"
		return c.err() == nil && greedy && (unread(t, nc) || inPart && c.guard.head.Load() == 0)
	}
	awaitThat(t, "input is not read", func() bool { return !slices.ContainsFunc(r.clients.all(), waits) })
}

// awaitThat polls until a condition holds. Otherwise it fails with the text, and with the values as they are then.
func awaitThat(t *testing.T, otherwise string, holds func() bool, values ...func() any) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			text := []any{otherwise}
			for _, value := range values {
				text = append(text, value())
			}
			t.Fatalf("%+v", text)
		}
	}
}

// awaitNothingLeft waits until the relay has neither streams nor bytes that wait.
func awaitNothingLeft(t *testing.T, r *Relay) {
	t.Helper()
	awaitThat(t, "left behind", func() bool {
		s := r.Stats()
		return s.Streams == 0 && s.Queued == 0
	}, func() any { return r.Stats() })
}

// Whatever kind of memory clients make the relay keep, it is bounded for all of them together. Clients that hold
// the most lose it, and a client that holds little does not. When they have gone, nothing is kept.
func TestEverythingKeptIsBounded(t *testing.T) {
	for kind, c := range keeping {
		t.Run(c.name, func(t *testing.T) {
			b := newRawBackend(t)
			r, addr := startRelay(t, Options{MaxBuffered: memory, BackendSilence: time.Minute}, b.endpoint)
			modest := rawClientFrom(t, "127.0.0.2", addr)
			modest.call(1, true)
			backend := b.accept()
			next(backend, anyHeaders)
			stop := watchHeld(r, peers.Kind(kind))
			var hoarders []*peer
			for range c.conns {
				client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize})
				client.must(client.Conn.(*net.TCPConn).SetReadBuffer(4 << 10))
				client.greedy = true
				c.keep(client, backend)
				hoarders = append(hoarders, client)
			}
			backend.answer(1)
			modest.wantStatus(1, 0)
			awaitRead(t, r, addr, peers.Kind(kind) == peers.Input)
			all, of := stop()
			if all > c.most || of < c.least {
				t.Errorf("%d bytes were kept, %d of them %s, want %d at most and %d at least",
					all, of, c.name, c.most, c.least)
			}
			for _, client := range hoarders {
				_ = client.Close()
			}
			awaitThat(t, "something is kept for nobody", func() bool { return r.peers.Kept() == 0 })
		})
	}
}

// Input is bounded even if nothing is freed in time, and then one peer cannot use all of it.
func TestInputIsBoundedBeforeMemoryIsFreed(t *testing.T) {
	b := newRawBackend(t)
	registry := services.New(services.Options{})
	registry.Add(b.endpoint, serviceName)
	r, err := New(Options{Registry: registry, MaxBuffered: memory, BackendSilence: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	r.shed = func(*deferred.Work, bool) {}
	addr := serveRelay(t, r)
	stop := watchHeld(r, peers.Input)
	input := keeping[peers.Input]
	for range input.conns {
		client := rawClient(t, addr)
		client.greedy = true
		input.keep(client, nil)
	}
	awaitRead(t, r, addr, true)
	modest := rawClientFrom(t, "127.0.0.2", addr)
	modest.call(1, true)
	backend := b.accept()
	next(backend, anyHeaders)
	ping := frames.AppendPing(nil, false, [8]byte{})
	_, _ = modest.Write(ping[:2])
	kept := func(c *clientConn) bool {
		return c.account.Peer() != r.peers.Largest() && c.account.KeptOf(peers.Input) > 0
	}
	awaitThat(t, "the input of a modest client is not kept",
		func() bool { return slices.ContainsFunc(r.clients.all(), kept) })
	_, _ = modest.Write(ping[2:])
	backend.answer(1)
	modest.wantStatus(1, 0)
	if all, of := stop(); all > memory || of < memory/8*6 {
		t.Errorf("%d bytes were kept, %d of them input, want %d at most and %d at least", all, of, memory, memory/8*6)
	}
}
