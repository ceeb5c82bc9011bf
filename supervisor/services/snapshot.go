package services

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// ServiceInfo is a service at one moment.
type ServiceInfo struct {
	Name      string
	Policy    Policy
	InFlight  int
	Waiting   int // calls that wait for an endpoint, or for a moment before they try all of them again
	Endpoints []EndpointInfo
	// Gone are the figures of endpoints that are gone and may come back, by [Endpoint.Key].
	Gone map[string]Figures
	// Past are those of all that are gone for so long that they are not kept apart any more.
	Past Figures
}

// EndpointInfo is an endpoint of a service at one moment.
type EndpointInfo struct {
	Address string
	Worker  string
	Ready   bool
	// EjectedFor is how long it stays ejected from now on, 0 where it is not.
	EjectedFor time.Duration
	Figures
}

// Snapshot returns all services, sorted by name, each with its endpoints in the order in which they came.
func (r *Registry) Snapshot() []ServiceInfo {
	known := *r.services.Load()
	infos := make([]ServiceInfo, 0, len(known))
	for _, name := range slices.Sorted(maps.Keys(known)) {
		infos = append(infos, known[name].Info())
	}
	return infos
}

// Names returns the names of all services, sorted.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(*r.services.Load())) }

// Info returns the service as it is now.
func (s *Service) Info() ServiceInfo {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	info := ServiceInfo{Name: s.name, Policy: s.policy, InFlight: s.inFlight, Past: s.past}
	info.Waiting = s.waiting.Len() + int(s.paused.Load())
	present := make(map[*figures]bool, len(s.members))
	for _, m := range s.members {
		present[m.figures] = true
		info.Endpoints = append(info.Endpoints, EndpointInfo{
			Address: m.ep.Address, Worker: m.ep.Worker,
			Ready: m.ready, EjectedFor: max(0, m.ejectedUntil-now), Figures: m.figures.read(),
		})
	}
	for key, f := range s.kept {
		if !present[f] {
			if info.Gone == nil {
				info.Gone = make(map[string]Figures)
			}
			info.Gone[key] = f.read()
		}
	}
	return info
}

// Figures returns what was counted at the endpoints of that key, also where none is there now.
func (s *Service) Figures(key string) Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.kept[key]; f != nil {
		return f.read()
	}
	return Figures{}
}

// Watch returns a channel that gets a token after each change of who offers what and who is ready; changes that come
// before the token is taken share it. stop ends that.
func (r *Registry) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	r.watching.Lock()
	defer r.watching.Unlock()
	r.watchers[c] = struct{}{}
	return c, func() {
		r.watching.Lock()
		defer r.watching.Unlock()
		delete(r.watchers, c)
	}
}

// Changed tells those who watch that something has changed, also for what is kept beside the registry.
func (r *Registry) Changed() {
	r.watching.Lock()
	defer r.watching.Unlock()
	for c := range r.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// infrastructure are services that every endpoint has for itself: they are not looked for at another one.
var infrastructure = []string{"grpc.health.", "grpc.reflection.", "grpc.channelz.", "hsu.master."}

// Infrastructure tells that a service is about the endpoint that serves it, so that it cannot be routed: health,
// reflection, channelz, Ping, and what a master serves to its administrator.
func Infrastructure(name string) bool {
	return name == "proto.CoreService" || slices.ContainsFunc(infrastructure, func(prefix string) bool {
		return strings.HasPrefix(name, prefix)
	})
}
