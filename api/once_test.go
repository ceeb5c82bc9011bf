package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/api/proto"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// marked returns the context of a request with an id.
func marked(ctx context.Context, ids ...string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.MD{RequestIDKey: ids})
}

// onceOver returns the service of a master without workers, and its store.
func onceOver(t *testing.T) (*Business, *store.DB) {
	t.Helper()
	db, s := standalone(t)
	return NewBusiness(s, db), db
}

func TestRequestWithAnIDIsCountedOnce(t *testing.T) {
	db, s := standalone(t)
	gateway, err := NewGateway(GatewayOptions{Services: s.Services(), Business: NewBusiness(s, db), Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	conn := serveOn(t, gateway, gateway.Close, "tcp", "127.0.0.1:0")
	client := proto.NewMyBusinessServiceClient(conn)
	ask := func(data string, ids ...string) (string, error) {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.MD{RequestIDKey: ids})
		resp, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: data})
		return resp.GetResult(), err
	}
	for range 3 {
		if got, err := ask("a", "id-1"); err != nil || got != "Processed: a" || db.Processed() != 1 {
			t.Errorf("%q, %v, processed %d, want it counted once", got, err, db.Processed())
		}
	}
	if got, err := ask("a", "id-2"); err != nil || got != "Processed: a" || db.Processed() != 2 {
		t.Errorf("with another id: %q, %v, processed %d", got, err, db.Processed())
	}
	if _, err := ask("b", "id-1"); status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "new id") {
		t.Errorf("another request: %v, want ALREADY_EXISTS and what to do", err)
	}
	for _, bad := range [][]string{{""}, {strings.Repeat("x", 129)}, {"a", "b"}} {
		if _, err := ask("a", bad...); status.Code(err) != codes.InvalidArgument {
			t.Errorf("id %q: %v, want INVALID_ARGUMENT", bad, err)
		}
	}
	if got := db.Processed(); got != 2 {
		t.Errorf("processed %d, want 2", got)
	}
}

// answering is a worker that answers as its function decides.
type answering struct {
	proto.UnimplementedMyBusinessServiceServer
	answer func(ctx context.Context) error
}

func (a answering) ProcessData(ctx context.Context, req *proto.ProcessRequest) (*proto.ProcessResponse, error) {
	return Process(req), a.answer(ctx)
}

// servedBy adds such a worker as an endpoint of the business service, and returns its address.
func servedBy(t *testing.T, r *services.Registry, link *breakable, answer func(ctx context.Context) error) string {
	t.Helper()
	srv := grpc.NewServer()
	proto.RegisterMyBusinessServiceServer(srv, answering{answer: answer})
	conn := serveOn(t, link.around(srv), srv.Stop, "tcp", "127.0.0.1:0")
	address := strings.TrimPrefix(conn.Target(), "passthrough:///")
	r.Add(&services.Endpoint{Address: address, Conn: conn, Warm: true}, businessName)
	return address
}

// breakable is a listener whose accepted connections can be closed by the test.
type breakable struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *breakable) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *breakable) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

func (l *breakable) around(srv *grpc.Server) server {
	return serverFunc(func(inner net.Listener) error { l.Listener = inner; return srv.Serve(l) })
}

type serverFunc func(net.Listener) error

func (f serverFunc) Serve(l net.Listener) error { return f(l) }

// refusing is the connection to a worker that does not accept calls: for some of them grpc-go returns a bare
// io.EOF, see package rpc.
type refusing struct{ grpc.ClientConnInterface }

func (refusing) Invoke(_ context.Context, _ string, _, _ any, options ...grpc.CallOption) error {
	for _, o := range options {
		if p, ok := o.(grpc.PeerCallOption); ok {
			p.PeerAddr.Addr = new(net.TCPAddr)
		}
	}
	return io.EOF
}

func TestRequestThatAWorkerRefusesGoesToAnother(t *testing.T) {
	for name, contextOf := range map[string]func(int) context.Context{
		"without an id": func(int) context.Context { return t.Context() },
		"with an id":    func(i int) context.Context { return marked(t.Context(), fmt.Sprint(i)) },
	} {
		t.Run(name, func(t *testing.T) {
			db, s := standalone(t)
			b := NewBusiness(s, db)
			full := &services.Endpoint{Address: "127.0.0.1:1", Conn: refusing{}, Warm: true}
			s.Services().Add(full, businessName)
			if _, err := b.ProcessData(contextOf(0), &proto.ProcessRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("without another worker: %v, want UNAVAILABLE", err)
			}
			servedBy(t, s.Services(), new(breakable), func(context.Context) error { return nil })
			before := s.Services().Service(businessName).Figures(full.Address)
			for i := range 40 {
				if _, err := b.ProcessData(contextOf(i), &proto.ProcessRequest{}); err != nil {
					t.Errorf("with another worker: %v", err)
				}
			}
			if after := s.Services().Service(businessName).Figures(full.Address); after.Ejections != 0 ||
				after.Calls != before.Calls {
				t.Errorf("%d ejections, %d calls, want none charged that it has not seen",
					after.Ejections, after.Calls-before.Calls)
			}
		})
	}
}

func TestWorkerThatBreaksOffIsEjectedAndOneThatRefusesIsNot(t *testing.T) {
	for name, refuses := range map[string]bool{"breaks off": false, "refuses": true} {
		t.Run(name, func(t *testing.T) {
			db, s := standalone(t)
			b, link := NewBusiness(s, db), new(breakable)
			bad := servedBy(t, s.Services(), link, func(context.Context) error {
				if !refuses {
					link.sever()
				}
				return status.Error(codes.Unavailable, "not now")
			})
			servedBy(t, s.Services(), new(breakable), func(context.Context) error { return nil })
			for i := range 60 {
				_, err := b.ProcessData(marked(t.Context(), fmt.Sprint(i)), &proto.ProcessRequest{})
				if err != nil && !refuses {
					t.Error(err)
				}
			}
			f := s.Services().Service(businessName).Figures(bad)
			if ejected := f.Ejections > 0; ejected == refuses {
				t.Errorf("%d ejections of %d calls", f.Ejections, f.Calls)
			}
			if refuses {
				// Some of the calls must not be retried: see the retry budget in package services.
				if f.Retries == 0 || f.Retries >= f.Failed() {
					t.Errorf("%d of %d failures were tried again, want as many as the budget allows",
						f.Retries, f.Failed())
				}
			} else if f.Retries != f.Failed() || f.InFlight != 0 {
				t.Errorf("%d of %d failures were tried again, %d calls are under way, want all and none",
					f.Retries, f.Failed(), f.InFlight)
			}
		})
	}
}

func TestPolicyHoldsForAMarkedRequest(t *testing.T) {
	db, s := standalone(t, services.Policy{Balance: services.Affinity, Affinity: "x-tenant", MaxMessage: 100})
	var mu sync.Mutex
	reached := map[string]map[int]bool{} // the workers reached, by tenant
	for i := range 3 {
		servedBy(t, s.Services(), new(breakable), func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			tenant := metadata.ValueFromIncomingContext(ctx, "x-tenant")[0]
			if reached[tenant] == nil {
				reached[tenant] = map[int]bool{}
			}
			reached[tenant][i] = true
			return nil
		})
	}
	b, all := NewBusiness(s, db), map[int]bool{}
	ask := func(tenant, data string, i int) error {
		md := metadata.Pairs("x-tenant", tenant, RequestIDKey, fmt.Sprint(tenant, i))
		_, err := b.ProcessData(metadata.NewIncomingContext(t.Context(), md), &proto.ProcessRequest{Data: data})
		return err
	}
	for i := range 200 {
		if err := ask(fmt.Sprint("tenant-", i%20), "x", i); err != nil {
			t.Error(err)
		}
	}
	for tenant, workers := range reached {
		if maps.Copy(all, workers); len(workers) != 1 {
			t.Errorf("%s went to %d workers, want 1", tenant, len(workers))
		}
	}
	if len(all) != 3 {
		t.Errorf("all went to %d workers, want 3", len(all))
	}
	// The answer is longer than the request by the prefix of the result.
	for _, large := range []int{95, 120} {
		if err := ask("tenant", strings.Repeat("x", large), large); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("data of %d bytes: %v, want RESOURCE_EXHAUSTED", large, err)
		}
	}
	if n := len(reached["tenant"]); n != 1 {
		t.Errorf("%d workers had a request that is too large, want the one whose answer is", n)
	}
}

func TestMetadataIsPassedOnBothWays(t *testing.T) {
	db, s := standalone(t)
	sent := metadata.Pairs("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"x-tenant", "a", "x-tenant", "b", "authorization", "c", "x-bin", "\x00")
	servedBy(t, s.Services(), new(breakable), func(ctx context.Context) error {
		got, _ := metadata.FromIncomingContext(ctx)
		for name, want := range sent {
			if !slices.Equal(got.Get(name), want) {
				t.Errorf("the worker is sent %s %q, want %q", name, got.Get(name), want)
			}
		}
		if agent := got.Get("user-agent"); len(agent) != 1 {
			t.Errorf("the worker is sent user-agent %q, want the one of who calls it", agent)
		}
		return errors.Join(grpc.SetHeader(ctx, metadata.Pairs("x-header", "1")),
			grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "2")))
	})
	gateway, err := NewGateway(GatewayOptions{Services: s.Services(), Business: NewBusiness(s, db), Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	client := proto.NewMyBusinessServiceClient(serveOn(t, gateway, gateway.Close, "tcp", "127.0.0.1:0"))
	for _, id := range []string{"", "id-1"} {
		if id != "" {
			sent.Set(RequestIDKey, id)
		}
		var header, trailer metadata.MD
		_, err := client.ProcessData(metadata.NewOutgoingContext(t.Context(), sent), &proto.ProcessRequest{},
			grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || !slices.Equal(header.Get("x-header"), []string{"1"}) ||
			!slices.Equal(trailer.Get("x-trailer"), []string{"2"}) {
			t.Errorf("id %q: header %v, trailer %v, %v, want the worker's", id, header, trailer, err)
		}
		if types := header.Get("content-type"); len(types) != 1 {
			t.Errorf("id %q: content-type %q, want one", id, types)
		}
	}
}

func TestRequestWithAnAnswerThatIsNotKept(t *testing.T) {
	b, db := onceOver(t)
	large := strings.Repeat("x", records.MaxResponse)
	resp, err := b.ProcessData(marked(t.Context(), "large"), &proto.ProcessRequest{Data: large})
	if err != nil || resp.GetResult() != "Processed: "+large {
		t.Fatalf("the first is answered %d bytes, %v", len(resp.GetResult()), err)
	}
	_, err = b.ProcessData(marked(t.Context(), "large"), &proto.ProcessRequest{Data: large})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("again: %v, want FAILED_PRECONDITION", err)
	}
	if got := db.Processed(); got != 1 {
		t.Errorf("processed %d, want 1", got)
	}
}

// fakeResults stores results in memory. If held is set, CountOnce leaves the callbacks to the test.
type fakeResults struct {
	fakeCounter
	mu     sync.Mutex
	byID   map[string]records.Result
	storeE error
	held   chan store.Counted // if not nil, receives the callbacks of CountOnce
}

func (f *fakeResults) Result(id string) (records.Result, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.byID[id]
	return r, ok, nil
}

func (f *fakeResults) CountOnce(r records.Result, done store.Counted) {
	f.mu.Lock()
	err := f.storeE
	if _, there := f.byID[r.ID]; there {
		err = store.ErrDuplicate
	}
	if err == nil {
		f.byID[r.ID] = r
		f.count.Add(1)
	}
	f.mu.Unlock()
	if f.held != nil {
		f.held <- done
		return
	}
	done.Counted(err)
}

// poolFunc is a pool without workers; the function returns the error of Acquire.
type poolFunc func(ctx context.Context) error

func (f poolFunc) Acquire(ctx context.Context, _, _ string) (*supervisor.Pick, error) {
	return nil, f(ctx)
}

func (f poolFunc) TryAcquire(_, _ string, _ ...string) (*supervisor.Pick, error) {
	return nil, supervisor.ErrNoWorker
}
func (f poolFunc) Policy(string) services.Policy { return services.Policy{} }

func (f poolFunc) Standalone(string) bool { return false }

// A request with an id is forwarded on behalf of its client, which cannot choose its own name.
func TestRequestWithAnIDIsItsClients(t *testing.T) {
	db, s := standalone(t)
	came := make(chan fair.Client, 1)
	b := NewBusiness(s, db)
	b.pool = poolFunc(func(ctx context.Context) error {
		came <- fair.FromContext(ctx)
		return errThrough
	})
	gateway, err := NewGateway(GatewayOptions{Services: s.Services(), Business: b, Counter: db})
	if err != nil {
		t.Fatal(err)
	}
	conn := serveOn(t, gateway, gateway.Close, "tcp", "127.0.0.1:0")
	calls := 0
	ask := func(from string) func() fair.Client {
		conn, err := grpc.NewClient(conn.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
				dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
				return dialer.DialContext(ctx, "tcp", address)
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return func() fair.Client {
			t.Helper()
			calls++
			ctx := metadata.AppendToOutgoingContext(t.Context(),
				RequestIDKey, fmt.Sprint(calls), protocol.Client, "chosen, chosen")
			_, err := proto.NewMyBusinessServiceClient(conn).ProcessData(ctx, &proto.ProcessRequest{})
			if status.Code(err) != codes.Aborted {
				t.Fatal(err)
			}
			return <-came
		}
	}
	one, same, other := ask("127.0.0.1"), ask("127.0.0.1"), ask("127.0.0.2")
	first, second, third := one(), same(), other()
	if again := one(); again != first {
		t.Errorf("a client is %v, and then %v", first, again)
	}
	if first.Peer != second.Peer || first.Conn == second.Conn {
		t.Errorf("two connections of a client are %v and %v", first, second)
	}
	if peer, _ := third.Peer.(string); !strings.HasPrefix(peer, "127.0.0.2") || third.Conn == first.Conn {
		t.Errorf("another client is %v", third)
	}
}

// errThrough is the error of a request that has reached the pool.
var errThrough = status.Error(codes.Aborted, "through")

func TestWhereTheFirstFailsTheNextRuns(t *testing.T) {
	f := &fakeResults{byID: map[string]records.Result{}}
	var runs atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	b := &Business{counter: f, results: f, pool: poolFunc(func(ctx context.Context) error {
		if runs.Add(1) == 1 {
			close(started)
		}
		select {
		case <-release:
			return errThrough
		case <-ctx.Done():
			return ctx.Err()
		}
	})}
	// The first caller gives up. The other requests wait for it, and then run one after the other.
	first, giveUp := context.WithCancel(t.Context())
	got := make(chan error, 4)
	go func() {
		_, err := b.ProcessData(marked(first, "a"), &proto.ProcessRequest{})
		got <- err
	}()
	<-started
	for range 3 {
		go func() {
			_, err := b.ProcessData(marked(t.Context(), "a"), &proto.ProcessRequest{})
			got <- err
		}()
	}
	// The deadline of another caller expires while it waits; its request has not run.
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := b.ProcessData(marked(short, "a"), &proto.ProcessRequest{})
	if status.Code(err) != codes.DeadlineExceeded || runs.Load() != 1 {
		t.Errorf("%v, %d have run, want DEADLINE_EXCEEDED and one", err, runs.Load())
	}
	giveUp()
	if err := <-got; status.Code(err) != codes.Canceled {
		t.Errorf("who gave up gets %v", err)
	}
	close(release)
	for range 3 {
		if err := <-got; status.Code(err) != codes.Aborted {
			t.Errorf("%v, want the error of each", err)
		}
	}
	if got := runs.Load(); got != 4 || f.Processed() != 0 {
		t.Errorf("%d have run, processed %d, want 4 and 0", got, f.Processed())
	}
	if len(b.inflight.byID) != 0 {
		t.Errorf("left: %v", b.inflight.byID)
	}
}

// A result that is being stored is stored even if its caller gives up, and a later request with the id gets it.
func TestCallerGivesUpWhileItsResultIsStored(t *testing.T) {
	f := &fakeResults{byID: map[string]records.Result{}, held: make(chan store.Counted, 1)}
	b := &Business{counter: f, results: f, pool: fakePool{standalone: true}}
	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := b.ProcessData(marked(ctx, "a"), &proto.ProcessRequest{Data: "x"})
		first <- err
	}()
	done := <-f.held
	giveUp()
	if err := <-first; status.Code(err) != codes.Canceled {
		t.Errorf("who gave up gets %v", err)
	}
	second := make(chan error, 1)
	go func() {
		resp, err := b.ProcessData(marked(t.Context(), "a"), &proto.ProcessRequest{Data: "x"})
		if err == nil && resp.GetResult() != "Processed: x" {
			err = errors.New(resp.GetResult())
		}
		second <- err
	}()
	another := &proto.ProcessRequest{Data: "y"}
	if _, err := b.ProcessData(marked(t.Context(), "a"), another); status.Code(err) != codes.AlreadyExists {
		t.Errorf("another request meanwhile: %v, want ALREADY_EXISTS", err)
	}
	done.Counted(nil)
	if err := <-second; err != nil {
		t.Error(err)
	}
	if f.Processed() != 1 {
		t.Errorf("processed %d, want 1", f.Processed())
	}
}

func TestResultThatCannotBeStoredIsNotAnswered(t *testing.T) {
	f := &fakeResults{byID: map[string]records.Result{}, storeE: fmt.Errorf("%w: disk full", store.ErrUnavailable)}
	b := &Business{counter: f, results: f, pool: fakePool{standalone: true}}
	if resp, err := b.ProcessData(marked(t.Context(), "a"), &proto.ProcessRequest{}); resp != nil ||
		status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("%v, %v, want UNAVAILABLE and the reason", resp, err)
	}
	f.unwritable = f.storeE
	b.pool = fakePool{err: errors.New("a worker was asked")}
	_, err := b.ProcessData(marked(t.Context(), "a"), &proto.ProcessRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want UNAVAILABLE, and no worker asked", err)
	}
	// A stored result is returned even if the store is not writable.
	req := &proto.ProcessRequest{Data: "x"}
	digest, err := digestOf(req)
	encoded, err2 := protobuf.Marshal(Process(req))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	f.byID["a"] = records.Result{ID: "a", Digest: digest, Response: encoded}
	if resp, err := b.ProcessData(marked(t.Context(), "a"), req); err != nil || resp.GetResult() != "Processed: x" {
		t.Errorf("%v, %v", resp, err)
	}
}

// A request that was counted by another call in the meantime is not counted again, and gets the answer of that
// call.
func TestRequestThatWasCountedMeanwhile(t *testing.T) {
	b, db := onceOver(t)
	req := &proto.ProcessRequest{Data: "x"}
	digest, err := digestOf(req)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := protobuf.Marshal(&proto.ProcessResponse{Result: "of the other"})
	if err != nil {
		t.Fatal(err)
	}
	b.results = late{db, records.Result{ID: "a", Digest: digest, Response: encoded}}
	resp, err := b.ProcessData(marked(t.Context(), "a"), req)
	if err != nil || resp.GetResult() != "of the other" || db.Processed() != 1 {
		t.Errorf("%v, %v, processed %d, want the other's and 1", resp, err, db.Processed())
	}
}

// late stores another result before each of its own.
type late struct {
	*store.DB
	other records.Result
}

func (l late) CountOnce(r records.Result, done store.Counted) {
	l.DB.CountOnce(l.other, ignored{})
	l.DB.CountOnce(r, done)
}

type ignored struct{}

func (ignored) Counted(error) {}

func TestConcurrentRequestsWithOneIDRunOnce(t *testing.T) {
	b, db := onceOver(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			data := fmt.Sprint(i % 5)
			resp, err := b.ProcessData(marked(t.Context(), "id-"+data), &proto.ProcessRequest{Data: data})
			if err != nil || resp.GetResult() != "Processed: "+data {
				t.Errorf("%v, %v", resp, err)
			}
		})
	}
	wg.Wait()
	if got := db.Processed(); got != 5 {
		t.Errorf("processed %d, want 5", got)
	}
}

// The service's limit on messages applies to the master's own answers too, with an id and without.
func TestLargeMessagesOfTheMastersOwn(t *testing.T) {
	for most, sizes := range map[int]map[int]codes.Code{
		0:        {3 << 20: codes.OK, 5 << 20: codes.ResourceExhausted},
		8 << 20:  {5 << 20: codes.OK, 9 << 20: codes.ResourceExhausted},
		64 << 10: {1 << 10: codes.OK, 1 << 20: codes.ResourceExhausted},
	} {
		db, s := standalone(t, services.Policy{MaxMessage: most})
		g, err := NewGateway(GatewayOptions{Services: s.Services(), Business: NewBusiness(s, db), Counter: db})
		if err != nil {
			t.Fatal(err)
		}
		client := proto.NewMyBusinessServiceClient(serveOn(t, g, g.Close, "tcp", "127.0.0.1:0"))
		for size, want := range sizes {
			for _, pairs := range [][]string{nil, {RequestIDKey, fmt.Sprint(most, "-", size)}} {
				ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
				_, err := client.ProcessData(ctx, &proto.ProcessRequest{Data: strings.Repeat("x", size)},
					grpc.MaxCallRecvMsgSize(16<<20))
				if status.Code(err) != want {
					t.Errorf("%d bytes of %d, with %q: %v, want %v", size, most, pairs, err, want)
				}
			}
		}
	}
}

// The master forwards a request with an id itself, without the relay. If two masters are endpoints of each other,
// such a request could wait for itself.
func TestRequestWithAnIDBetweenMastersThatAreEndpointsOfEachOther(t *testing.T) {
	var known [2]*services.Registry
	var conns [2]*grpc.ClientConn
	for i := range known {
		db, s := standalone(t)
		g, err := NewGateway(GatewayOptions{Services: s.Services(), Business: NewBusiness(s, db), Counter: db})
		if err != nil {
			t.Fatal(err)
		}
		known[i], conns[i] = s.Services(), serveOn(t, g, g.Close, "tcp", "127.0.0.1:0")
	}
	for i, conn := range conns {
		address := strings.TrimPrefix(conn.Target(), "passthrough:///")
		known[1-i].Add(&services.Endpoint{Address: address, Conn: conn, Warm: true}, businessName)
	}
	ask := func(id string, within time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		_, err := proto.NewMyBusinessServiceClient(conns[0]).ProcessData(
			metadata.NewOutgoingContext(ctx, metadata.Pairs(RequestIDKey, id)), &proto.ProcessRequest{})
		return err
	}
	if err := ask("nobody's", time.Minute); status.Code(err) != codes.Unavailable {
		t.Errorf("without a worker: %v, want UNAVAILABLE", err)
	}
	servedBy(t, known[1], new(breakable), func(context.Context) error { return nil })
	for i := range 20 {
		if err := ask(fmt.Sprint("request-", i), time.Minute); err != nil {
			t.Errorf("with a worker at the other: %v", err)
		}
	}
}
