package relay

import (
	"testing"

	"golang.org/x/net/http2"
)

func TestCutStreams(t *testing.T) {
	var s cutStreams
	if s.take(1, 0) {
		t.Error("a frame may come before any stream was cut")
	}
	s.add(3, 100)
	for _, c := range []struct {
		id   uint32
		n    int
		want bool
	}{
		{1, 1, false},
		{5, 1, false},
		{3, 100 + cutTrailers + 1, false},
		{3, 100, true},
		{3, cutTrailers, true},
		{3, 1, false},
	} {
		if got := s.take(c.id, c.n); got != c.want {
			t.Errorf("take(%d, %d) = %t", c.id, c.n, got)
		}
	}
	s.add(7, 100)
	if s.end(7); s.take(7, 1) {
		t.Error("a frame may come behind the client's end")
	}
	// However many streams are cut, frames may still arrive on each of them.
	const n = 10_000
	for i := range uint32(n) {
		s.add(4*i+5, 100)
	}
	for i := range uint32(n) {
		if !s.take(4*i+5, 100) {
			t.Fatalf("a frame on stream %d, which was cut, may not come", 4*i+5)
		}
	}
	if s.take(4*n+3, 1) {
		t.Error("a frame may come on a new stream that was not cut")
	}
	for range n {
		s.add(1, maxWindow)
	}
	if s.left != mostCut {
		t.Errorf("%d bytes may still come", s.left)
	}
}

// Frames that a client sent before it read that the relay had ended their streams are ignored, however many there are.
func TestFramesInFlightOnStreamsThatTheRelayEnded(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, false)
	p := b.accept()
	next(p, anyHeaders)
	const last = 401
	for id := uint32(3); id <= last; id += 2 {
		client.headers(id, false, ":method", "POST", ":scheme", "http", ":path", "/no.Such/Method", ":authority", "a",
			"content-type", "application/grpc")
	}
	for id := uint32(3); id <= last; id += 2 {
		client.message(id, 100, false)
		client.must(client.WriteWindowUpdate(id, 1000))
		if id%4 == 1 {
			client.headers(id, true, "x-checksum", "1")
		} else {
			client.message(id, 0, true)
		}
		client.must(client.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	client.message(1, 0, true)
	next(p, func(f *http2.DataFrame) bool { return f.StreamEnded() })
	p.answer(1)
	for {
		switch f := next[http2.Frame](client, nil).(type) {
		case *http2.GoAwayFrame:
			t.Fatalf("GOAWAY with %v %q", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			if f.ErrCode != http2.ErrCodeNo {
				t.Fatalf("stream %d: RST_STREAM with %v", f.StreamID, f.ErrCode)
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == 1 && f.StreamEnded() {
				return
			}
		}
	}
}

// Frames that cannot have been in flight when their stream ended are the client's fault.
func TestFramesOnStreamsThatTheClientEnded(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(p *peer)
		code http2.ErrCode
		gone bool // the connection ends too
	}{
		"DATA behind the end": {func(p *peer) {
			p.message(1, 1, false)
		}, http2.ErrCodeStreamClosed, false},
		"trailers behind the end": {func(p *peer) {
			p.headers(1, true, "x", "y")
		}, http2.ErrCodeStreamClosed, false},
		"an update of 0 behind the end": {func(p *peer) {
			p.must(p.WriteWindowUpdate(1, 0))
		}, http2.ErrCodeProtocol, false},
		"a call on a stream that was": {func(p *peer) {
			p.call(1, true)
		}, http2.ErrCodeProtocol, true},
		"a call on a stream passed over": {func(p *peer) {
			p.call(3, true)
		}, http2.ErrCodeProtocol, true},
		"DATA on a stream passed over": {func(p *peer) {
			p.message(3, 1, false)
		}, http2.ErrCodeStreamClosed, false},
		"DATA behind the client's reset": {func(p *peer) {
			p.call(7, false)
			p.must(p.WriteRSTStream(7, http2.ErrCodeCancel))
			p.message(7, 1, false)
		}, http2.ErrCodeStreamClosed, false},
		"DATA behind a reset that crossed the answer": {func(p *peer) {
			p.headers(7, false, ":method", "POST", ":scheme", "http", ":path", "/no.Such/Method", ":authority", "a",
				"content-type", "application/grpc")
			p.wantStatus(7, 12)
			p.must(p.WriteRSTStream(7, http2.ErrCodeCancel))
			p.message(7, 1, false)
		}, http2.ErrCodeStreamClosed, false},
		"trailers without an end": {func(p *peer) {
			p.headers(1, false, "x", "y")
		}, http2.ErrCodeProtocol, false},
		"trailers with a method": {func(p *peer) {
			p.headers(1, true, ":method", "y")
		}, http2.ErrCodeProtocol, false},
		"more than the window of the stream": {func(p *peer) {
			p.headers(7, false, ":method", "POST", ":scheme", "http", ":path", "/no.Such/Method", ":authority", "a",
				"content-type", "application/grpc")
			for range (firstWindow+cutTrailers)/maxFrame + 1 {
				p.must(p.WriteData(7, false, make([]byte, maxFrame)))
			}
		}, http2.ErrCodeStreamClosed, false},
	} {
		t.Run(name, func(t *testing.T) {
			ep, _ := startBackend(t, echo{})
			_, addr := startRelay(t, Options{}, ep)
			client := rawClient(t, addr)
			client.AllowIllegalWrites = true
			for _, id := range []uint32{1, 5} {
				client.call(id, false)
				client.request(id, 10, true)
				client.wantStatus(id, 0)
			}
			c.do(client)
			if c.gone {
				client.wantGoAway(c.code)
				return
			}
			next(client, func(f *http2.RSTStreamFrame) bool { return f.ErrCode == c.code })
			client.call(9, false)
			client.request(9, 10, true)
			client.wantStatus(9, 0)
		})
	}
}

// Answers of a backend on streams that the relay has reset are ignored.
func TestAnswersInFlightOnStreamsThatTheRelayReset(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	const last = 201
	for id := uint32(3); id <= last; id += 2 {
		client.call(id, true)
		next(p, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == id })
		client.must(client.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	next(p, func(f *http2.RSTStreamFrame) bool { return f.StreamID == last })
	for id := uint32(3); id <= last; id += 2 {
		p.answer(id)
	}
	p.answer(1)
	client.wantStatus(1, 0)
}

func TestClientIDs(t *testing.T) {
	s := clientIDs{newest: 7, served: 5}
	for id, want := range map[uint32]struct{ opened, ignored bool }{
		0: {false, false}, 2: {false, false}, 3: {true, false}, 5: {true, false}, 6: {false, false}, 7: {true, true},
		9: {false, false},
	} {
		if opened, ignored := s.opened(id), s.ignored(id); opened != want.opened || ignored != want.ignored {
			t.Errorf("stream %d: opened %v, ignored %v, want %+v", id, opened, ignored, want)
		}
	}
}
