package relay

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// isolated is a relay that has only pipes, for a test of time limits in a synctest bubble. Time passes there only
// while nothing else can happen, so a pause of the machine uses up no limit.
type isolated struct {
	*Relay
	t      *testing.T
	dialed chan net.Conn // the far ends of the connections to backends
}

func startIsolated(t *testing.T, o Options) *isolated {
	t.Helper()
	s := &isolated{t: t, dialed: make(chan net.Conn, 16)}
	o.Dial = func(context.Context, string) (net.Conn, error) {
		here, there := net.Pipe()
		s.dialed <- there
		return here, nil
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.closeEmpty(t) })
	s.Relay = r
	return s
}

// client connects a client.
func (s *isolated) client() *peer {
	s.t.Helper()
	return pipedClient(s.t, s.Relay)
}

// backend returns the backend's end of the next connection, and sends the first SETTINGS.
func (s *isolated) backend() *peer {
	s.t.Helper()
	select {
	case nc := <-s.dialed:
		p := newPeer(s.t, nc)
		_, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface)))
		p.must(err)
		p.must(p.WriteSettings())
		return p
	case <-time.After(patience):
		s.t.Fatal("no connection to a backend")
		return nil
	}
}
