package relay

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/core-tools/hsu-master/supervisor/services"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const serviceName = "grpc.testing.TestService"

// startBackend starts a gRPC server of that implementation and returns its endpoint.
func startBackend(
	t testing.TB, impl testpb.TestServiceServer, opts ...grpc.ServerOption,
) (*services.Endpoint, *grpc.Server) {
	t.Helper()
	l := listen(t)
	s := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(s, impl)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return &services.Endpoint{Address: l.Addr().String()}, s
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// startRelay starts a relay to those endpoints of the test service and returns it and its address.
func startRelay(t testing.TB, o Options, endpoints ...*services.Endpoint) (*Relay, string) {
	t.Helper()
	if o.Registry == nil {
		o.Registry = services.New(services.Options{})
	}
	if o.HeadTimeout == 0 { // a client of the test may be slow on a busy machine
		o.HeadTimeout = patience
	}
	for _, e := range endpoints {
		o.Registry.Add(e, serviceName)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return r, serveRelay(t, r)
}

// serveRelay has a relay serve until the end of the test, and returns its address.
func serveRelay(t testing.TB, r *Relay) string {
	t.Helper()
	l := listen(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Serve(l)
	}()
	t.Cleanup(func() {
		r.closeEmpty(t)
		<-done
	})
	return l.Addr().String()
}

// closeEmpty closes the relay and checks that nothing is left.
func (r *Relay) closeEmpty(t testing.TB) {
	t.Helper()
	r.Close()
	if n := r.peers.Kept(); n != 0 {
		t.Errorf("%d bytes are still counted as queued after the end", n)
	}
	for _, p := range r.pools.all() {
		p.wantNobody(t)
	}
	r.pools.local.wantNobody(t)
}

// refusing returns an address at which connections are refused. It is that of a connected socket, since the kernel
// could give the port of a closed listener to another process.
func refusing(t testing.TB) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { _ = l.Close() })
	nc, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc.LocalAddr().String()
}

// wantNobody checks that no call has a stream or waits for one.
func (p *pool) wantNobody(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if held := p.shares.All(); held != 0 || p.waiting.Len() != 0 {
		t.Errorf("after the end %d streams are taken and %d calls wait", held, p.waiting.Len())
	}
}

// dial connects a client.
func dial(t testing.TB, address string, opts ...grpc.DialOption) testpb.TestServiceClient {
	t.Helper()
	if len(opts) == 0 {
		opts = []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	}
	cc, err := grpc.NewClient("passthrough:///"+address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return testpb.NewTestServiceClient(cc)
}

// patience bounds every wait of a test. No wait should come near it, even on a busy machine.
const patience = time.Minute

func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}
