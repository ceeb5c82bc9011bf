package relay

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/core-tools/hsu-master/api/relay/frames"
)

// script holds frames that a fuzz target starts with.
func script(write func(f *http2.Framer, headers func(pairs ...string) []byte)) []byte {
	var out, block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	write(f, func(pairs ...string) []byte {
		block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
		}
		return bytes.Clone(block.Bytes())
	})
	return out.Bytes()
}

// FuzzClient sends the relay arbitrary input from a client. The relay must not panic, must end the connection when
// the client does, must leave nothing behind, and must serve another client.
func FuzzClient(f *testing.F) {
	request := []string{
		":method", "POST", ":scheme", "http", ":path", "/" + serviceName + "/UnaryCall", ":authority", "a",
		"content-type", "application/grpc",
	}
	f.Add(script(func(f *http2.Framer, h func(...string) []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h(request...), EndHeaders: true})
		_ = f.WriteData(1, true, []byte{0, 0, 0, 0, 0})
		_ = f.WritePing(false, [8]byte{1})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: h(request...)[:3]})
		_ = f.WriteContinuation(3, true, h(request...)[3:])
		_ = f.WriteDataPadded(3, false, []byte{0, 0, 0, 0, 1}, make([]byte, 9))
		_ = f.WriteRSTStream(3, http2.ErrCodeCancel)
	}))
	f.Add(script(func(f *http2.Framer, h func(...string) []byte) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0},
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: h(request...), EndHeaders: true,
			Priority: http2.PriorityParam{StreamDep: 3},
		})
		_ = f.WriteData(1, false, make([]byte, 100))
		_ = f.WriteWindowUpdate(1, 7)
		_ = f.WriteWindowUpdate(0, 1<<30)
		_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: h("x", "y"), EndHeaders: true, EndStream: true,
		})
	}))
	ep, _ := startBackend(f, echo{})
	r, addr := startRelay(f, Options{}, ep)
	f.Fuzz(func(t *testing.T, b []byte) {
		nc, err := net.Dial("tcp", addr) //nolint:noctx // a test
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(nc, http2.ClientPreface)
		_, _ = nc.Write(append(frames.AppendSettings(nil), b...))
		_ = nc.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, nc); err != nil && isTimeout(err) {
			t.Fatal("the connection is stuck")
		}
		awaitNothingLeft(t, r)
		_ = nc.Close()
		good := rawClient(t, addr)
		good.call(1, false)
		good.message(1, 0, true)
		good.wantStatus(1, 0)
		_ = good.Close()
	})
}

// FuzzBackend sends the relay arbitrary input from a backend. The call must end with a status or a reset.
func FuzzBackend(f *testing.F) {
	f.Add(script(func(f *http2.Framer, h func(...string) []byte) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: h(":status", "200", "content-type", "application/grpc"), EndHeaders: true,
		})
		_ = f.WriteData(1, false, []byte{0, 0, 0, 0, 1, 2})
		_ = f.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 1, BlockFragment: h("grpc-status", "0"), EndHeaders: true, EndStream: true,
		})
	}))
	f.Add(script(func(f *http2.Framer, h func(...string) []byte) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: h(":status", "100"), EndHeaders: true})
		_ = f.WriteWindowUpdate(1, 5)
		_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		_ = f.WriteRSTStream(1, http2.ErrCodeRefusedStream)
	}))
	b := newRawBackend(f)
	_, addr := startRelay(f, Options{MaxWait: 100 * time.Millisecond}, b.endpoint)
	answers := make(chan []byte, 1)
	go func() {
		var answer []byte
		for {
			nc, err := b.Accept()
			if err != nil {
				return
			}
			select {
			case answer = <-answers:
			default: // a second attempt
			}
			go func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(patience))
				// Only after the headers have been read; otherwise the answer could precede the call.
				_, _ = nc.Read(make([]byte, 1<<10))
				_, _ = nc.Write(append(frames.AppendSettings(nil), answer...))
				_ = nc.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, nc)
			}()
		}
	}()
	f.Fuzz(func(t *testing.T, answer []byte) {
		select {
		case <-answers:
		default:
		}
		answers <- answer
		client := rawClient(t, addr)
		client.call(1, false)
		client.message(1, 100, true)
		for {
			frame, err := client.ReadFrame()
			if err != nil {
				t.Fatalf("the call does not end: %v", err)
			}
			if h, ok := frame.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
				break
			}
			if d, ok := frame.(*http2.DataFrame); ok && d.StreamEnded() {
				break
			}
			if _, ok := frame.(*http2.RSTStreamFrame); ok {
				break
			}
		}
		_ = client.Close()
	})
}

func isTimeout(err error) bool {
	nerr, ok := err.(net.Error) //nolint:errorlint // io.Copy does not wrap it
	return ok && nerr.Timeout()
}
