package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Sources of an endpoint: what says that it offers a service.
const (
	SourceWorker     = "worker"     // the unit of the worker
	SourceReflection = "reflection" // the worker itself
	SourceRegistered = "registered" // somebody from outside
)

// registry is the service of that name on the admin socket.
type registry struct {
	adminpb.UnimplementedRegistryServer
	supervisor *supervisor.Supervisor
	listen     string // of the public server
}

func (r *registry) list() []*adminpb.Service {
	return serviceMessages(r.supervisor.Workers(), r.supervisor.Registered(), r.supervisor.Services())
}

func (r *registry) List(context.Context, *adminpb.ListRequest) (*adminpb.ListResponse, error) {
	return &adminpb.ListResponse{Services: r.list()}, nil
}

const (
	// watchLeast is the time between two looks, where changes come fast.
	watchLeast = 50 * time.Millisecond
	// watchMost is the time between two looks where nothing is told: an ejection that is over tells nobody.
	watchMost = time.Second
)

// Watch compares what there is with what it has sent, so that a caller who reads slowly gets fewer changes and no wrong
// ones.
func (r *registry) Watch(_ *adminpb.WatchRequest, stream grpc.ServerStreamingServer[adminpb.WatchResponse]) error {
	changed, stop := r.supervisor.Services().Watch()
	defer stop()
	var sent []*adminpb.Service
	for first := true; ; first = false {
		now := r.list()
		changes := changesOf(sent, now)
		if first {
			changes = append(changes, &adminpb.WatchResponse{Kind: adminpb.WatchResponse_CURRENT})
		}
		for _, c := range changes {
			if err := stream.Send(c); err != nil {
				return err
			}
		}
		sent = now
		if !pause(stream.Context(), nil, watchLeast) || !pause(stream.Context(), changed, watchMost) {
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// pause returns when the time is over or something has changed, and false where ctx has ended.
func pause(ctx context.Context, changed <-chan struct{}, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-changed:
	case <-ctx.Done():
		return false
	}
	return true
}

// changesOf says how now differs from before, without figures, which differ all the time.
func changesOf(before, now []*adminpb.Service) []*adminpb.WatchResponse {
	type place struct{ service, address, worker string }
	index := func(list []*adminpb.Service) map[place]*adminpb.Endpoint {
		m := make(map[place]*adminpb.Endpoint)
		for _, s := range list {
			m[place{service: s.GetName()}] = nil
			for _, e := range s.GetEndpoints() {
				e = proto.CloneOf(e)
				// What changes without meaning that something has.
				e.Figures, e.ExpiresAt, e.EjectedFor, e.Reason = nil, nil, nil, ""
				m[place{s.GetName(), e.GetAddress(), e.GetWorker()}] = e
			}
		}
		return m
	}
	was, is := index(before), index(now)
	var changes []*adminpb.WatchResponse
	for at, e := range is {
		old, known := was[at]
		switch {
		case !known:
			changes = append(changes, &adminpb.WatchResponse{Kind: adminpb.WatchResponse_ADDED, Service: at.service, Endpoint: e})
		case !proto.Equal(old, e):
			changes = append(changes, &adminpb.WatchResponse{Kind: adminpb.WatchResponse_CHANGED, Service: at.service, Endpoint: e})
		}
	}
	for at, e := range was {
		if _, still := is[at]; !still {
			changes = append(changes, &adminpb.WatchResponse{Kind: adminpb.WatchResponse_REMOVED, Service: at.service, Endpoint: e})
		}
	}
	// In order: a service before its endpoints, and after them where it goes.
	slices.SortFunc(changes, func(a, b *adminpb.WatchResponse) int {
		last := func(c *adminpb.WatchResponse) int {
			if c.GetKind() == adminpb.WatchResponse_REMOVED && c.GetEndpoint() == nil {
				return 1
			}
			return 0
		}
		return cmp.Or(strings.Compare(a.GetService(), b.GetService()), cmp.Compare(last(a), last(b)),
			strings.Compare(a.GetEndpoint().GetAddress(), b.GetEndpoint().GetAddress()), strings.Compare(a.GetEndpoint().GetWorker(), b.GetEndpoint().GetWorker()))
	})
	return changes
}

// Register refuses the master's own address: a call would go round and round.
func (r *registry) Register(ctx context.Context, req *adminpb.RegisterRequest) (*adminpb.RegisterResponse, error) {
	if req.GetTtl() != nil {
		if err := req.GetTtl().CheckValid(); err != nil {
			return nil, status.Error(codes.InvalidArgument, "ttl: "+err.Error())
		}
	}
	if sameAddress(req.GetAddress(), r.listen, ofThisHost) {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("address %s is where this master serves: name the one of the endpoint", req.GetAddress()))
	}
	known, err := r.supervisor.Register(ctx, req.GetService(), req.GetAddress(), req.GetTtl().AsDuration())
	if err != nil {
		return nil, registryError(ctx, err)
	}
	return &adminpb.RegisterResponse{Endpoint: registeredMessage(known)}, nil
}

func (r *registry) Deregister(ctx context.Context, req *adminpb.DeregisterRequest) (*adminpb.DeregisterResponse, error) {
	gone, err := r.supervisor.Deregister(ctx, req.GetService(), req.GetAddress())
	if err != nil {
		return nil, registryError(ctx, err)
	}
	resp := &adminpb.DeregisterResponse{}
	for _, g := range gone {
		resp.Removed = append(resp.Removed, g.Address)
	}
	return resp, nil
}

func (r *registry) Heartbeat(ctx context.Context, req *adminpb.HeartbeatRequest) (*adminpb.HeartbeatResponse, error) {
	ttl, err := r.supervisor.Heartbeat(req.GetService(), req.GetAddress())
	if err != nil {
		return nil, registryError(ctx, err)
	}
	return &adminpb.HeartbeatResponse{Ttl: duration(ttl)}, nil
}

// sameAddress tells whether an address leads to a listener, as far as can be seen without looking a name up.
// ours tells whether the host has an address.
func sameAddress(address, listen string, ours func(net.IP) bool) bool {
	host, port, err := net.SplitHostPort(address)
	ownHost, ownPort, ownErr := net.SplitHostPort(listen)
	if err != nil || ownErr != nil || port != ownPort {
		return false
	}
	ip, own := net.ParseIP(host), net.ParseIP(ownHost)
	if strings.TrimSuffix(strings.ToLower(host), ".") == "localhost" {
		ip = net.IPv4(127, 0, 0, 1)
	}
	switch {
	case ip == nil || own == nil:
		return host == ownHost
	case ip.Equal(own):
		return true
	}
	return own.IsUnspecified() && (ip.IsLoopback() || ours(ip))
}

// ofThisHost tells whether an interface of this host has the address. Where that cannot be known it says no.
func ofThisHost(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// serviceMessages lists what is offered, by whom. Without a registry (offline) it is what is recorded.
func serviceMessages(workers []supervisor.WorkerInfo, registered []supervisor.Registered, known *services.Registry) []*adminpb.Service {
	list := make(map[string]*adminpb.Service)
	service := func(name string) *adminpb.Service {
		name = sendable(name)
		if list[name] == nil {
			list[name] = &adminpb.Service{Name: name}
		}
		return list[name]
	}
	for _, w := range workers {
		offers := w.Services
		if len(offers) == 0 { // recorded by a release that knew one service
			offers = []store.Offer{{Name: supervisor.DefaultService}}
		}
		for _, o := range offers {
			if o.Denied() {
				continue
			}
			if w.Instance == nil || w.Instance.PID == 0 {
				if len(w.Services) > 0 && known == nil {
					service(o.Name)
				}
				continue
			}
			e := &adminpb.Endpoint{Address: supervisor.WorkerAddress(w.Instance.Port), Worker: w.ID, Healthy: w.Ready, Source: SourceWorker}
			if o.Reflected {
				e.Source = SourceReflection
			}
			if o.Unlisted {
				e.Healthy, e.Reason = false, "the worker does not offer it: its reflection does not list it"
			}
			s := service(o.Name)
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	for _, r := range registered {
		s := service(r.Service)
		s.Endpoints = append(s.Endpoints, registeredMessage(r))
	}
	if known != nil {
		for _, info := range known.Snapshot() {
			decorate(service(info.Name), info, known.Service(info.Name))
		}
	}
	var messages []*adminpb.Service
	for _, name := range slices.Sorted(maps.Keys(list)) {
		messages = append(messages, list[name])
	}
	return messages
}

// decorate adds what only a running master knows.
func decorate(s *adminpb.Service, info services.ServiceInfo, of *services.Service) {
	s.Balance, s.AffinityKey = string(info.Policy.Balance), info.Policy.Affinity
	s.MaxInFlight, s.MaxMessage = int64(info.Policy.MaxInFlight), int64(info.Policy.MaxMessage)
	s.Waiting = int64(info.Waiting)
	at := make(map[string]services.EndpointInfo, len(info.Endpoints))
	for _, e := range info.Endpoints {
		at[e.Address] = e
	}
	for _, e := range s.GetEndpoints() {
		// A worker may be ready, and not known yet to offer this.
		here := at[e.GetAddress()]
		e.Healthy, e.Ejected, e.EjectedFor = here.Ready, here.EjectedFor > 0, duration(here.EjectedFor)
		if of != nil { // else it has gone this moment
			e.Figures = figuresMessage(of.Figures(cmp.Or(e.GetWorker(), e.GetAddress())))
		}
	}
}

func registeredMessage(r supervisor.Registered) *adminpb.Endpoint {
	return &adminpb.Endpoint{
		Address: sendable(r.Address), Healthy: r.Ready, Source: SourceRegistered,
		Reason: sendable(r.Silence), Ttl: duration(r.TTL), ExpiresAt: timestamp(r.Expires),
	}
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// codeNames are the names of the status codes as the gRPC protocol has them.
var codeNames = [services.Codes]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

func figuresMessage(f services.Figures) *adminpb.Figures {
	m := &adminpb.Figures{
		Calls: f.Calls, InFlight: int64(f.InFlight), Retries: f.Retries, Ejections: f.Ejections,
	}
	counts := f.Latency.Counts[:]
	for len(counts) > 0 && counts[len(counts)-1] == 0 {
		counts = counts[:len(counts)-1]
	}
	if len(counts) > 0 {
		m.Latency = &adminpb.Latency{Counts: slices.Clone(counts), Sum: durationpb.New(f.Latency.Sum)}
	}
	for code, n := range f.Failures {
		if n > 0 {
			if m.Failures == nil {
				m.Failures = make(map[string]uint64)
			}
			m.Failures[codeNames[code]] = n
		}
	}
	return m
}
