package relay

import (
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// pipes is a listener whose connections buffer nothing: data stays with the writer until the client reads it.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// telling reports the beginning of each write.
type telling struct {
	net.Conn
	writes chan struct{}
}

func (c *telling) Write(p []byte) (int, error) {
	c.writes <- struct{}{}
	return c.Conn.Write(p)
}

// A client that does not read the TLS alert at the end delays nothing else.
func TestTLSClientThatDoesNotReadTheEnd(t *testing.T) { synctest.Test(t, testTLSClientThatDoesNotRead) }

func testTLSClientThatDoesNotRead(t *testing.T) {
	cert, roots := certificate(t)
	r := startIsolated(t, Options{
		Registry: services.New(services.Options{}), TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
	})
	here, there := net.Pipe()
	server := &telling{here, make(chan struct{}, 64)}
	l := &pipes{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- server
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = r.Serve(l)
	}()
	p := newPeer(t, tls.Client(there, &tls.Config{RootCAs: roots, ServerName: "relay", NextProtos: []string{"h2"}}))
	_, err := p.Write([]byte(http2.ClientPreface))
	p.must(err)
	p.must(p.WriteSettings())
	next(p, func(f *http2.SettingsFrame) bool { return f.IsAck() })
	for len(server.writes) > 0 {
		<-server.writes
	}
	p.must(p.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8))) // PING on a stream, a protocol error
	<-server.writes
	next[*http2.GoAwayFrame](p, nil)
	<-server.writes // the alert
	begun := time.Now()
	r.Stats() // locks all connections
	r.Close()
	<-served
	if took := time.Since(begun); took > 4*time.Second { // TLS itself gives up after 5 s
		t.Errorf("the relay waits for %v for a client that does not read", took)
	}
}
