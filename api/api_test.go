package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-core/go/control"
	"github.com/core-tools/hsu-core/go/logging"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

var quiet = logging.NewLogger("", logging.LogFuncs{})

// server is a [grpc.Server] or a [Gateway].
type server interface {
	Serve(l net.Listener) error
}

// serveOn serves until the end of the test, when it calls stop, and returns a connection to the server.
func serveOn(t *testing.T, srv server, stop func(), network, address string) *grpc.ClientConn {
	t.Helper()
	var l net.Listener
	var err error
	if network == "unix" {
		l, err = ListenAdmin(t.Context(), address)
	} else {
		l, err = net.Listen(network, address)
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("server ended with %v", err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, l.Addr().String())
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// standalone returns the state and the supervisor of a master without workers. The policies apply to all
// services.
func standalone(t testing.TB, policies ...services.Policy) (*store.DB, *supervisor.Supervisor) {
	t.Helper()
	db, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	options := supervisor.Options{Store: db, Policies: map[string]services.Policy{}}
	for _, p := range policies {
		options.Policies["*"] = p
	}
	s, err := supervisor.New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	<-s.Recovered()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, db.Close()); err != nil {
			t.Error(err)
		}
	})
	return db, s
}

func TestGateway(t *testing.T) {
	db, s := standalone(t)
	public, err := NewGateway(GatewayOptions{Services: s.Services(), Business: NewBusiness(s, db), Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	conn := serveOn(t, public, public.Close, "tcp", "127.0.0.1:0")
	ctx := t.Context()

	t.Run("health follows SetServing", func(t *testing.T) {
		for _, serving := range []bool{false, true, false} {
			public.SetServing(serving)
			want := healthpb.HealthCheckResponse_NOT_SERVING
			if serving {
				want = healthpb.HealthCheckResponse_SERVING
			}
			for _, service := range []string{"", "proto.MyBusinessService"} {
				resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
				if err != nil || resp.GetStatus() != want {
					t.Errorf("health of %q = %v, %v, want %v", service, resp.GetStatus(), err, want)
				}
			}
		}
	})
	t.Run("the master is an HSU", func(t *testing.T) {
		if err := control.NewGRPCClientGateway(conn, quiet).Ping(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("the framework's own question for a master is answered", func(t *testing.T) {
		resp := new(proto.StatusResponse)
		err := conn.Invoke(ctx, "/proto.MasterService/Status", new(proto.StatusRequest), resp)
		if err != nil || resp.GetStatus() != "hsu-master: OK" || resp.GetProcessedCount() != 0 {
			t.Errorf("Status = %v, %v, want hsu-master: OK alone", resp, err)
		}
	})
	t.Run("an acknowledged request is in the file", func(t *testing.T) {
		client := proto.NewMyBusinessServiceClient(conn)
		for i := range 5 {
			resp, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: fmt.Sprint("item ", i)})
			if err != nil || resp.GetResult() != fmt.Sprint("Processed: item ", i) || !resp.GetSuccess() {
				t.Fatalf("ProcessData = %v, %v", resp, err)
			}
		}
		snap, err := db.Snapshot()
		if err != nil || snap.Processed != 5 {
			t.Errorf("file counts %d (%v), want 5", snap.Processed, err)
		}
		resp, err := client.GetStatus(ctx, &proto.StatusRequest{})
		if err != nil || resp.GetStatus() != "running" || resp.GetProcessedCount() != 5 {
			t.Errorf("GetStatus = %v, %v, want running and 5", resp, err)
		}
	})
	t.Run("an oversized request is refused and not counted", func(t *testing.T) {
		before := db.Processed()
		_, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx,
			&proto.ProcessRequest{Data: strings.Repeat("x", MaxMessageSize+1)})
		if status.Code(err) != codes.ResourceExhausted || db.Processed() != before {
			t.Errorf("%v, count %d after %d: want RESOURCE_EXHAUSTED and no count", err, db.Processed(), before)
		}
	})
}

func listServices(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	// An error of Send also appears in Recv.
	_ = stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}

func TestAdminServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("peer credentials are read on Linux only")
	}
	db, s := standalone(t)
	business := NewBusiness(s, db)
	socket := filepath.Join(t.TempDir(), "admin.sock")
	srv := NewAdminServer(&Admin{
		Store: db, Supervisor: s, Listen: "127.0.0.1:1", Version: "v", Started: time.Now(),
	}, business)
	conn := serveOn(t, srv, srv.Stop, "unix", socket)
	ctx := t.Context()

	resp, err := adminpb.NewAdminClient(conn).GetState(ctx, &adminpb.GetStateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if st := resp.GetState(); st.GetSource() != SourceLive || int(st.GetMasterPid()) != os.Getpid() ||
		st.GetMasterId() != db.MasterID() || st.GetSchemaVersion() == 0 {
		t.Errorf("state = %v", st)
	}
	if names, err := listServices(ctx, conn); err != nil || len(names) < 2 {
		t.Errorf("reflection lists %v, %v, want the admin and the business service", names, err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket's mode is %v (%v), want 0600", info.Mode(), err)
	}
}

func TestAuthorize(t *testing.T) {
	for uid, want := range map[uint32]codes.Code{
		0:                        codes.OK,
		uint32(os.Geteuid()):     codes.OK,
		uint32(os.Geteuid()) + 1: codes.PermissionDenied,
	} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: peerIdentity{uid: uid}})
		ctx, err := authorize(ctx)
		if got := status.Code(err); got != want {
			t.Errorf("user %d gets %v, want %v", uid, got, want)
		}
		if err == nil && supervisor.OperatorOf(ctx).UID != uid {
			t.Errorf("operator %+v, want user %d", supervisor.OperatorOf(ctx), uid)
		}
	}
	if _, err := authorize(t.Context()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a caller whom nobody knows gets %v", err)
	}
}

func TestListenAdmin(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin.sock")

	// The state after a crash: the file exists and no process listens.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := ListenAdmin(t.Context(), path)
	if err != nil {
		t.Fatalf("a socket that a crash left: %v", err)
	}
	if _, err := ListenAdmin(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another master") {
		t.Errorf("a socket that is served: %v, want it refused", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenAdmin(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in its place: %v, want it refused", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("the file is now %q (%v)", text, err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 120))
	if _, err := ListenAdmin(t.Context(), long); err == nil ||
		!strings.Contains(err.Error(), "limit") || !strings.Contains(err.Error(), "--runtime-dir") {
		t.Errorf("a path over the limit: %v, want the limit and what to do", err)
	}
}

// fakePool is a pool without workers.
type fakePool struct {
	standalone bool
	err        error
}

func (p fakePool) Acquire(context.Context, string, string) (*supervisor.Pick, error) {
	return nil, p.err
}

func (p fakePool) TryAcquire(string, string, ...string) (*supervisor.Pick, error) {
	return nil, p.err
}
func (p fakePool) Standalone(string) bool        { return p.standalone }
func (p fakePool) Policy(string) services.Policy { return services.Policy{} }

type fakeCounter struct {
	err        error
	unwritable error
	count      atomic.Int64
}

func (c *fakeCounter) AddProcessed(_ context.Context, n int64) error {
	if c.err == nil {
		c.count.Add(n)
	}
	return c.err
}
func (c *fakeCounter) Processed() int64 { return c.count.Load() }
func (c *fakeCounter) Writable() error  { return c.unwritable }

func TestWhatCannotBeCountedIsNotAcknowledged(t *testing.T) {
	cause := errors.New("no space left on device")
	b := &Business{
		pool:    fakePool{standalone: true},
		counter: &fakeCounter{err: fmt.Errorf("%w: %w", store.ErrUnavailable, cause)},
	}
	resp, err := b.ProcessData(t.Context(), &proto.ProcessRequest{})
	if resp != nil || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), cause.Error()) {
		t.Errorf("got %v, %v, want UNAVAILABLE with the reason", resp, err)
	}
}

// If the master processed a request without counting it, the caller's retry would process it a second time.
func TestWhatCouldNotBeCountedIsNotDone(t *testing.T) {
	counter := &fakeCounter{unwritable: fmt.Errorf("%w: no space left on device", store.ErrUnavailable)}
	b := &Business{pool: fakePool{err: errors.New("a worker was asked")}, counter: counter}
	resp, err := b.ProcessData(t.Context(), &proto.ProcessRequest{})
	if resp != nil || status.Code(err) != codes.Unavailable ||
		!strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("got %v, %v, want UNAVAILABLE with the reason, and no worker asked", resp, err)
	}
}

func TestWhatIsNotDoneIsNotCounted(t *testing.T) {
	counter := &fakeCounter{}
	for err, want := range map[error]codes.Code{
		supervisor.ErrNoWorker: codes.Unavailable,
		supervisor.ErrBusy:     codes.ResourceExhausted,
		status.Error(codes.InvalidArgument, "from the worker"): codes.InvalidArgument,
		status.Error(codes.Canceled, "connection closing"):     codes.Unavailable,
		errors.New("unforeseen"):                               codes.Internal,
	} {
		b := &Business{pool: fakePool{err: err}, counter: counter}
		if _, got := b.ProcessData(t.Context(), &proto.ProcessRequest{}); status.Code(got) != want {
			t.Errorf("%v became %v, want %v", err, got, want)
		}
	}
	if n := counter.Processed(); n != 0 {
		t.Errorf("count = %d, want 0", n)
	}
}

func TestStatusOfACallerWhoGaveUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := status.Code(statusError(ctx, status.Error(codes.Canceled, "context canceled"))); got != codes.Canceled {
		t.Errorf("got %v, want CANCELLED", got)
	}
}

// stubborn ignores its caller's context until hang is closed.
type stubborn struct {
	proto.UnimplementedMyBusinessServiceServer
	entered, hang chan struct{}
}

func (s stubborn) ProcessData(context.Context, *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	close(s.entered)
	<-s.hang
	return &proto.ProcessResponse{}, nil
}

func TestShutdownIsBounded(t *testing.T) {
	db, s := standalone(t)
	business := stubborn{entered: make(chan struct{}), hang: make(chan struct{})}
	gateway, err := NewGateway(GatewayOptions{Services: s.Services(), Business: business, Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	conn := serveOn(t, gateway, gateway.Close, "tcp", "127.0.0.1:0")
	called := make(chan error, 1)
	go func() {
		_, err := proto.NewMyBusinessServiceClient(conn).ProcessData(t.Context(), &proto.ProcessRequest{})
		called <- err
	}()
	<-business.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		gateway.Shutdown(ctx)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("a handler that ignores its context keeps the gateway from ending")
	}
	close(business.hang)
	if err := <-called; status.Code(err) != codes.Unavailable {
		t.Errorf("the call that was cut off ended with %v, want UNAVAILABLE", err)
	}
}
