package relay

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// A connection that is dead without notice is replaced: its calls end soon, and further calls go to a new
// connection.
func TestSilentConnectionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry, endpoint := services.New(services.Options{}), &services.Endpoint{Address: "pipe"}
		registry.Add(endpoint, serviceName)
		r := startIsolated(t, Options{
			Registry: registry, BackendSilence: 40 * time.Millisecond, PingTimeout: 80 * time.Millisecond,
			ClientPing: time.Minute,
		})
		client := r.client()
		client.call(1, true)
		dead := r.backend()
		dead.answer(next(dead, anyHeaders).StreamID)
		client.wantStatus(1, protocol.CodeOK)

		client.call(3, true)
		next(dead, anyHeaders) // the last that it reads
		client.wantStatus(3, protocol.CodeUnavailable)
		client.call(5, true)
		fresh := r.backend()
		fresh.answer(next(fresh, anyHeaders).StreamID)
		client.wantStatus(5, protocol.CodeOK)
		if got := registry.Service(serviceName).Figures(endpoint.Address); got.Failed() != 1 {
			t.Errorf("figures: %+v, want one call that has failed", got)
		}
	})
}

// While a PING is unanswered, further calls go to another connection, and canceled calls eject the endpoint.
func TestSuspectedConnectionGetsNoCalls(t *testing.T) {
	synctest.Test(t, testSuspectedConnection)
}

func testSuspectedConnection(t *testing.T) {
	registry, endpoint := services.New(services.Options{}), &services.Endpoint{Address: "pipe"}
	registry.Add(endpoint, serviceName)
	r := startIsolated(t, Options{Registry: registry, BackendSilence: 40 * time.Millisecond})
	client := r.client()
	client.call(1, true)
	quiet := r.backend()
	next(quiet, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	for i := range uint32(9) { // nothing is received after these
		client.call(2*i+3, true)
		next(quiet, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == 2*i+3 })
	}
	suspected := func() bool {
		for _, c := range r.allBackends() {
			c.mu.Lock()
			suspect := c.suspect()
			c.mu.Unlock()
			if suspect {
				return true
			}
		}
		return false
	}
	awaitThat(t, "no PING, or nobody minds that it is not answered", suspected)
	client.call(21, true)
	other := r.backend()
	other.answer(next(other, anyHeaders).StreamID)
	client.wantStatus(21, protocol.CodeOK)
	registry.Add(&services.Endpoint{Address: "another"}, serviceName) // else the only endpoint would not be ejected
	for i := range uint32(10) {
		client.must(client.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
	}
	client.must(client.WritePing(false, [8]byte{1}))
	next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
	if got := registry.Service(serviceName).Figures(endpoint.Address); got.Calls != 11 || got.Ejections != 1 {
		t.Errorf("figures: %+v, want eleven calls and an ejection", got)
	}
}

// While no call is answered, few PINGs are sent for silence: servers end connections for more.
func TestPingsForSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const regular, quick = 6 * time.Minute, 2 * time.Second
		r := &env{epoch: time.Now().Add(-time.Hour)}
		l := &liveness{}
		hear := func() { l.heard.Store(int64(r.now())) }
		hear()
		pings := func(d time.Duration) (n int) {
			for range d / time.Second {
				time.Sleep(time.Second)
				if l.pingDue(r.now(), regular, quick) {
					n++
					hear() // the answer to the PING
				}
			}
			return n
		}
		if n := pings(regular - time.Second); n != 0 {
			t.Errorf("%d PINGs, and nothing was asked", n)
		}
		hear()
		for range 10 {
			l.ask(r.now())
			if n := pings(10 * time.Second); n > 1 {
				t.Errorf("%d PINGs for one call", n)
			}
		}
		if l.early != mostEarlyPings {
			t.Errorf("%d PINGs for calls without an answer, want %d", l.early, mostEarlyPings)
		}
		l.answer()
		l.ask(r.now())
		if n := pings(10 * time.Second); n != 1 {
			t.Errorf("%d PINGs after an answer, want one", n)
		}
		if n := pings(time.Hour); n < 8 || n > 10 {
			t.Errorf("%d PINGs in an hour of silence, want about 9", n)
		}
	})
}

// A backend that accepts one call per connection and then sends GOAWAY serves many calls without pauses.
func TestOneCallPerConnection(t *testing.T) {
	for name, settings := range map[string][]http2.Setting{
		"announced":     {{ID: http2.SettingMaxConcurrentStreams, Val: 1}},
		"not announced": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := newRawBackend(t)
			go func() {
				for {
					nc, err := b.Accept()
					if err != nil {
						return
					}
					p := newPeer(t, nc)
					go serveOne(p, settings)
				}
			}()
			_, addr := startRelay(t, Options{MaxWait: patience}, b.endpoint)
			client := rawClient(t, addr)
			const calls = 200
			for i := range uint32(calls) {
				client.call(2*i+1, true)
			}
			for range calls {
				f := next(client, func(f *http2.MetaHeadersFrame) bool { return f.StreamEnded() })
				if field(f, "grpc-status") != "0" {
					t.Errorf("stream %d: %v", f.StreamID, f.Fields)
				}
			}
		})
	}
}

// serveOne serves the first stream of a connection and then ends the connection.
func serveOne(p *peer, settings []http2.Setting) {
	defer p.Close()
	_, _ = io.ReadFull(p.Conn, make([]byte, len(http2.ClientPreface)))
	_ = p.WriteSettings(settings...)
	if _, err := tryNext(p, anyHeaders); err != nil {
		return
	}
	p.answer(1)
	_ = p.WriteGoAway(1, http2.ErrCodeNo, nil)
	for err := error(nil); err == nil; {
		_, err = p.ReadFrame()
	}
}
