package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// peer speaks HTTP/2 frame by frame, as a client or as a backend.
type peer struct {
	t testing.TB
	net.Conn
	*http2.Framer
	buf bytes.Buffer
	enc *hpack.Encoder
	// greedy: it makes the relay keep more than it may, so that its connection may end while it writes.
	greedy bool
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	t.Helper()
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(patience))
	p := &peer{t: t, Conn: nc, Framer: http2.NewFramer(nc, nc)}
	p.enc = hpack.NewEncoder(&p.buf)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return p
}

// rawClient connects to a relay.
func rawClient(t testing.TB, address string, settings ...http2.Setting) *peer {
	t.Helper()
	return rawClientFrom(t, "127.0.0.1", address, settings...)
}

// rawClientFrom connects to a relay from an address of this host, which makes it a separate peer.
func rawClientFrom(t testing.TB, from, address string, settings ...http2.Setting) *peer {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := dialer.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, nc)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	p.must(p.WriteSettings(settings...))
	return p
}

// rawBackend is a backend whose connections a test serves itself.
type rawBackend struct {
	t testing.TB
	net.Listener
	endpoint *services.Endpoint
}

func newRawBackend(t testing.TB) *rawBackend {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	return &rawBackend{t, l, &services.Endpoint{Address: l.Addr().String()}}
}

// accept accepts the next connection and sends the first SETTINGS.
func (b *rawBackend) accept(settings ...http2.Setting) *peer {
	b.t.Helper()
	_ = b.Listener.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	nc, err := b.Accept()
	if err != nil {
		b.t.Fatal(err)
	}
	p := newPeer(b.t, nc)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(nc, preface); err != nil {
		b.t.Fatal(err)
	}
	p.must(p.WriteSettings(settings...))
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil && !p.greedy {
		p.t.Fatal(err)
	}
}

// headers writes a header block of names and values.
func (p *peer) headers(id uint32, end bool, pairs ...string) {
	p.t.Helper()
	p.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.buf.Bytes(), EndStream: end, EndHeaders: true,
	}))
}

// call writes the headers of a call to the test service.
func (p *peer) call(id uint32, end bool, more ...string) {
	p.t.Helper()
	p.headers(id, end, append([]string{
		":method", "POST", ":scheme", "http", ":path", "/" + serviceName + "/UnaryCall", ":authority", "test",
		"content-type", "application/grpc", "te", "trailers",
	}, more...)...)
}

// message writes a gRPC message of n zeros.
func (p *peer) message(id uint32, n int, end bool) {
	p.t.Helper()
	p.must(p.WriteData(id, end,
		append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, make([]byte, n)...)))
}

// request writes a message that the test service can parse, with n bytes of payload.
func (p *peer) request(id uint32, n int, end bool) {
	p.t.Helper()
	b, err := proto.Marshal(simple(n))
	p.must(err)
	p.must(p.WriteData(id, end,
		append([]byte{0, byte(len(b) >> 24), byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}, b...)))
}

// answer writes a complete answer.
func (p *peer) answer(id uint32) {
	p.t.Helper()
	p.headers(id, false, ":status", "200", "content-type", "application/grpc")
	p.message(id, 3, false)
	p.headers(id, true, "grpc-status", "0")
}

// next reads up to the next frame of type F for which ok returns true, and acknowledges SETTINGS meanwhile.
func next[F http2.Frame](p *peer, ok func(F) bool) F {
	p.t.Helper()
	f, err := tryNext(p, ok)
	if err != nil {
		p.t.Fatalf("no %T: %v", f, err)
	}
	return f
}

func tryNext[F http2.Frame](p *peer, ok func(F) bool) (F, error) {
	for {
		f, err := p.ReadFrame()
		if err != nil {
			var none F
			return none, err
		}
		if s, is := f.(*http2.SettingsFrame); is && !s.IsAck() {
			// Not through the framer: another goroutine may be writing with it.
			_, _ = p.Write(frames.AppendSettingsAck(nil))
		}
		if f, is := f.(F); is && (ok == nil || ok(f)) {
			return f, nil
		}
	}
}

// status reads up to the headers that end the stream and returns the grpc-status and grpc-message there.
func (p *peer) status(id uint32) (code int, message string) {
	p.t.Helper()
	f := next(p, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == id && f.StreamEnded() })
	code = -1
	for _, h := range f.Fields {
		switch h.Name {
		case "grpc-status":
			code, _ = strconv.Atoi(h.Value)
		case "grpc-message":
			message = h.Value
		}
	}
	return code, message
}

// wantStatus reads the status and checks its code.
func (p *peer) wantStatus(id uint32, code int) {
	p.t.Helper()
	if got, message := p.status(id); got != code {
		p.t.Errorf("stream %d: status = %d %q, want %d", id, got, message, code)
	}
}

// wantGoAway reads up to the GOAWAY that ends the connection, and then to the end of the connection.
func (p *peer) wantGoAway(code http2.ErrCode) {
	p.t.Helper()
	f, err := tryNext(p, func(f *http2.GoAwayFrame) bool {
		return f.ErrCode != http2.ErrCodeNo || code == http2.ErrCodeNo
	})
	switch {
	case err != nil:
		p.t.Errorf("end without GOAWAY: %v", err)
	case f.ErrCode != code:
		p.t.Errorf("GOAWAY with %v %q, want %v", f.ErrCode, f.DebugData(), code)
	}
	for err == nil {
		_, err = p.ReadFrame()
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		p.t.Error("the connection stays open after GOAWAY")
	}
}

func field(f *http2.MetaHeadersFrame, name string) string {
	for _, h := range f.Fields {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func anyHeaders(*http2.MetaHeadersFrame) bool { return true }
