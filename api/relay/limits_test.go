package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestRefusals(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	const gRPC, malformed = "application/grpc", "malformed method name: "
	base := func(path, contentType string) []string {
		return []string{
			":method", "POST", ":scheme", "http", ":path", path, ":authority", "a",
			"content-type", contentType, "te", "trailers",
		}
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
		{"unknown service", base("/no.Such/Method", gRPC), "200", "12", "unknown service no.Such"},
		{"no slash", base("/nothing", gRPC), "200", "12", malformed + `"/nothing"`},
		{"no slash in front", base("pkg.Service/Method", gRPC), "200", "12", malformed + `"pkg.Service/Method"`},
		{"not gRPC", base(good, "text/html"), "415", "3", ""},
		{"almost gRPC", base(good, "application/grpcish"), "415", "3", ""},
		{"a timeout that is none", append(base(good, gRPC), "grpc-timeout", "1y"), "400", "13", ""},
		{"two timeouts", append(base(good, gRPC), "grpc-timeout", "1S", "grpc-timeout", "2S"), "400", "13", ""},
		{"too much metadata", append(base(good, gRPC), "x", strings.Repeat("y", 17<<10)), "200", "8", ""},
		{"GET", append([]string{":method", "GET"}, base(good, gRPC)[2:]...), "405", "13", ""},
	} {
		var block bytes.Buffer
		client.buf.Reset()
		for i := 0; i < len(c.headers); i += 2 {
			_ = client.enc.WriteField(hpack.HeaderField{Name: c.headers[i], Value: c.headers[i+1]})
		}
		block.Write(client.buf.Bytes())
		first := block.Next(16 << 10)
		client.must(client.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, BlockFragment: first, EndStream: true, EndHeaders: block.Len() == 0,
		}))
		if block.Len() > 0 {
			client.must(client.WriteContinuation(id, true, block.Bytes()))
		}
		f := next(client, func(f *http2.MetaHeadersFrame) bool { return f.StreamID == id })
		message := strings.ReplaceAll(field(f, "grpc-message"), "%25", "%")
		if field(f, ":status") != c.http || field(f, "grpc-status") != c.code ||
			!strings.Contains(message, c.message) || !f.StreamEnded() {
			t.Errorf("%s: %v", c.name, f.Fields)
		}
		id += 2
	}
	pseudo := func(scheme, authority string, more ...string) []string {
		return append([]string{
			":method", "POST", ":scheme", scheme, ":path", good, ":authority", authority,
			"content-type", gRPC, "te", "trailers",
		}, more...)
	}
	for name, headers := range map[string][]string{
		"empty scheme":        pseudo("", "a"),
		"another scheme":      pseudo("ftp", "a"),
		"blank in authority":  pseudo("http", "a b"),
		"userinfo":            pseudo("http", "user@a"),
		"two authorities":     pseudo("http", "a,b"),
		"path in authority":   pseudo("http", "a/b"),
		"userinfo in host":    pseudo("http", "a", "host", "user@a"),
		"another host":        pseudo("http", "a", "host", "b"),
		"another port":        pseudo("http", "a:1", "host", "a:2"),
		"transfer-encoding":   pseudo("http", "a", "transfer-encoding", "chunked"),
		"upgrade":             pseudo("http", "a", "upgrade", "h2c"),
		"keep-alive":          pseudo("http", "a", "keep-alive", "timeout=5"),
		"proxy-connection":    pseudo("http", "a", "proxy-connection", "close"),
		"two content-lengths": pseudo("http", "a", "content-length", "0", "content-length", "5"),
		"two content-types":   pseudo("http", "a", "content-type", "application/grpc+json"),
		"a signed length":     pseudo("http", "a", "content-length", "+0"),
		"upper case":          append(base(good, gRPC), "X-Y", "1"),
		"connection":          append(base(good, gRPC), "connection", "close"),
		"te":                  append(base(good, gRPC)[:10], "te", "gzip"),
		"no path":             {":method", "POST", ":scheme", "http", ":authority", "a", "content-type", gRPC},
		"two methods":         append([]string{":method", "POST"}, base(good, gRPC)...),
		"pseudo at the end":   append(base(good, gRPC), ":extra", "1"),
		"line feed":           append(base(good, gRPC), "x", "a\nb"),
		"control character":   append(base(good, gRPC), "x", "a\x01b"),
		"no token":            append(base(good, gRPC), "x=y", "1"),
		"content-length":      append(base(good, gRPC), "content-length", "7"),
	} {
		client.headers(id, true, headers...)
		f := next(client, func(f *http2.RSTStreamFrame) bool { return f.StreamID == id })
		if f.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("%s: RST_STREAM with %v", name, f.ErrCode)
		}
		id += 2
	}
	// Valid requests of the same kinds are passed on.
	p := (*peer)(nil)
	for i, headers := range [][]string{
		pseudo("http", "a", "host", "a"), pseudo("http", "A.example:80", "host", "a.Example"),
		pseudo("https", "a", "host", "a:443"), pseudo("http", "[::1]:80"), pseudo("http", "tmp%2Fsocket"),
		pseudo("http", ""), pseudo("http", "a", "content-length", "0"),
	} {
		client.headers(id, true, headers...)
		if p == nil {
			p = b.accept()
		}
		if f := next(p, anyHeaders); int(f.StreamID) != 2*i+1 {
			t.Errorf("%v: the endpoint saw %v on stream %d", headers, f.Fields, f.StreamID)
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

// A client that breaks a rule is told so, but the relay does not wait for it if it does not read that.
func TestFaultOfAClientThatDoesNotRead(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	r, addr := startRelay(t, Options{PingTimeout: time.Second}, ep)
	client := rawClient(t, addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
	client.must(client.Conn.(*net.TCPConn).SetReadBuffer(4 << 10))
	client.must(client.WriteWindowUpdate(0, 1<<30))
	client.headers(1, false, ":method", "POST", ":scheme", "http",
		":path", "/"+serviceName+"/StreamingOutputCall", ":authority", "test",
		"content-type", "application/grpc", "te", "trailers")
	in := &testpb.StreamingOutputCallRequest{}
	for range 1000 {
		in.ResponseParameters = append(in.ResponseParameters, &testpb.ResponseParameters{Size: 100_000})
	}
	message, err := proto.Marshal(in)
	client.must(err)
	n := len(message)
	client.must(client.WriteData(1, true, append([]byte{0, 0, byte(n >> 16), byte(n >> 8), byte(n)}, message...)))
	awaitThat(t, "the answer is not held up", func() bool { // it fills the buffers of the sockets
		return slices.ContainsFunc(r.clients.all(), func(c *clientConn) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.out.Blocked() && c.out.Space() <= 0
		})
	})
	client.must(client.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))) // PING on a stream, a protocol error
	awaitThat(t, "the connection stays open", func() bool { return r.Stats().Clients == 0 })
}

func TestGarbageFromABackend(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(p *peer, id uint32)
		code int
	}{
		{"no status of HTTP", func(p *peer, id uint32) {
			p.headers(id, false, "content-type", "application/grpc")
		}, 13},
		{"no token", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "x=y", "1") }, 13},
		{"control character", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "x", "a\x7fb") }, 13},
		{"upper case", func(p *peer, id uint32) { p.headers(id, false, ":status", "200", "X", "y") }, 13},
		{"a status with a sign", func(p *peer, id uint32) {
			p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "+0")
		}, 13},
		{"a negative status in trailers", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.headers(id, true, "grpc-status", "-0")
		}, 13},
		{"an empty status", func(p *peer, id uint32) {
			p.headers(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "")
		}, 13},
		{"two statuses", func(p *peer, id uint32) {
			p.headers(id, true, ":status", "200", "content-type", "application/grpc",
				"grpc-status", "5", "grpc-status", "0")
		}, 13},
		{"a status of HTTP in trailers", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.headers(id, true, ":status", "000", "grpc-status", "0")
		}, 13},
		{"data before headers", func(p *peer, id uint32) { p.message(id, 3, false) }, 13},
		{"headers twice", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.headers(id, false, ":status", "200")
		}, 13},
		{"no trailers", func(p *peer, id uint32) {
			p.headers(id, false, ":status", "200", "content-type", "application/grpc")
			p.message(id, 3, true)
		}, 13},
		{"too large a frame", func(p *peer, _ uint32) {
			_, _ = p.Write([]byte{0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1})
		}, 14},
		{"a stream that is not", func(p *peer, _ uint32) { p.message(99, 1, false) }, 14},
		{"no HPACK", func(p *peer, id uint32) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true,
			})
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
			// The client's connection is unaffected.
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

// However many interim headers an endpoint sends, its caller's connection stays open.
func TestFloodOfInterimHeaders(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	for range 1000 { // far more than clientOutput and the buffers of all sockets
		p.headers(1, false, ":status", "103", "link", strings.Repeat("x", 15<<10))
	}
	p.answer(1)
	client.wantStatus(1, 0)
	client.call(3, true)
	next(p, anyHeaders)
	p.answer(3)
	client.wantStatus(3, 0)
}

// A reset within an answer is reported as a failure of the call, never as its end or as a call that was not seen.
func TestResetsOfAnswers(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	var p *peer
	id := uint32(1)
	for code, want := range map[http2.ErrCode]http2.ErrCode{
		http2.ErrCodeNo:              http2.ErrCodeInternal,
		http2.ErrCodeRefusedStream:   http2.ErrCodeInternal,
		http2.ErrCodeHTTP11Required:  http2.ErrCodeInternal,
		http2.ErrCodeFlowControl:     http2.ErrCodeInternal,
		99:                           http2.ErrCodeInternal,
		http2.ErrCodeCancel:          http2.ErrCodeCancel,
		http2.ErrCodeEnhanceYourCalm: http2.ErrCodeEnhanceYourCalm,
	} {
		for _, begun := range []bool{true, false} {
			if !begun && code == http2.ErrCodeRefusedStream {
				continue // the call is sent again
			}
			client.call(id, true)
			if p == nil {
				p = b.accept()
			}
			f := next(p, anyHeaders)
			if begun {
				p.headers(f.StreamID, false, ":status", "200", "content-type", "application/grpc")
				p.message(f.StreamID, 3, false)
			}
			p.must(p.WriteRSTStream(f.StreamID, code))
			if got := next[*http2.RSTStreamFrame](client, nil); got.StreamID != id || got.ErrCode != want {
				t.Errorf("%v, begun %t: the client got %v on stream %d, want %v",
					code, begun, got.ErrCode, got.StreamID, want)
			}
			id += 2
		}
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
	// The answer arrives before the end of the request.
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
	// The client disconnects.
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

// afterEnd ends stream 1 if i is 0, and then calls do.
func (p *peer) afterEnd(i int, do func() error) error {
	if i == 0 {
		p.headers(1, true, ":method", "POST", ":scheme", "http", ":path", "/no.Such/Method", ":authority", "a",
			"content-type", "application/grpc", "te", "trailers")
	}
	return do()
}

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
		"SETTINGS ACK":  func(p *peer, _ int) error { return p.WriteSettingsAck() },
		"GOAWAY":        func(p *peer, _ int) error { return p.WriteGoAway(0, http2.ErrCodeNo, nil) },
		"WINDOW_UPDATE": func(p *peer, _ int) error { return p.WriteWindowUpdate(0, 1) },
		"WINDOW_UPDATE of a closed stream": func(p *peer, i int) error {
			return p.afterEnd(i, func() error { return p.WriteWindowUpdate(1, 1) })
		},
		"RST_STREAM of a closed stream": func(p *peer, i int) error {
			return p.afterEnd(i, func() error { return p.WriteRSTStream(1, http2.ErrCodeCancel) })
		},
		"DATA on a closed stream": func(p *peer, i int) error {
			return p.afterEnd(i, func() error { return p.WriteData(1, false, []byte{1}) })
		},
		"padded empty DATA": func(p *peer, i int) error {
			if i == 0 {
				p.call(1, false)
			}
			return p.WriteDataPadded(1, false, nil, []byte{})
		},
		"CONTINUATION": func(p *peer, i int) error {
			if i == 0 {
				return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			}
			return p.WriteContinuation(1, false, nil)
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

// A client that sends requests and never reads holds a bounded amount of memory, and is disconnected.
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
		if n := r.Stats().Queued; n > maxStreams*frames.FirstWindow+budgetGrown+budgetUp+clientWindow {
			t.Fatalf("%d bytes are queued", n)
		}
	}
}

func TestHandshake(t *testing.T) {
	hear := func(t *testing.T, nc net.Conn, say, answer string) {
		t.Helper()
		_ = nc.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(nc, say)
		all, err := io.ReadAll(nc)
		if err != nil {
			t.Errorf("%q: %v", say, err)
		}
		if string(all) != answer {
			t.Errorf("%q: %q", say, all)
		}
		_ = nc.Close()
	}
	_, addr := startRelay(t, Options{})
	nc, err := net.Dial("tcp", addr) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	hear(t, nc, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", oldHTTP)
	for _, half := range []string{"", http2.ClientPreface[:10]} {
		synctest.Test(t, func(t *testing.T) {
			const limit = 50 * time.Millisecond
			r := startIsolated(t, Options{Registry: services.New(services.Options{}), HandshakeTimeout: limit})
			here, there := net.Pipe()
			begun := time.Now()
			r.accept(here)
			hear(t, there, half, "")
			if took := time.Since(begun); took < limit || took > 2*limit {
				t.Errorf("%q: the connection ends after %v, want about %v", half, took, limit)
			}
		})
	}
}

// A head that never ends, in one frame or in several, ends its connection. Slow data does not.
func TestSlowHeads(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	const limit = 200 * time.Millisecond
	_, addr := startRelay(t, Options{HeadTimeout: limit}, ep)
	part := frames.AppendHeader(nil, 100, http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1)
	for name, c := range map[string]struct {
		begin func(p *peer)
		ends  bool
	}{
		"HEADERS": {func(p *peer) { _, _ = p.Write(part) }, true},
		"a byte":  {func(p *peer) { _, _ = p.Write(part[:1]) }, true},
		"block": {func(p *peer) {
			p.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
		}, true},
		"DATA": {func(p *peer) {
			p.call(1, false)
			_, _ = p.Write(frames.AppendHeader(nil, 100, http2.FrameData, 0, 1))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := rawClient(t, addr)
			c.begin(p)
			_ = p.SetReadDeadline(time.Now().Add(patience))
			if !c.ends {
				_ = p.SetReadDeadline(time.Now().Add(3 * limit))
			}
			_, err := io.Copy(io.Discard, p.Conn)
			if late := errors.Is(err, os.ErrDeadlineExceeded); late == c.ends {
				t.Errorf("the connection ends with %v", err)
			}
		})
	}
}

// wantRefused makes a connection that the relay closes at once. It writes nothing, since the close could come
// first.
func wantRefused(t *testing.T, address string) {
	t.Helper()
	nc, err := net.Dial("tcp", address) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	if all, _ := io.ReadAll(newPeer(t, nc).Conn); len(all) > 0 {
		t.Errorf("a connection too many is answered: %q", all)
	}
}

// A connection in use is not closed for another one of its peer, but it is for one of a peer that has fewer.
func TestMostConnections(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxConns: 3}, b.endpoint)
	busy := make([]*peer, 3)
	var backend *peer
	for i := range busy {
		busy[i] = rawClient(t, addr)
		busy[i].call(1, false)
		if i == 0 {
			backend = b.accept()
		}
		next(backend, anyHeaders)
	}
	wantRefused(t, addr)
	modest := rawClientFrom(t, "127.0.0.2", addr)
	modest.call(1, true)
	f := next(backend, anyHeaders)
	backend.answer(f.StreamID)
	modest.wantStatus(1, 0)
	busy[2].wantGoAway(http2.ErrCodeNo)
	backend.answer(1)
	busy[0].wantStatus(1, 0)
}

// The connection that has been idle for longest is closed to make room for a new one.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{MaxConns: 2}, ep)
	call := func(p *peer, id uint32) {
		p.call(id, false)
		p.request(id, 1, true)
		p.wantStatus(id, 0)
	}
	first, second := rawClient(t, addr), rawClient(t, addr)
	call(second, 1)
	call(first, 1)
	call(rawClient(t, addr), 1)
	second.wantGoAway(http2.ErrCodeNo)
	call(first, 3)
}

func TestDescriptorsAreReserved(t *testing.T) {
	for _, c := range []struct {
		n, limit int
		over     int
		full     bool
	}{
		{100, 256, 0, false},
		{256 - 64, 256, 0, false},
		{256 - 63, 256, 1, false},
		{256 - 32, 256, 32, false},
		{256 - 31, 256, 33, true},
		{101, 64, 69, true},
		{32, 64, 0, false},
		{20_000 - 1024, 20_000, 0, false},
		{20_000 - 1023, 20_000, 1, false},
		{3, 3, 32, true},
	} {
		if over, full := excess(c.n, c.limit); over != c.over || full != c.full {
			t.Errorf("%d descriptors of %d: %d over, full %v, want %d, %v", c.n, c.limit, over, full, c.over, c.full)
		}
	}
}

func TestKeepalive(t *testing.T) { synctest.Test(t, testKeepalive) }

func testKeepalive(t *testing.T) {
	registry := services.New(services.Options{})
	registry.Add(&services.Endpoint{Address: "pipe"}, serviceName)
	r := startIsolated(t, Options{
		Registry:   registry,
		ClientPing: 40 * time.Millisecond, BackendPing: 40 * time.Millisecond, PingTimeout: 40 * time.Millisecond,
		BackendIdle: time.Minute,
	})
	client := r.client()
	client.call(1, true)
	p := r.backend()
	next(p, anyHeaders)
	pinged := make(chan error, 1)
	go func() { // a pipe keeps nothing for a later read
		_, err := tryNext(p, func(f *http2.PingFrame) bool { return !f.IsAck() })
		pinged <- err
	}()
	// The client answers PINGs and stays. The backend is silent, and its call ends.
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
	if err := <-pinged; err != nil {
		t.Errorf("the backend got no PING: %v", err)
	}
	for {
		if _, err := client.ReadFrame(); err != nil {
			if isTimeout(err) {
				t.Error("the client has stopped answering too, and the connection stays open")
			}
			break
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
	r.pools.of(b.endpoint, nil).retire()
	p.answer(1)
	client.wantStatus(3, 0)
	next[*http2.GoAwayFrame](p, nil)
}

func TestUnreachable(t *testing.T) {
	gone, registry := refusing(t), services.New(services.Options{})
	_, addr := startRelay(t, Options{Registry: registry, MaxWait: 50 * time.Millisecond},
		&services.Endpoint{Address: gone})
	client := rawClient(t, addr)
	client.call(1, true)
	if code, message := client.status(1); code != 14 || !strings.Contains(message, "connection refused") {
		t.Errorf("status = %d %q", code, message)
	}
	client.call(3, true, "grpc-timeout", "20m")
	client.wantStatus(3, 4)
	if got := registry.Service(serviceName).Figures(gone); got != (services.Figures{}) {
		t.Errorf("calls that only waited are counted: %+v", got)
	}
}
