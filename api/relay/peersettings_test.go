package relay

import (
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

func setting(id http2.SettingID, value uint32) http2.Setting {
	return http2.Setting{ID: id, Val: value}
}

// wantAckBeforeData reads up to n bytes of a stream, and fails if any arrive before the acknowledgment of settings.
func (p *peer) wantAckBeforeData(id uint32, n int) {
	p.t.Helper()
	for acked, got := false, 0; got < n || !acked; {
		switch f := next[http2.Frame](p, nil).(type) {
		case *http2.SettingsFrame:
			acked = acked || f.IsAck()
		case *http2.DataFrame:
			if f.StreamID == id && !acked {
				p.t.Fatal("DATA that new settings allow comes before their acknowledgment")
			}
			got += len(f.Data())
		}
	}
}

// awaitAck reads up to the acknowledgment of the settings, so that only those of later settings are still to come.
func (p *peer) awaitAck() {
	p.t.Helper()
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
}

// A peer may end the connection if DATA precedes the acknowledgment of the settings that allow it.
func TestSettingsAreAcknowledgedBeforeTheyAreUsed(t *testing.T) {
	const size = 3000
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr, setting(http2.SettingInitialWindowSize, 0))
	client.awaitAck()
	client.call(1, false)
	p := b.accept(setting(http2.SettingInitialWindowSize, 0))
	next(p, anyHeaders)
	p.awaitAck()

	client.message(1, size, true)
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() }) // the relay has received the message
	p.must(p.WriteSettings(setting(http2.SettingInitialWindowSize, frames.FirstWindow)))
	p.wantAckBeforeData(1, size)

	p.answer(1)
	p.must(p.WritePing(false, [8]byte{1}))
	next(p, func(f *http2.PingFrame) bool { return f.IsAck() })
	client.must(client.WriteSettings(setting(http2.SettingInitialWindowSize, frames.FirstWindow)))
	client.wantAckBeforeData(1, 8)
	client.wantStatus(1, 0)
}

// No output after the acknowledgment of a smaller window relies on the larger one.
func TestSmallerWindowIsObeyedOnceAcknowledged(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, false)
	client.call(3, false)
	p := b.accept()
	next(p, anyHeaders)
	p.awaitAck()
	p.must(p.WriteSettings(setting(http2.SettingInitialWindowSize, 10)))
	p.awaitAck()
	client.message(1, 995, false)
	client.message(3, 15, false)
	for _, id := range []uint32{1, 3} {
		if f := next[*http2.DataFrame](p, nil); f.StreamID != id || len(f.Data()) != 10 {
			t.Errorf("%d bytes of stream %d, want 10 of %d", len(f.Data()), f.StreamID, id)
		}
	}
	p.must(p.WriteWindowUpdate(1, 990))
	if f := next[*http2.DataFrame](p, nil); f.StreamID != 1 || len(f.Data()) != 990 {
		t.Errorf("%d bytes of stream %d, want the other 990 of 1", len(f.Data()), f.StreamID)
	}
}

// A backend may announce any number of streams, including the number that is assumed until it does.
func TestBackendsBoundOfStreams(t *testing.T) {
	for _, streams := range []uint32{1, unsettledStreams - 1, unsettledStreams, unsettledStreams + 1} {
		b := newRawBackend(t)
		_, addr := startRelay(t, Options{}, b.endpoint)
		client := rawClient(t, addr)
		client.call(1, true)
		first := b.accept(setting(http2.SettingMaxConcurrentStreams, streams))
		next(first, anyHeaders)
		first.awaitAck()
		for i := uint32(1); i <= streams; i++ { // one more than the backend accepts
			client.call(2*i+1, true)
		}
		second := b.accept(setting(http2.SettingMaxConcurrentStreams, streams))
		next(second, anyHeaders)
		first.must(first.WritePing(false, [8]byte{1}))
		seen := uint32(1)
		for done := false; !done; {
			switch f := next[http2.Frame](first, nil).(type) {
			case *http2.MetaHeadersFrame:
				seen++
			case *http2.PingFrame:
				done = f.IsAck()
			}
		}
		if seen > streams {
			t.Errorf("a backend that takes %d streams got %d on one connection", streams, seen)
		}
	}
}
