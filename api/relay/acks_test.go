package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
)

// pipedClient returns a client behind a pipe. The pipe buffers nothing and keeps writes apart.
func pipedClient(t *testing.T, r *Relay) *peer {
	t.Helper()
	here, there := net.Pipe()
	r.accept(here)
	p := newPeer(t, there)
	_, err := io.WriteString(there, http2.ClientPreface)
	p.must(err)
	p.must(p.WriteSettings())
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	return p
}

func TestPingIsAnsweredThoughNothingElseIsSent(t *testing.T) {
	r, _ := startRelay(t, Options{})
	client := pipedClient(t, r)
	for i := range byte(2) {
		client.must(client.WritePing(false, [8]byte{i}))
		if f := next(client, func(f *http2.PingFrame) bool { return f.IsAck() }); f.Data[0] != i {
			t.Errorf("answer to PING %d: %v", i, f)
		}
	}
}

// The answer to a PING is written with the next output, and only once.
func TestAnswerToAPingHasCompany(t *testing.T) {
	r, _ := startRelay(t, Options{ackDelay: time.Hour})
	client := pipedClient(t, r)
	c := r.clients.all()[0]
	awaitThat(t, "a write does not end", func() bool { // it would include later output
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.out.Blocked()
	})
	client.must(client.WritePing(false, [8]byte{1}))
	client.must(client.WritePriority(1, http2.PriorityParam{StreamDep: 3})) // read once the PING has been handled
	c.mu.Lock()
	waits := c.out.Pending.Len()
	c.mu.Unlock()
	if waits != frames.HeaderSize+8 {
		t.Fatalf("%d bytes wait, want the answer", waits)
	}
	var w deferred.Work
	c.reset(&w, 1, http2.ErrCodeNo)
	w.Do()
	in := make([]byte, 1<<10)
	n, err := client.Read(in)
	client.must(err)
	if n != 2*frames.HeaderSize+8+4 {
		t.Errorf("one write of %d bytes, want the answer and what came next in one", n)
	}
	r.acks.Due()
	client.must(client.WriteSettings())
	if f, err := client.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
		t.Errorf("after that came %v, %v, want only the answer to SETTINGS", f, err)
	}
}

func TestCloseWhileAnAnswerIsDue(t *testing.T) {
	for range 20 {
		r, _ := startRelay(t, Options{})
		client := pipedClient(t, r)
		client.must(client.WritePing(false, [8]byte{1}))
		r.Close()
		r.acks.Due() // as the timer does, whenever it fires
	}
}
