package relay

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

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
			for range (frames.FirstWindow+cutTrailers)/frames.MaxFrame + 1 {
				p.must(p.WriteData(7, false, make([]byte, frames.MaxFrame)))
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
