package services

import (
	"maps"
	"slices"
	"time"
)

// ServiceInfo describes a service at one moment.
type ServiceInfo struct {
	Name      string
	Policy    Policy
	InFlight  int
	Waiting   int // calls that wait for an endpoint, or pause before they try all endpoints again
	Endpoints []EndpointInfo
	// Gone has the figures of endpoints that are gone and may come back, by [Endpoint.Key].
	Gone map[string]Figures
	// Past is the sum of the figures of endpoints that have been gone for so long that they are no longer kept apart.
	Past Figures
}

// EndpointInfo describes an endpoint of a service at one moment.
type EndpointInfo struct {
	Address string
	Worker  string
	Ready   bool
	// EjectedFor is the remaining time of its ejection, or 0 if it is not ejected.
	EjectedFor time.Duration
	Figures
}

// Snapshot returns all services, sorted by name. The endpoints of each are in the order in which they were added.
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

// Info returns the current state of the service.
func (s *Service) Info() ServiceInfo {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	info := ServiceInfo{Name: s.name, Policy: s.policy, InFlight: s.inFlight, Past: s.past}
	info.Waiting = s.waiting.Len() + int(s.paused.Load())
	present := make(map[*figures]bool, len(s.members))
	info.Endpoints = make([]EndpointInfo, 0, len(s.members))
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

// Figures returns the figures of the endpoint with the key, even if it is gone.
func (s *Service) Figures(key string) Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.kept[key]; f != nil {
		return f.read()
	}
	return Figures{}
}
