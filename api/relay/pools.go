package relay

import (
	"maps"
	"slices"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// pools holds the pools of all endpoints that calls have been sent to. Each endpoint has at most one pool that opens
// streams. A pool that has been given up stays so, and another one takes its place.
type pools struct {
	add func(*services.Endpoint) *pool // makes a pool

	mu sync.RWMutex // acquired after that of a call, and never together with that of a pool
	m  map[*services.Endpoint]*pool
}

func newPools(add func(*services.Endpoint) *pool) pools {
	return pools{add: add, m: make(map[*services.Endpoint]*pool)}
}

// of returns the pool of an endpoint. If that is unless, which has been given up, it returns a new pool.
func (s *pools) of(e *services.Endpoint, unless *pool) *pool {
	s.mu.RLock()
	p := s.m[e]
	s.mu.RUnlock()
	if p != nil && p != unless {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.m[e]; p == nil || p == unless {
		p = s.add(e)
		s.m[e] = p
	}
	return p
}

// all returns the current pools.
func (s *pools) all() []*pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*pool, 0, len(s.m)), maps.Values(s.m))
}

// sweep closes the connections to endpoints that are gone, and gives up pools without connections.
func (s *pools) sweep() {
	for _, p := range s.all() {
		if p.endpoint.Gone() {
			p.retire()
		}
		if !p.giveUp() {
			continue
		}
		s.mu.Lock()
		if s.m[p.endpoint] == p {
			delete(s.m, p.endpoint)
		}
		s.mu.Unlock()
	}
}
