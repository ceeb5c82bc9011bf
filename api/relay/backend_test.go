package relay

import (
	"bytes"
	"context"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/protocol"
)

// startPiped starts a relay to one backend behind a pipe. The pipe buffers nothing: data that the backend does not
// read stays in the relay. A call to the backend is in flight on stream 1. Later connections are to an echo server.
func startPiped(t *testing.T) (r *Relay, addr string, client, b *peer) {
	t.Helper()
	here, there := net.Pipe()
	first := make(chan net.Conn, 1)
	first <- here
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		select {
		case nc := <-first:
			return nc, nil
		default:
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}
	}
	// The backend may be silent for as long as the test takes.
	r, addr = startRelay(t, Options{Dial: dial, BackendSilence: patience}, steady(t))
	client = rawClient(t, addr)
	client.call(1, false)
	b = newPeer(t, there)
	_, err := io.ReadFull(there, make([]byte, len(http2.ClientPreface)))
	b.must(err)
	b.must(b.WriteSettings())
	next(b, anyHeaders)
	next(b, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	return r, addr, client, b
}

// pendingOutput returns the number of bytes that wait to be written to the backend, and whether there is a connection
// to it.
func pendingOutput(r *Relay) (n int, there bool) {
	for _, c := range r.allBackends() {
		c.mu.Lock()
		if !c.out.Dead() {
			there = true
			n += c.out.Pending.Len()
		}
		c.mu.Unlock()
	}
	return n, there
}

// A connection to a backend that requests answers and reads none is closed, and its calls end.
func TestBackendThatAsksAndDoesNotRead(t *testing.T) {
	for name, frame := range map[string][]byte{
		"PING":     frames.AppendPing(nil, false, [8]byte{1}),
		"SETTINGS": frames.AppendSettings(nil),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, client, b := startPiped(t)
			many := []byte(strings.Repeat(string(frame), 4096))
			for i := 0; ; i++ {
				if _, err := b.Write(many); err != nil {
					break
				}
				if i*len(many) > 4*backendOutput {
					t.Fatal("nobody minds that it does not read")
				}
			}
			if code, message := client.status(1); code != protocol.CodeUnavailable ||
				!strings.Contains(message, "does not read") {
				t.Errorf("status = %d %q", code, message)
			}
		})
	}
}

// Clients that open and reset streams do not end the connection that all share: new streams wait until the backend
// reads.
func TestClientsAndABackendThatDoesNotRead(t *testing.T) {
	r, addr, good, b := startPiped(t)
	for n := range 6 {
		bad := rawClientFrom(t, "127.0.0."+strconv.Itoa(2+n), addr)
		for i := range uint32(1000) {
			bad.call(2*i+1, false)
			bad.must(bad.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		bad.must(bad.WritePing(false, [8]byte{1}))
		next(bad, func(f *http2.PingFrame) bool { return f.IsAck() })
	}
	if n, there := pendingOutput(r); !there || n > clientOutput {
		t.Errorf("%d bytes wait for the backend, which is connected: %v", n, there)
	}
	go func() { _, _ = tryNext[*http2.GoAwayFrame](b, nil) }()
	b.answer(1)
	good.wantStatus(1, 0)
}

// A call that a backend cannot have seen when its connection ends is sent again, possibly to another backend. A
// call that the backend may have seen in part is not.
func TestUnseenWhenABackendIsLost(t *testing.T) {
	for name, end := range map[string]func(b *peer){
		"lost":            func(b *peer) { _ = b.Close() },
		"broke the rules": func(b *peer) { b.message(99, 1, false) },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, client, b := startPiped(t)
			write := func(id uint32) {
				client.call(id, false)
				client.request(id, 10, true)
				client.must(client.WritePing(false, [8]byte{1}))
				next(client, func(f *http2.PingFrame) bool { return f.IsAck() })
			}
			write(3)
			seen := make([]byte, 1)
			_, err := io.ReadFull(b.Conn, seen) // the rest is stuck in a write, and later output waits behind it
			b.must(err)
			write(5)
			end(b)
			client.wantStatus(1, protocol.CodeUnavailable)
			client.wantStatus(3, protocol.CodeUnavailable)
			client.wantStatus(5, protocol.CodeOK)
			rest, _ := io.ReadAll(b.Conn)
			framer := http2.NewFramer(nil, io.MultiReader(bytes.NewReader(seen), bytes.NewReader(rest)))
			for {
				f, err := framer.ReadFrame()
				if err != nil {
					break
				}
				if f.Header().StreamID == 5 {
					t.Errorf("sent once more, and then to the first all the same: %v", f)
				}
			}
		})
	}
}

// A backend that widens the window of a stream by nothing after the stream has ended gets a reset for it, and goes on
// serving calls.
func TestBackendThatWidensAnEndedStreamByNothing(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	p.answer(next(p, anyHeaders).StreamID)
	client.wantStatus(1, protocol.CodeOK)
	p.must(p.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)))
	if f := next[*http2.RSTStreamFrame](p, nil); f.StreamID != 1 || f.ErrCode != http2.ErrCodeProtocol {
		t.Errorf("reset of stream %d with %v", f.StreamID, f.ErrCode)
	}
	client.call(3, true)
	p.answer(next(p, anyHeaders).StreamID)
	client.wantStatus(3, protocol.CodeOK)
}
