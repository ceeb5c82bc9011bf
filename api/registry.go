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
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor"
	"github.com/core-tools/hsu-master/supervisor/ports"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/unit"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

// Sources of an endpoint: the origin of the information that it offers a service.
const (
	SourceWorker     = "worker"     // the unit of the worker
	SourceReflection = "reflection" // the worker itself
	SourceRegistered = "registered" // a registration on the admin socket
)

// registry implements the Registry service on the admin socket.
type registry struct {
	adminpb.UnimplementedRegistryServer
	supervisor *supervisor.Supervisor
	listen     string // of the public server
}

func (r *registry) list() []*adminpb.Service {
	return serviceMessages(r.supervisor.Workers(), r.supervisor.Registrations().List(), r.supervisor.Services())
}

func (r *registry) List(context.Context, *adminpb.ListRequest) (*adminpb.ListResponse, error) {
	return &adminpb.ListResponse{Services: r.list()}, nil
}

const (
	// watchLeast is the minimum time between two comparisons.
	watchLeast = 50 * time.Millisecond
	// watchMost is the maximum time between two comparisons: the end of an ejection sends no notification.
	watchMost = time.Second
)

// Watch compares the current services with those that it has sent, so that a slow client gets fewer changes but
// no wrong ones.
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

// pause waits until the timer fires or changed is signaled. It reports false if ctx is done.
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

// changesOf returns the differences between before and now. It ignores figures, which differ all the time.
func changesOf(before, now []*adminpb.Service) []*adminpb.WatchResponse {
	type place struct{ service, address, worker string }
	index := func(list []*adminpb.Service) map[place]*adminpb.Endpoint {
		m := make(map[place]*adminpb.Endpoint)
		for _, s := range list {
			m[place{service: s.GetName()}] = nil
			for _, e := range s.GetEndpoints() {
				e = proto.CloneOf(e)
				// Clear the fields that may change while the endpoint stays the same.
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
			changes = append(changes, &adminpb.WatchResponse{
				Kind: adminpb.WatchResponse_ADDED, Service: at.service, Endpoint: e,
			})
		case !proto.Equal(old, e):
			changes = append(changes, &adminpb.WatchResponse{
				Kind: adminpb.WatchResponse_CHANGED, Service: at.service, Endpoint: e,
			})
		}
	}
	for at, e := range was {
		if _, still := is[at]; !still {
			changes = append(changes, &adminpb.WatchResponse{
				Kind: adminpb.WatchResponse_REMOVED, Service: at.service, Endpoint: e,
			})
		}
	}
	// A service is added before its endpoints and removed after them.
	slices.SortFunc(changes, func(a, b *adminpb.WatchResponse) int {
		last := func(c *adminpb.WatchResponse) int {
			if c.GetKind() == adminpb.WatchResponse_REMOVED && c.GetEndpoint() == nil {
				return 1
			}
			return 0
		}
		return cmp.Or(strings.Compare(a.GetService(), b.GetService()), cmp.Compare(last(a), last(b)),
			strings.Compare(a.GetEndpoint().GetAddress(), b.GetEndpoint().GetAddress()),
			strings.Compare(a.GetEndpoint().GetWorker(), b.GetEndpoint().GetWorker()))
	})
	return changes
}

// Register refuses the master's own address, because calls would loop.
func (r *registry) Register(ctx context.Context, req *adminpb.RegisterRequest) (*adminpb.RegisterResponse, error) {
	if req.GetTtl() != nil {
		if err := req.GetTtl().CheckValid(); err != nil {
			return nil, status.Error(codes.InvalidArgument, "ttl: "+err.Error())
		}
	}
	if sameAddress(req.GetAddress(), r.listen, ofThisHost) {
		return nil, status.Error(codes.InvalidArgument, fmt.Sprintf(
			"address %s is where this master serves: name the one of the endpoint", req.GetAddress()))
	}
	known, err := r.supervisor.Registrations().Register(ctx,
		req.GetService(), req.GetAddress(), req.GetTtl().AsDuration())
	if err != nil {
		return nil, registryError(ctx, err)
	}
	return &adminpb.RegisterResponse{Endpoint: registeredMessage(known)}, nil
}

func (r *registry) Deregister(
	ctx context.Context, req *adminpb.DeregisterRequest,
) (*adminpb.DeregisterResponse, error) {
	gone, err := r.supervisor.Registrations().Deregister(ctx, req.GetService(), req.GetAddress())
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
	ttl, err := r.supervisor.Registrations().Heartbeat(req.GetService(), req.GetAddress())
	if err != nil {
		return nil, registryError(ctx, err)
	}
	return &adminpb.HeartbeatResponse{Ttl: duration(ttl)}, nil
}

// sameAddress reports whether address leads to the listener at listen, as far as is known without a DNS lookup.
// ours reports whether this host has an IP address.
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

// ofThisHost reports whether an interface of this host has the address. It returns false if the interfaces cannot
// be read.
func ofThisHost(ip net.IP) bool {
	addresses, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addresses, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// serviceMessages returns the services and their endpoints. If known is nil (offline), it uses only the recorded
// data.
func serviceMessages(
	workers []worker.Info, registered []registrations.Endpoint, known *services.Registry,
) []*adminpb.Service {
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
		if len(offers) == 0 { // recorded by a release that had only one service
			offers = []records.Offer{{Name: unit.DefaultService}}
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
			e := &adminpb.Endpoint{
				Address: ports.Address(w.Instance.Port), Worker: w.ID,
				Healthy: w.Ready, Source: SourceWorker, Probe: sendable(w.Probe),
			}
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

// decorate adds the values that only a running master has.
func decorate(s *adminpb.Service, info services.ServiceInfo, of *services.Service) {
	s.Balance, s.AffinityKey = string(info.Policy.Balance), info.Policy.Affinity
	s.MaxInFlight, s.MaxMessage = int64(info.Policy.MaxInFlight), int64(info.Policy.MaxMessage)
	s.Waiting = int64(info.Waiting)
	at := make(map[string]services.EndpointInfo, len(info.Endpoints))
	for _, e := range info.Endpoints {
		at[e.Address] = e
	}
	for _, e := range s.GetEndpoints() {
		// A worker may be ready and not yet known to offer this service.
		here := at[e.GetAddress()]
		e.Healthy, e.Ejected, e.EjectedFor = here.Ready, here.EjectedFor > 0, duration(here.EjectedFor)
		if of != nil { // nil if the service was removed just now
			e.Figures = figuresMessage(of.Figures(cmp.Or(e.GetWorker(), e.GetAddress())))
		}
	}
}

func registeredMessage(r registrations.Endpoint) *adminpb.Endpoint {
	return &adminpb.Endpoint{
		Address: sendable(r.Address), Healthy: r.Ready, Source: SourceRegistered,
		Reason: sendable(r.Reason), Probe: r.Probe, Ttl: duration(r.TTL), ExpiresAt: timestamp(r.Expires),
	}
}

func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
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
			m.Failures[services.CodeName(code)] = n
		}
	}
	return m
}
