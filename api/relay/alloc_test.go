package relay

import (
	"bytes"
	"net"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

// unaryPeer drives the relay with frames that were made before, so that only the relay is measured.
type unaryPeer struct {
	client, backend net.Conn
	request         []byte
	answer          []byte
	in              []byte
	id, backendID   uint32
}

// newUnaryPeer connects both sides and makes a first call, after which all tables are filled.
func newUnaryPeer(t testing.TB, size int) *unaryPeer {
	t.Helper()
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, false)
	client.message(1, size, true)
	p := b.accept()
	next(p, anyHeaders)
	p.answer(1)
	client.wantStatus(1, 0)
	client.must(client.WriteWindowUpdate(0, 1<<30))
	p.must(p.WriteWindowUpdate(0, 1<<30))
	_ = p.SetDeadline(time.Time{})
	_ = client.SetDeadline(time.Time{})

	u := &unaryPeer{client: client.Conn, backend: p.Conn, in: make([]byte, 64<<10), id: 3, backendID: 3}
	literal := func(pairs ...string) []byte {
		var b bytes.Buffer
		e := hpack.NewEncoder(&b)
		for i := 0; i < len(pairs); i += 2 {
			_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true})
		}
		return b.Bytes()
	}
	frame := func(dst []byte, kind http2.FrameType, flags http2.Flags, payload []byte) []byte {
		return append(frames.AppendHeader(dst, len(payload), kind, flags, 0), payload...)
	}
	message := append([]byte{0, byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size)}, make([]byte, size)...)
	u.request = frame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders, literal(
		":method", "POST", ":scheme", "http", ":path", "/"+serviceName+"/UnaryCall", ":authority", "test",
		"content-type", "application/grpc", "te", "trailers", "grpc-timeout", "1234567u"))
	u.request = frame(u.request, http2.FrameData, http2.FlagDataEndStream, message)
	u.answer = frame(nil, http2.FrameHeaders, http2.FlagHeadersEndHeaders,
		literal(":status", "200", "content-type", "application/grpc"))
	u.answer = frame(u.answer, http2.FrameData, 0, message)
	u.answer = frame(u.answer, http2.FrameHeaders, http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream,
		literal("grpc-status", "0", "grpc-message", ""))
	return u
}

// call makes a call and returns when its answer has arrived.
func (u *unaryPeer) call(t testing.TB) {
	u.write(t, u.client, u.request, u.id)
	u.readEnd(t, u.backend, u.backendID)
	u.write(t, u.backend, u.answer, u.backendID)
	u.readEnd(t, u.client, u.id)
	u.id += 2
	u.backendID += 2
}

// write writes the frames in p, all of them on that stream.
func (u *unaryPeer) write(t testing.TB, nc net.Conn, p []byte, id uint32) {
	for at := 0; at < len(p); {
		n := int(p[at])<<16 | int(p[at+1])<<8 | int(p[at+2])
		p[at+5], p[at+6], p[at+7], p[at+8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		at += frames.HeaderSize + n
	}
	if _, err := nc.Write(p); err != nil {
		t.Fatal(err)
	}
}

// readEnd reads up to the frame that ends that stream.
func (u *unaryPeer) readEnd(t testing.TB, nc net.Conn, id uint32) {
	have := 0
	for {
		n, err := nc.Read(u.in[have:])
		if err != nil {
			t.Fatal(err)
		}
		have += n
		b := u.in[:have]
		for {
			f, rest, ok, err := frames.Next(b)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if f.ID == id && f.Flags&http2.FlagDataEndStream != 0 && f.Kind != http2.FrameRSTStream {
				return
			}
			b = rest
		}
		have = copy(u.in, b)
	}
}

func TestNoAllocationPerCall(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	for _, size := range []int{64, 4096} {
		u := newUnaryPeer(t, size)
		for range 500 {
			u.call(t)
		}
		if n := testing.AllocsPerRun(2000, func() { u.call(t) }); n != 0 {
			t.Errorf("%v allocations per call of %d bytes", n, size)
		}
	}
}

func BenchmarkRelayFrames(b *testing.B) {
	for _, size := range []int{64, 4096} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			u := newUnaryPeer(b, size)
			b.ReportAllocs()
			for b.Loop() {
				u.call(b)
			}
		})
	}
}

// Ten thousand idle streams, before and after the response has begun.
func TestIdleStreamsAreCheap(t *testing.T) {
	if raced {
		t.Skip("the race detector allocates")
	}
	const clients, streams = 10, 1000
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{MaxBackendConns: 1}, b.endpoint)
	first := rawClient(t, addr)
	first.call(1, false)
	p := b.accept()
	next(p, anyHeaders)
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	before := heap()
	peers := make([]*peer, clients)
	for i := range peers {
		peers[i] = rawClient(t, addr)
	}
	go func() {
		for _, c := range peers {
			for i := range streams {
				c.call(uint32(2*i+1), false)
			}
		}
	}()
	for range clients * streams {
		if _, err := tryNext[*http2.MetaHeadersFrame](p, nil); err != nil {
			t.Fatal(err)
		}
	}
	unanswered := (heap() - before) / (clients * streams)
	t.Logf("%d bytes a stream before the answer", unanswered)
	if unanswered > 2048 {
		t.Errorf("%d bytes a stream, want 2048 at most", unanswered)
	}
	go func() {
		for i := range uint32(clients*streams + 1) {
			p.headers(2*i+1, false, ":status", "200", "content-type", "application/grpc")
		}
	}()
	for _, c := range peers {
		for range streams {
			next(c, anyHeaders)
		}
	}
	answered := (heap() - before) / (clients * streams)
	t.Logf("%d bytes a stream after it", answered)
	if answered > 1024 {
		t.Errorf("%d bytes a stream whose answer has begun, want 1024 at most", answered)
	}
}

// heap returns the heap memory in use, in bytes.
func heap() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
