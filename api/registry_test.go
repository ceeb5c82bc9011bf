package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// serveUnit serves on its own port until the test ends.
func serveUnit(t *testing.T, srv *grpc.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// registryOf returns clients of a master whose public address is reported as 127.0.0.1:50051.
func registryOf(t *testing.T) (adminpb.RegistryClient, adminpb.AdminClient, *supervisor.Supervisor) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("peer credentials are read on Linux only")
	}
	db, s := standalone(t)
	srv := NewAdminServer(&Admin{Store: db, Supervisor: s, Listen: "127.0.0.1:50051"}, NewBusiness(s, db))
	conn := serveOn(t, srv, srv.Stop, "unix", filepath.Join(t.TempDir(), "admin.sock"))
	return adminpb.NewRegistryClient(conn), adminpb.NewAdminClient(conn), s
}

func TestRegistryOverTheAdminSocket(t *testing.T) {
	client, admin, s := registryOf(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	unit := grpc.NewServer()
	state := health.NewServer()
	healthpb.RegisterHealthServer(unit, state)
	address := serveUnit(t, unit)

	watch, err := client.Watch(ctx, &adminpb.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	go func() {
		defer close(told)
		for {
			c, err := watch.Recv()
			if err != nil {
				return
			}
			told <- strings.TrimSpace(fmt.Sprintln(c.GetKind(), c.GetService(), c.GetEndpoint().GetHealthy()))
		}
	}()
	want := func(changes ...string) {
		t.Helper()
		for _, w := range changes {
			if got := <-told; got != w {
				t.Fatalf("told %q, want %q", got, w)
			}
		}
	}
	want("CURRENT  false")

	resp, err := client.Register(ctx, &adminpb.RegisterRequest{
		Service: "pkg.A", Address: address, Ttl: durationpb.New(time.Hour),
	})
	if err != nil || !resp.GetEndpoint().GetHealthy() || resp.GetEndpoint().GetSource() != SourceRegistered ||
		resp.GetEndpoint().GetExpiresAt() == nil {
		t.Fatalf("Register = %v, %v", resp, err)
	}
	// The endpoint may be reported before or after its first successful probe.
	for {
		if c := <-told; c == "ADDED pkg.A true" || c == "CHANGED pkg.A true" {
			break
		}
	}
	l, err := s.Services().Service("pkg.A").Pick(fair.Client{}, "")
	if err != nil {
		t.Fatal(err)
	}
	l.End(services.Outcome{Code: uint32(codes.Unavailable), Failed: true})
	list, err := client.List(ctx, &adminpb.ListRequest{})
	if err != nil || len(list.GetServices()) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	got := list.GetServices()[0]
	e := got.GetEndpoints()[0]
	if got.GetName() != "pkg.A" || got.GetBalance() != "least" ||
		e.GetAddress() != address || e.GetTtl().AsDuration() != time.Hour ||
		e.GetFigures().GetCalls() != 1 || e.GetFigures().GetFailures()["UNAVAILABLE"] != 1 ||
		len(e.GetFigures().GetLatency().GetCounts()) == 0 {
		t.Errorf("listed is %v", got)
	}
	if st, err := admin.GetState(ctx, &adminpb.GetStateRequest{}); err != nil ||
		len(st.GetState().GetServices()) != 1 ||
		st.GetState().GetServices()[0].GetEndpoints()[0].GetFigures().GetCalls() != 1 {
		t.Errorf("the state's services are %v, %v", st.GetState().GetServices(), err)
	}
	if beat, err := client.Heartbeat(ctx, &adminpb.HeartbeatRequest{Service: "pkg.A", Address: address}); err != nil ||
		beat.GetTtl().AsDuration() != time.Hour {
		t.Errorf("Heartbeat = %v, %v", beat, err)
	}
	gone, err := client.Deregister(ctx, &adminpb.DeregisterRequest{Service: "pkg.A"})
	if err != nil || len(gone.GetRemoved()) != 1 || gone.GetRemoved()[0] != address {
		t.Errorf("Deregister = %v, %v", gone, err)
	}
	want("REMOVED pkg.A true", "REMOVED pkg.A false")
	for name, ask := range map[string]func() error{
		"Heartbeat": func() error {
			_, err := client.Heartbeat(ctx, &adminpb.HeartbeatRequest{Service: "pkg.A"})
			return err
		},
		"Deregister": func() error {
			_, err := client.Deregister(ctx, &adminpb.DeregisterRequest{Service: "pkg.A"})
			return err
		},
	} {
		if err := ask(); status.Code(err) != codes.NotFound {
			t.Errorf("%s of what is gone: %v, want NOT_FOUND", name, err)
		}
	}
	cancel()
	for range told { // until it has ended
	}
}

func TestRegistryRefusesBadInput(t *testing.T) {
	client, _, s := registryOf(t)
	mixedSigns := &durationpb.Duration{Seconds: 1, Nanos: -1}
	for name, req := range map[string]*adminpb.RegisterRequest{
		"nothing":            {},
		"a bad name":         {Service: "a/b", Address: "127.0.0.1:1"},
		"a bad address":      {Service: "pkg.A", Address: "127.0.0.1"},
		"a bad ttl":          {Service: "pkg.A", Address: "127.0.0.1:1", Ttl: &durationpb.Duration{Seconds: -1}},
		"no ttl at all":      {Service: "pkg.A", Address: "127.0.0.1:1", Ttl: mixedSigns},
		"an infrastructure":  {Service: "grpc.health.v1.Health", Address: "127.0.0.1:1"},
		"the master itself":  {Service: "pkg.A", Address: "127.0.0.1:50051"},
		"by its other name":  {Service: "pkg.A", Address: "LocalHost.:50051"},
		"a terminal's words": {Service: "pkg.A\x1b[2J", Address: "127.0.0.1:1"},
	} {
		_, err := client.Register(t.Context(), req)
		if status.Code(err) != codes.InvalidArgument || strings.Contains(status.Convert(err).Message(), "\x1b") {
			t.Errorf("%s: %v, want INVALID_ARGUMENT", name, err)
		}
	}
	if n := len(s.Registrations().List()); n != 0 {
		t.Errorf("%d are registered", n)
	}
}

func TestSameAddress(t *testing.T) {
	ours := func(ip net.IP) bool { return ip.String() == "10.0.0.2" }
	for _, test := range []struct {
		address, listen string
		want            bool
	}{
		{"127.0.0.1:1", "127.0.0.1:1", true},
		{"localhost:1", "127.0.0.1:1", true},
		{"[::1]:1", "[::1]:1", true},
		{"127.0.0.1:1", "0.0.0.0:1", true},
		{"127.0.0.2:1", "[::]:1", true},
		{"localhost:1", "[::]:1", true},
		{"127.0.0.1:2", "127.0.0.1:1", false},
		{"127.0.0.2:1", "127.0.0.1:1", false},
		{"10.0.0.1:1", "0.0.0.0:1", false},
		{"10.0.0.2:1", "0.0.0.0:1", true},
		{"10.0.0.2:1", "[::]:1", true},
		{"10.0.0.2:2", "0.0.0.0:1", false},
		{"10.0.0.2:1", "127.0.0.1:1", false},
		{"host:1", "127.0.0.1:1", false},
		{"", "127.0.0.1:1", false},
		{"127.0.0.1:1", "", false},
	} {
		if got := sameAddress(test.address, test.listen, ours); got != test.want {
			t.Errorf("%s at %s: %t, want %t", test.address, test.listen, got, test.want)
		}
	}
}

func TestAddressesOfThisHost(t *testing.T) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if ip := a.(*net.IPNet).IP; !ofThisHost(ip) {
			t.Errorf("%s is not", ip)
		}
	}
	if ip := net.ParseIP("192.0.2.1"); ofThisHost(ip) {
		t.Errorf("%s is, an address for documents", ip)
	}
}

func TestChangesOf(t *testing.T) {
	const (
		added   = adminpb.WatchResponse_ADDED
		changed = adminpb.WatchResponse_CHANGED
		removed = adminpb.WatchResponse_REMOVED
	)
	a := &adminpb.Endpoint{Address: "a:1", Healthy: true}
	sick := &adminpb.Endpoint{Address: "a:1"}
	busy := &adminpb.Endpoint{Address: "a:1", Healthy: true, Figures: &adminpb.Figures{Calls: 7}, Reason: "x"}
	b := &adminpb.Endpoint{Address: "b:1", Worker: "worker-0"}
	list := func(name string, eps ...*adminpb.Endpoint) []*adminpb.Service {
		return []*adminpb.Service{{Name: name, Endpoints: eps}}
	}
	for name, test := range map[string]struct {
		before, now []*adminpb.Service
		want        []*adminpb.WatchResponse
	}{
		"nothing":      {nil, nil, nil},
		"the same":     {list("s", a, b), list("s", b, a), nil},
		"figures only": {list("s", a), list("s", busy), nil},
		"a service":    {nil, list("s"), []*adminpb.WatchResponse{{Kind: added, Service: "s"}}},
		"with endpoints": {nil, list("s", b, a), []*adminpb.WatchResponse{
			{Kind: added, Service: "s"},
			{Kind: added, Service: "s", Endpoint: a},
			{Kind: added, Service: "s", Endpoint: b},
		}},
		"not ready": {list("s", a), list("s", sick), []*adminpb.WatchResponse{
			{Kind: changed, Service: "s", Endpoint: sick},
		}},
		"all gone": {list("s", a), nil, []*adminpb.WatchResponse{
			{Kind: removed, Service: "s", Endpoint: a}, {Kind: removed, Service: "s"},
		}},
		"one for another": {list("s", a), list("s", b), []*adminpb.WatchResponse{
			{Kind: removed, Service: "s", Endpoint: a}, {Kind: added, Service: "s", Endpoint: b},
		}},
	} {
		if diff := cmp.Diff(test.want, changesOf(test.before, test.now), protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestServiceMessages(t *testing.T) {
	running := func(id string, port int, ready bool, offers ...records.Offer) worker.Info {
		return worker.Info{Ready: ready, Worker: records.Worker{
			ID: id, Instance: &records.Instance{Process: identity.Process{PID: 1}, Port: port}, Services: offers,
		}}
	}
	workers := []worker.Info{
		running("worker-0", 1, true, records.Offer{Name: "pkg.A"}, records.Offer{Name: "pkg.B", Reflected: true}),
		running("worker-1", 2, false),
		running("worker-3", 3, true, records.Offer{Name: "pkg.C", Unlisted: true},
			records.Offer{Name: "pkg.D", Unlisted: true, Assumed: true}),
		{Worker: records.Worker{ID: "worker-2", Services: []records.Offer{{Name: "pkg.C"}}}},
	}
	registered := []registrations.Endpoint{{
		Registration: records.Registration{Service: "pkg.A", Address: "10.0.0.1:80"}, Reason: "refused",
	}}
	want := []*adminpb.Service{
		{Name: "pkg.A", Endpoints: []*adminpb.Endpoint{
			{Address: "127.0.0.1:1", Worker: "worker-0", Healthy: true, Source: SourceWorker},
			{Address: "10.0.0.1:80", Source: SourceRegistered, Reason: "refused"},
		}},
		{Name: "pkg.B", Endpoints: []*adminpb.Endpoint{
			{Address: "127.0.0.1:1", Worker: "worker-0", Healthy: true, Source: SourceReflection},
		}},
		{Name: "pkg.C", Endpoints: []*adminpb.Endpoint{
			{
				Address: "127.0.0.1:3", Worker: "worker-3", Source: SourceWorker,
				Reason: "the worker does not offer it: its reflection does not list it",
			},
		}},
		{Name: unit.DefaultService, Endpoints: []*adminpb.Endpoint{
			{Address: "127.0.0.1:2", Worker: "worker-1", Source: SourceWorker},
		}},
	}
	if diff := cmp.Diff(want, serviceMessages(workers, registered, nil), protocmp.Transform()); diff != "" {
		t.Errorf("offline (-want +got):\n%s", diff)
	}
}

func TestErrorsOfTheRegistry(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		ctx  context.Context
		err  error
		want codes.Code
	}{
		{t.Context(), registrations.ErrRegistration, codes.InvalidArgument},
		{t.Context(), registrations.ErrTooMany, codes.ResourceExhausted},
		{t.Context(), registrations.ErrNotRegistered, codes.NotFound},
		{t.Context(), fmt.Errorf("record: %w", store.ErrUnavailable), codes.Unavailable},
		{gone, fmt.Errorf("wait: %w", context.Canceled), codes.Canceled},
		{t.Context(), errors.New("unforeseen"), codes.Internal},
		{t.Context(), io.ErrUnexpectedEOF, codes.Internal},
	} {
		if got := status.Code(registryError(test.ctx, test.err)); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}
