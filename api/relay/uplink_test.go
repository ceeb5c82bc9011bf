package relay

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/protocol"
)

// uploads makes the client begin that many uploads of 60 KB, from that stream on. All calls begin before any data
// is sent, so that none of them finds the window used up and goes to another connection.
func uploads(client *peer, from uint32, n int) {
	client.t.Helper()
	for i := range uint32(n) {
		client.call(from+2*i, false)
	}
	client.handled()
	for i := range uint32(n) {
		for range 4 {
			client.must(client.WriteData(from+2*i, false, make([]byte, 15_000)))
		}
	}
}

// If a backend gives its window back only as its handlers read, uploads of one client leave some of it to others.
func TestOneClientLeavesWindowToOthers(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MinPing: 1, BackendSilence: patience}, b.endpoint)
	greedy := rawClient(t, addr)
	uploads(greedy, 1, 30)
	first := b.accept()
	for stalled := 0; stalled < 40<<10; {
		stalled += len(next[*http2.DataFrame](first, nil).Data())
	}
	for name, victim := range map[string]*peer{
		"another peer":                   rawClientFrom(t, "127.0.0.2", addr),
		"another connection of the peer": rawClient(t, addr),
	} {
		victim.call(1, false)
		victim.message(1, 1000, true)
		var id uint32
		for received := 0; received < 1005; {
			f := next[*http2.DataFrame](first, nil)
			if f.StreamEnded() || id == f.StreamID {
				id = f.StreamID
				received += len(f.Data())
			}
		}
		first.answer(id)
		victim.wantStatus(1, protocol.CodeOK)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	// The next upload of the greedy client gets a connection of its own.
	second := make(chan *peer, 1)
	go func() { second <- b.accept() }()
	for id := uint32(1001); ; id += 2 {
		greedy.call(id, false)
		greedy.must(greedy.WriteData(id, false, make([]byte, 1000)))
		greedy.must(greedy.WritePing(false, [8]byte{1}))
		next(greedy, func(f *http2.PingFrame) bool { return f.IsAck() })
		select {
		case p := <-second:
			next[*http2.DataFrame](p, nil)
			return
		default:
		}
	}
}

// Flows that were kept back continue when the backend has read, and everything arrives.
func TestFlowsThatWereKeptBackGoOn(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	const calls = 8
	client := rawClient(t, addr)
	uploads(client, 1, calls)
	p := b.accept()
	for received := 0; received < calls*60_000; {
		f := next[*http2.DataFrame](p, nil)
		n := len(f.Data())
		received += n
		p.must(p.WriteWindowUpdate(f.StreamID, uint32(n)))
		p.must(p.WriteWindowUpdate(0, uint32(n)))
	}
}
