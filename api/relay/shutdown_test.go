package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestShutdownLosesNoCall(t *testing.T) {
	b := newRawBackend(t)
	r, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(timeout(t)) }()
	if f := next[*http2.GoAwayFrame](client, nil); f.LastStreamID != frames.MaxID || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first GOAWAY: %v", f)
	}
	// Sent before the client has read the GOAWAY.
	client.call(3, true)
	next(p, anyHeaders)
	ping := next(client, func(f *http2.PingFrame) bool { return !f.IsAck() })
	client.must(client.WritePing(true, ping.Data))
	if f := next[*http2.GoAwayFrame](client, nil); f.LastStreamID != 3 {
		t.Errorf("second GOAWAY: %v", f)
	}
	// Written after the answer to the PING, but begun before the GOAWAY was read: the call is refused, and nothing
	// else.
	client.call(5, false)
	client.message(5, 3, false)
	client.must(client.WriteWindowUpdate(5, 1))
	client.headers(5, true, "x", "y")
	client.must(client.WriteRSTStream(5, http2.ErrCodeCancel))
	if f := next[*http2.RSTStreamFrame](client, nil); f.StreamID != 5 || f.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("a stream after the last: %v", f)
	}
	p.answer(1)
	client.wantStatus(1, 0)
	p.answer(3)
	client.wantStatus(3, 0)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := client.ReadFrame(); err == nil {
		t.Error("the connection stays open")
	}
}

// lateListener accepts a connection at the moment at which it is closed.
type lateListener struct {
	net.Listener
	accepting, closing chan struct{}
	close              sync.Once
	ended              bool
}

func (l *lateListener) Accept() (net.Conn, error) {
	if l.ended {
		return nil, errors.Join(net.ErrClosed, l.Listener.Close())
	}
	l.ended = true
	close(l.accepting)
	<-l.closing
	return l.Listener.Accept()
}

func (l *lateListener) Close() error {
	l.close.Do(func() { close(l.closing) })
	return nil
}

// A connection that is accepted while a shutdown begins is told to leave, and not broken off.
func TestShutdownRefusesNoAcceptedConnection(t *testing.T) {
	b := newRawBackend(t)
	r, _ := startRelay(t, Options{}, b.endpoint)
	l := &lateListener{Listener: listen(t), accepting: make(chan struct{}), closing: make(chan struct{})}
	served, done := make(chan error, 1), make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	<-l.accepting
	client := rawClient(t, l.Addr().String())
	go func() { done <- r.Shutdown(timeout(t)) }()
	if f := next[*http2.GoAwayFrame](client, nil); f.LastStreamID != frames.MaxID || f.ErrCode != http2.ErrCodeNo {
		t.Errorf("first GOAWAY: %v", f)
	}
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	ping := next(client, func(f *http2.PingFrame) bool { return !f.IsAck() })
	client.must(client.WritePing(true, ping.Data))
	p.answer(1)
	client.wantStatus(1, 0)
	if err := errors.Join(<-done, client.Close()); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, ErrClosed) {
		t.Errorf("Serve = %v, want ErrClosed", err)
	}
}

func TestGoAwayOfAClient(t *testing.T) {
	b := newRawBackend(t)
	_, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	p := b.accept()
	next(p, anyHeaders)
	client.must(client.WriteGoAway(0, http2.ErrCodeNo, nil))
	client.call(3, true) // still allowed after the client's own GOAWAY
	next(p, anyHeaders)
	p.answer(1)
	client.wantStatus(1, 0)
	p.answer(3)
	client.wantStatus(3, 0)
}

func TestShutdownIsBounded(t *testing.T) {
	b := newRawBackend(t)
	r, addr := startRelay(t, Options{}, b.endpoint)
	client := rawClient(t, addr)
	client.call(1, true)
	next(b.accept(), anyHeaders)
	ctx, cancel := context.WithTimeout(timeout(t), 20*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v", err)
	}
	if err := r.Serve(listen(t)); !errors.Is(err, ErrClosed) {
		t.Errorf("Serve after that = %v", err)
	}
}

func TestLocalServer(t *testing.T) {
	l := bufconn.Listen(64 << 10)
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, echo{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	_, addr := startRelay(t, Options{
		Local:     map[string][]string{serviceName: {"UnaryCall", "EmptyCall"}},
		LocalDial: func() (net.Conn, error) { return l.Dial() },
	})
	client := dial(t, addr)
	for _, n := range []int{0, 100, 1 << 20} {
		if out, err := client.UnaryCall(timeout(t), simple(n)); err != nil || len(out.GetPayload().GetBody()) != n {
			t.Errorf("%d bytes: %d, %v", n, len(out.GetPayload().GetBody()), err)
		}
	}
}

func TestCountedAndLocal(t *testing.T) {
	l := bufconn.Listen(64 << 10)
	s := grpc.NewServer()
	testpb.RegisterTestServiceServer(s, echo{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	counter := newCounter()
	o := counting(counter)
	o.Local, o.LocalDial = map[string][]string{serviceName: {"UnaryCall"}}, func() (net.Conn, error) { return l.Dial() }
	o.Registry = services.New(services.Options{})
	_, addr := startRelay(t, o)
	client := rawClient(t, addr)
	client.call(1, false)
	client.message(1, 0, true)
	client.wantStatus(1, 0) // standalone: no endpoint offers the service
	b := newRawBackend(t)
	o.Registry.Add(b.endpoint, serviceName)
	client.call(3, false, protocol.RequestID, "x")
	client.message(3, 0, true)
	client.wantStatus(3, 0) // the local server implements exactly-once calls
	client.call(5, true)
	p := b.accept()
	next(p, anyHeaders)
	p.answer(1)
	(<-counter.asked).Counted(nil)
	client.wantStatus(5, 0)
}

// TestMethodThatALocalServiceDoesNotHave: a worker's service of the same name may have more methods.
func TestMethodThatALocalServiceDoesNotHave(t *testing.T) {
	inside, _ := startBackend(t, testpb.UnimplementedTestServiceServer{})
	o := Options{
		Registry: services.New(services.Options{}), Local: map[string][]string{serviceName: {"UnaryCall"}},
		LocalDial: func() (net.Conn, error) { return net.Dial("tcp", inside.Address) }, //nolint:noctx // a test
	}
	_, addr := startRelay(t, o)
	client := dial(t, addr)
	stream := func() error {
		s, err := client.FullDuplexCall(timeout(t))
		if err == nil {
			err = s.CloseSend()
		}
		if err == nil {
			_, err = s.Recv()
		}
		return err
	}
	if err := stream(); status.Code(err) != codes.Unimplemented {
		t.Errorf("nobody has it: %v, want UNIMPLEMENTED of the local server", err)
	}
	worker, _ := startBackend(t, echo{})
	o.Registry.Add(worker, serviceName)
	if err := stream(); !errors.Is(err, io.EOF) {
		t.Errorf("a worker has it: %v, want its answer", err)
	}
	if _, err := client.UnaryCall(timeout(t), simple(1)); status.Code(err) != codes.Unimplemented {
		t.Errorf("both have it: %v, want that of the local server", err)
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"relay"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestShutdownDuringTheHandshake(t *testing.T) {
	cert, roots := certificate(t)
	r, addr := startRelay(t, Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	nc, err := net.Dial("tcp", addr) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	awaitThat(t, "the connection is not accepted", func() bool { return r.Stats().Clients > 0 })
	done := make(chan error, 1)
	go func() { done <- r.Shutdown(timeout(t)) }()
	awaitThat(t, "the shutdown does not begin", r.closing.Load)
	var w deferred.Work
	r.clients.all()[0].warn(&w) // as Shutdown does, perhaps only a moment later
	w.Do()
	p := newPeer(t, tls.Client(nc, &tls.Config{RootCAs: roots, ServerName: "relay", NextProtos: []string{"h2"}}))
	_, err = io.WriteString(p, http2.ClientPreface)
	p.must(err)
	if f, err := p.ReadFrame(); err != nil || f.Header().Type != http2.FrameSettings {
		t.Errorf("the first frame is %v, %v", f, err)
	}
	if f := next[*http2.GoAwayFrame](p, nil); f.LastStreamID != frames.MaxID {
		t.Errorf("GOAWAY: %v", f)
	}
	_ = nc.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	cert, roots := certificate(t)
	ep, _ := startBackend(t, echo{})
	_, addr := startRelay(t, Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, ep)
	config := &tls.Config{RootCAs: roots, ServerName: "relay"}
	client := dial(t, addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	for _, n := range []int{0, 100, 1 << 20} {
		if out, err := client.UnaryCall(timeout(t), simple(n)); err != nil || len(out.GetPayload().GetBody()) != n {
			t.Errorf("%d bytes: %d, %v", n, len(out.GetPayload().GetBody()), err)
		}
	}
	for _, protocols := range [][]string{{"http/1.1"}, nil} {
		old := config.Clone()
		old.NextProtos = protocols
		nc, err := tls.Dial("tcp", addr, old) //nolint:noctx // a test
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(nc, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n")
		all, err := io.ReadAll(nc)
		if err != nil || string(all) != oldHTTP {
			t.Errorf("ALPN %v: %q, %v", protocols, all, err)
		}
		_ = nc.Close()
	}
}
