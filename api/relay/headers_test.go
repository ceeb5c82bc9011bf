package relay

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// manyHeaders makes calls with large headers, and returns when all of them have been handled.
func (p *peer) manyHeaders(n int) {
	p.t.Helper()
	for i := range n {
		p.call(uint32(2*i+1), true, "x", strings.Repeat("y", 15<<10))
	}
	p.must(p.WritePing(false, [8]byte{1}))
}

// Calls of one client to a backend that does not read for a moment wait, and do not end the calls of other clients.
func TestHeadersWaitForABackendThatDoesNotRead(t *testing.T) {
	_, addr, good, b := startPiped(t)
	const n = 200 // more than clientOutput
	bad := rawClient(t, addr)
	bad.manyHeaders(n)
	next(bad, func(f *http2.PingFrame) bool { return f.IsAck() })
	good.message(1, 10, true)
	good.must(good.WritePing(false, [8]byte{1}))
	next(good, func(f *http2.PingFrame) bool { return f.IsAck() })
	for range n {
		next(b, anyHeaders)
	}
	b.answer(1)
	good.wantStatus(1, 0)
}

func TestHeadersAreBounded(t *testing.T) {
	registry := services.New(services.Options{})
	registry.AddIdle(newRawBackend(t).endpoint, serviceName)
	for name, c := range map[string]struct{ buffered, least, most int }{
		"of all clients": {1 << 20, 1 << 19, 1 << 20 / 4 * shedAbove},
		"of one client":  {0, budgetHeaders - 2*maxHeaderList, budgetHeaders},
	} {
		r, addr := startRelay(t, Options{Registry: registry, MaxBuffered: c.buffered})
		client := rawClient(t, addr)
		client.manyHeaders(300)
		refused := 0
		next(client, func(f http2.Frame) bool {
			if h, ok := f.(*http2.MetaHeadersFrame); ok && field(h, "grpc-status") == "8" {
				refused++
			}
			p, ok := f.(*http2.PingFrame)
			return ok && p.IsAck()
		})
		if refused == 0 {
			t.Errorf("%s: no call is refused", name)
		}
		n := 0
		for _, c := range r.clients.all() {
			n += c.account.KeptOf(peers.Headers)
		}
		if n > c.most || n < c.least {
			t.Errorf("%s: %d bytes are kept, want %d to %d", name, n, c.least, c.most)
		}
		other := rawClient(t, addr)
		other.call(1, true)
		other.must(other.WriteRSTStream(1, http2.ErrCodeCancel))
		other.must(other.WritePing(false, [8]byte{1}))
		if f, err := tryNext[http2.Frame](other, func(f http2.Frame) bool {
			return f.Header().Type == http2.FrameHeaders || f.Header().Type == http2.FramePing
		}); err != nil || f.Header().Type != http2.FramePing {
			t.Errorf("%s: another client gets %v, %v", name, f, err)
		}
	}
}
