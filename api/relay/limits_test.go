package relay

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestRefusals(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	base := func(path, contentType string) []string {
		return []string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "a", "content-type", contentType, "te", "trailers"}
	}
	good := "/" + serviceName + "/UnaryCall"
	id := uint32(1)
	for _, c := range []struct {
		name    string
		headers []string
		http    string
		code    string
		message string
	}{
		{"unknown service", base("/no.Such/Method", "application/grpc"), "200", "12", "unknown service no.Such"},
		{"no slash", base("/nothing", "application/grpc"), "200", "12", "malformed method name: \"/nothing\""},
		{"no slash in front", base("pkg.Service/Method", "application/grpc"), "200", "12", "malformed method name: \"pkg.Service/Method\""},
		{"not gRPC", base(good, "text/html"), "415", "3", ""},
		{"almost gRPC", base(good, "application/grpcish"), "415", "3", ""},
		{"a timeout that is none", append(base(good, "application/grpc"), "grpc-timeout", "1y"), "400", "13", ""},
		{"too much metadata", append(base(good, "application/grpc"), "x", strings.Repeat("y", 17<<10)), "200", "8", ""},
		{"GET", append([]string{":method", "GET"}, base(good, "application/grpc")[2:]...), "405", "13", ""},
	} {
		var block bytes.Buffer
		client.buf.Reset()
		for i := 0; i < len(c.headers); i += 2 {
			_ = client.enc.WriteField(hpack.HeaderField{Name: c.headers[i], Value: c.headers[i+1]})
		}
		block.Write(client.buf.Bytes())
		first := block.Next(16 << 10)
		client.must(client.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0}))
		if block.Len() > 0 {
			client.must(client.WriteContinuation(id, true, block.Bytes()))
		}
		f := next(client, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == id })
		message := strings.ReplaceAll(field(f, "grpc-message"), "%25", "%")
		if field(f, ":status") != c.http || field(f, "grpc-status") != c.code || !strings.Contains(message, c.message) || !f.StreamEnded() {
			t.Errorf("%s: %v", c.name, f.Fields)
		}
		id += 2
	}
	for name, headers := range map[string][]string{
		"upper case":        append(base(good, "application/grpc"), "X-Y", "1"),
		"connection":        append(base(good, "application/grpc"), "connection", "close"),
		"te":                append(base(good, "application/grpc")[:10], "te", "gzip"),
		"no path":           {":method", "POST", ":scheme", "http", ":authority", "a", "content-type", "application/grpc"},
		"two methods":       append([]string{":method", "POST"}, base(good, "application/grpc")...),
		"pseudo at the end": append(base(good, "application/grpc"), ":extra", "1"),
		"line feed":         append(base(good, "application/grpc"), "x", "a\nb"),
		"control character": append(base(good, "application/grpc"), "x", "a\x01b"),
		"no token":          append(base(good, "application/grpc"), "x=y", "1"),
		"content-length":    append(base(good, "application/grpc"), "content-length", "7"),
	} {
		client.headers(id, true, headers...)
		if f := next(client, func(f *http2.RSTStreamFrame) bool { return f.StreamID == id }); f.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("%s: RST_STREAM with %v", name, f.ErrCode)
		}
		id += 2
	}
}

func TestMessageSize(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{MaxMessage: 100_000}, ep)
	client := dial(t, addr)
	if _, err := client.UnaryCall(timeout(t), simple(99_000)); err != nil {
		t.Error(err)
	}
	if _, err := client.UnaryCall(timeout(t), simple(100_001)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large a request: %v", err)
	}
	in := simple(1)
	in.ResponseSize = 100_001
	if _, err := client.UnaryCall(timeout(t), in); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large an answer: %v", err)
	}
}

// A client that breaks a rule is told so, but not waited for if it does not read that.
func TestFaultOfAClientThatDoesNotRead(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	r, addr := startRelay(t, Options{HandshakeTimeout: time.Second, PingTimeout: 50 * time.Millisecond}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	client.must(client.Conn.(*net.TCPConn).SetReadBuffer(4 << 10))
	client.must(client.WriteWindowUpdate(0, 1<<30))
	client.headers(1, false, ":method", "POST", ":scheme", "http", ":path", "/"+serviceName+"/StreamingOutputCall", ":authority", "test",
		"content-type", "application/grpc", "te", "trailers")
	in := &testpb.StreamingOutputCallRequest{}
	for range 1000 {
		in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: 100_000})
	}
	message, err := proto.Marshal(in)
	client.must(err)
	n := len(message)
	client.must(client.WriteData(1, true, append([]byte{0, 0, byte(n >> 16), byte(n >> 8), byte(n)}, message...)))
	for full := false; !full; time.Sleep(time.Millisecond) { // the sockets' buffers
		for _, c := range r.all() {
			c.mu.Lock()
			full = full || c.pool == nil && c.rest != nil && c.blocked.first != nil
			c.mu.Unlock()
		}
	}
	client.must(client.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))) // on a stream
	for deadline := time.Now().Add(10 * time.Second); r.Stats().Clients > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection stays open")
		}
	}
}

func TestMessages(t *testing.T) {
	stream := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 1, 0}
	stream = append(stream, make([]byte, 256)...)
	for step := 1; step < len(stream); step++ {
		var m messages
		for at := 0; at < len(stream); at += step {
			if !m.add(stream[at:min(at+step, len(stream))], 256) {
				t.Fatalf("steps of %d: too large", step)
			}
		}
		if m.inside() {
			t.Errorf("steps of %d: inside a message at the end", step)
		}
		m = messages{}
		ok := true
		for at := 0; at < len(stream) && ok; at += step {
			ok = m.add(stream[at:min(at+step, len(stream))], 255)
		}
		if ok {
			t.Errorf("steps of %d: a message of 256 bytes is within 255", step)
		}
	}
}

func TestGarbageFromABackend(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer, id uint32)
		code int
	}{
		{"no status of HTTP", func(p *peer, id uint32) { p.headers(id, false, "content-type", "application/grpc") }, 13},
		{"no token", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "x=y", "1") }, 13},
		{"control character", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "x", "a\x7fb") }, 13},
		{"upper case", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "X", "y") }, 13},
		{"data before headers", func(p *peer, id uint32) { p.message(id, 3, false) }, 13},
		{"headers twice", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.headers(id, false, ":status", "200")
		}, 13},
		{"no trailers", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.message(id, 3, true)
		}, 13},
		{"too large a frame", func(p *peer, _ uint32) { _, _ = p.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1}) }, 14},
		{"a stream that is not", func(p *peer, _ uint32) { p.message(99, 1, false) }, 14},
		{"no HPACK", func(p *peer, id uint32) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}, 14},
		{"PUSH_PROMISE", func(p *peer, id uint32) {
			_ = p.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, EndHeaders: true})
		}, 14},
		{"a message without end", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			_ = p.WriteData(id, false, []byte{0, 0xff, 0xff, 0xff, 0xff})
		}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRawBackend(t)
			_, addr := startRelay(t, Options{}, b.endpoint)
			client := rawClient(t, addr)
			client.call(1, true)
			p := b.accept()
			next(p, anyHeaders)
			c.do(p, 1)
			client.wantStatus(1, c.code)
			// The client's connection is unharmed.
			client.must(client.WritePing(false, [8]byte{1}))
			next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
		})
	}
}

func TestAnswersThatAreNotGRPC(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	p.headers(1, false, ":status", "103", "link", "x")
	p.headers(1, false, ":status", "404", "content-type", "text/plain", "connection", "close")
	p.must(p.WriteData(1, true, []byte("no")))
	if f := next(client, anyHeaders); field(f, ":status") != "103" {
		t.Errorf("first headers: %v", f.Fields)
	}
	if f := next(client, anyHeaders); field(f, ":status") != "404" || field(f, "connection") != "" {
		t.Errorf("headers: %v", f.Fields)
	}
	if f := next[*http2.DataFrame](client, nil); string(f.Data()) != "no" || !f.StreamEnded() {
		t.Errorf("data: %v", f)
	}
}

func TestResets(t *testing.T) {
	b := newRawBackend(t)
	r, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, false)
	p := b.accept()
	next(p, anyHeaders)
	client.must(client.WriteRSTStream(1, http2.ErrCodeCancel))
	if f := next[*http2.RSTStreamFrame](p, nil); f.StreamID != 1 || f.ErrCode != http2.ErrCodeCancel {
		t.Errorf("the client's reset arrives as %v", f)
	}
	client.call(3, false)
	next(p, anyHeaders)
	p.must(p.WriteRSTStream(3, http2.ErrCodeEnhanceYourCalm))
	if f := next[*http2.RSTStreamFrame](client, nil); f.StreamID != 3 || f.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("the backend's reset arrives as %v", f)
	}
	// An answer before the end of the request.
	client.call(5, false)
	next(p, anyHeaders)
	p.answer(5)
	client.wantStatus(5, 0)
	if f := next[*http2.RSTStreamFrame](client, nil); f.StreamID != 5 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("after the answer: %v", f)
	}
	if f := next[*http2.RSTStreamFrame](p, nil); f.StreamID != 5 || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("to the backend after its answer: %v", f)
	}
	// A client that goes away.
	client.call(7, false)
	next(p, anyHeaders)
	_ = client.Close()
	if f := next[*http2.RSTStreamFrame](p, nil); f.StreamID != 7 || f.ErrCode != http2.ErrCodeCancel {
		t.Errorf("after the client has gone: %v", f)
	}
	if s := r.Stats(); s.Streams != 0 {
		t.Errorf("%d streams are left", s.Streams)
	}
}

// flooding is the header block of a call, without a table.
var flooding = func() []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/" + serviceName + "/UnaryCall"}, {":authority", "a"}, {"content-type", "application/grpc"}} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true})
	}
	return b.Bytes()
}()

func TestFloods(t *testing.T) {
	for name, flood := range map[string]func(p *peer, i int) error{
		"PING":     func(p *peer, _ int) error { return p.WritePing(false, [8]byte{1}) },
		"SETTINGS": func(p *peer, _ int) error { return p.WriteSettings() },
		"PRIORITY": func(p *peer, _ int) error { return p.WritePriority(1, http2.PriorityParam{StreamDep: 3}) },
		"unknown":  func(p *peer, _ int) error { return p.WriteRawFrame(0x77, 0, 0, nil) },
		"empty DATA": func(p *peer, i int) error {
			if i == 0 {
				p.call(1, false)
			}
			return p.WriteData(1, false, nil)
		},
		"CONTINUATION": func(p *peer, i int) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			return p.WriteContinuation(1, false, nil)
		},
		"reset": func(p *peer, i int) error {
			if i == 0 {
				p.call(1, false)
				return p.WriteRSTStream(1, http2.ErrCodeCancel)
			}
			// The same headers again: all of them are in the table by now.
			err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: flooding, EndHeaders: true})
			if err != nil {
				return err
			}
			return p.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ep, _ := startBackend(t, echo{})
			_, addr := startRelay(t, Options{}, ep)
			other := dial(t, addr)
			client := rawClient(t, addr)
			client.AllowIllegalWrites = true
			go func() {
				for i := range 20_000 {
					if flood(client, i) != nil {
						return
					}
				}
			}()
			client.wantGoAway(http2.ErrCodeEnhanceYourCalm)
			if _, err := other.UnaryCall(timeout(t), simple(1)); err != nil {
				t.Errorf("another client: %v", err)
			}
		})
	}
}

// A client that asks and never reads holds a bounded amount, and is dropped.
func TestClientThatNeverReads(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	r, addr := startRelay(t, Options{MaxMessage: 1 << 20}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	client.must(client.WriteWindowUpdate(0, 1<<30))
	for i := range 500 {
		client.call(uint32(2*i+1), false)
		client.request(uint32(2*i+1), 16_000, false)
	}
	other := dial(t, addr)
	for range 50 {
		if _, err := other.UnaryCall(timeout(t), simple(1000)); err != nil {
			t.Fatalf("another client: %v", err)
		}
		if n := r.Stats().Queued; n > maxStreams*firstWindow+budgetGrown+budgetUp+clientWindow {
			t.Fatalf("%d bytes are queued", n)
		}
	}
}

func TestHandshake(t *testing.T) {
	_, addr := startRelay(t, Options{HandshakeTimeout: 50 * time.Millisecond})
	for name, c := range map[string]struct{ say, answer string }{
		"nothing":  {"", ""},
		"HTTP/1.1": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", oldHTTP},
		"half":     {http2.ClientPreface[:10], ""},
	} {
		nc, err := net.Dial("tcp", addr) //nolint:noctx // a test
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(nc, c.say)
		all, err := io.ReadAll(nc)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if string(all) != c.answer {
			t.Errorf("%s: %q", name, all)
		}
		_ = nc.Close()
	}
}

func TestMostConnections(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{MaxConns: 1}, ep)
	if _, err := dial(t, addr).UnaryCall(timeout(t), simple(1)); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if all, _ := io.ReadAll(nc); len(all) > 0 {
		t.Errorf("a connection too many is answered: %q", all)
	}
}

func TestKeepalive(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{
		ClientPing: 40 * time.Millisecond, BackendPing: 40 * time.Millisecond, PingTimeout: 40 * time.Millisecond, BackendIdle: time.Minute,
	}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	// Who answers stays; the backend falls silent, and its call ends.
	for {
		f, err := client.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := f.(*http2.PingFrame); ok && !f.IsAck() {
			client.must(client.WritePing(true, f.Data))
		}
		if f, ok := f.(*http2.MetaHeadersFrame); ok {
			if field(f, "grpc-status") != "14" {
				t.Errorf("status = %s", field(f, "grpc-status"))
			}
			break
		}
	}
	next(p, func(f *http2.PingFrame) bool { return !f.IsAck() })
	for {
		if _, err := client.ReadFrame(); err != nil {
			break // the client has fallen silent, too
		}
	}
}

func TestIdleBackendIsLeft(t *testing.T) {
	b := newRawBackend(t)
	r, addr := startRelay(t, Options{BackendIdle: 20 * time.Millisecond}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	p.answer(1)
	client.wantStatus(1, 0)
	next[*http2.GoAwayFrame](p, nil)
	if _, err := p.ReadFrame(); err == nil {
		t.Error("the connection stays open")
	}
	client.call(3, true)
	p = b.accept()
	next(p, anyHeaders)
	r.forget(b.endpoint)
	p.answer(1)
	client.wantStatus(3, 0)
	next[*http2.GoAwayFrame](p, nil)
}

func TestUnreachable(t *testing.T) {
	gone := listen(t)
	_ = gone.Close()
	registry := services.New()
	_, addr := startRelay(t, Options{Registry: registry, MaxWait: 50 * time.Millisecond}, &services.Endpoint{Address: gone.Addr().String()})
	client := rawClient(t, addr)
	client.call(1, true)
	if code, message := client.status(1); code != 14 || !strings.Contains(message, "connection refused") {
		t.Errorf("status = %d %q", code, message)
	}
	client.call(3, true, "grpc-timeout", "20m")
	client.wantStatus(3, 4)
	if got := registry.Service(serviceName).Figures(gone.Addr().String()); got != (services.Figures{}) {
		t.Errorf("calls that only waited are counted: %+v", got)
	}
}
