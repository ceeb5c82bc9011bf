package relay

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// startPiped starts a relay to one backend behind a pipe, which holds nothing: what the backend does not read stays in
// the relay. A call is under way to it on stream 1.
func startPiped(t *testing.T) (r *Relay, addr string, client, b *peer) {
	t.Helper()
	here, there := net.Pipe()
	dial := func(context.Context, string) (net.Conn, error) { return here, nil }
	r, addr = startRelay(t, Options{Dial: dial}, &services.Endpoint{Address: "pipe"})
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

// output is what waits to be written to the backend, and whether there is a connection to it.
func output(r *Relay) (n int, there bool) {
	for _, c := range r.all() {
		c.mu.Lock()
		if c.pool != nil && !c.dead {
			there = true
			if c.out != nil {
				n += len(c.out.b)
			}
		}
		c.mu.Unlock()
	}
	return n, there
}

// A backend that asks for answers and reads none is given up, and so are its calls.
func TestBackendThatAsksAndDoesNotRead(t *testing.T) {
	for name, frame := range map[string][]byte{
		"PING":     appendPing(nil, false, [8]byte{1}),
		"SETTINGS": appendSettings(nil),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, client, b := startPiped(t)
			many := []byte(strings.Repeat(string(frame), 4096))
			for i := 0; ; i++ {
				if _, err := b.Write(many); err != nil {
					break
				}
				if i*len(many) > 4*killBackendOutput {
					t.Fatal("nobody minds that it does not read")
				}
			}
			if code, message := client.status(1); code != codeUnavailable || !strings.Contains(message, "does not read") {
				t.Errorf("status = %d %q", code, message)
			}
		})
	}
}

// Clients that open and reset do not end the connection that all share: what they open waits until the backend reads.
func TestClientsAndABackendThatDoesNotRead(t *testing.T) {
	r, addr, good, b := startPiped(t)
	for range 4 {
		bad := rawClient(t, addr)
		for i := range uint32(1500) {
			bad.call(2*i+1, false)
			bad.must(bad.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		bad.must(bad.WritePing(false, [8]byte{1}))
		next(bad, func(f *http2.PingFrame) bool { return f.IsAck() })
	}
	if n, there := output(r); !there || n > killOutput {
		t.Errorf("%d bytes wait for the backend, which is connected: %v", n, there)
	}
	go func() { _, _ = tryNext[*http2.GoAwayFrame](b, nil) }()
	b.answer(1)
	good.wantStatus(1, 0)
}
