package services

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
)

// Service is a gRPC service with its endpoints.
type Service struct {
	registry *Registry
	name     string
	policy   Policy
	epoch    time.Time // origin of the service's clock

	mu       sync.Mutex
	rand     *rand.Rand
	members  []*member
	ready    []*member // the ready ones among members
	turn     float64   // see balance.go
	inFlight int
	budget   budget
	retired  bool // no longer offered

	shares    fair.Shares  // of the calls in flight, if the policy bounds them
	paused    atomic.Int64 // see Paused
	waiting   fair.Queue[func(error)]
	displaced []func(error) // have lost their place in the queue and must be called
	releasing bool          // a goroutine calls the waiters
	again     bool          // that goroutine must check once more before it ends

	kept map[string]*figures // of endpoints, present or gone, by Endpoint.Key
	past Figures             // sum of those that are no longer kept
}

// member is an endpoint of a service.
type member struct {
	service *Service
	ep      *Endpoint
	standing
	figures *figures
	ready   bool
}

// Name returns the full name, as in a method's path.
func (s *Service) Name() string { return s.name }

// Policy returns the policy of the service.
func (s *Service) Policy() *Policy { return &s.policy }

// clock returns the time since the service was created.
func (s *Service) clock() time.Duration { return time.Since(s.epoch) }

// Endpoints returns the ready endpoints.
func (s *Service) Endpoints() []*Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	eps := make([]*Endpoint, len(s.ready))
	for i, m := range s.ready {
		eps[i] = m.ep
	}
	return eps
}

func (s *Service) add(ep *Endpoint, ready, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.members, func(m *member) bool { return m.ep == ep }) {
		return
	}
	m := &member{service: s, ep: ep, figures: s.keep(ep.Key())}
	m.hash = hash(ep.Key())
	s.members = append(s.members, m)
	if ready {
		s.enter(m, fresh)
	}
}

func (s *Service) setReady(ep *Endpoint, ready, fresh bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.members {
		switch {
		case m.ep != ep:
		case ready:
			s.enter(m, fresh)
		default:
			s.leave(m)
		}
	}
}

func (s *Service) remove(ep *Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = slices.DeleteFunc(s.members, func(m *member) bool {
		if m.ep == ep {
			s.leave(m)
		}
		return m.ep == ep
	})
}

// enter makes a member ready to receive calls.
func (s *Service) enter(m *member, fresh bool) {
	hash, inFlight := m.hash, m.inFlight
	m.standing = standing{hash: hash, inFlight: inFlight, turn: s.turn + s.rand.Float64()}
	if fresh {
		m.warmAt = s.clock() + slowStart
	}
	m.ready = true
	s.ready = append(s.ready, m)
	s.release()
}

func (s *Service) leave(m *member) {
	m.ready = false
	s.ready = slices.DeleteFunc(s.ready, func(r *member) bool { return r == m })
}

// retire marks the service as no longer offered, which ends the wait of its calls, or as offered again.
func (s *Service) retire(retired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = retired
	s.release()
}

// keepMost bounds the number of endpoints for which a service keeps separate figures.
const keepMost = 4096

// keep returns the figures of the endpoint with the key, which continue if the endpoint existed before.
func (s *Service) keep(key string) *figures {
	f := s.kept[key]
	if f != nil {
		return f
	}
	if len(s.kept) >= keepMost {
		present := make(map[*figures]bool, len(s.members))
		for _, m := range s.members {
			present[m.figures] = true
		}
		for key, f := range s.kept {
			if !present[f] && f.inFlight == 0 {
				s.past.Add(f.read())
				delete(s.kept, key)
			}
		}
	}
	f = &figures{}
	s.kept[key] = f
	return f
}
