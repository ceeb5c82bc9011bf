package services

import (
	"fmt"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
)

// Pick chooses an endpoint for a call and returns the right to send the call there. client is the caller. key is
// the value of the policy's affinity key, or "" if the call has none. Pick never chooses an endpoint in tried. It
// returns [ErrNotReady], [ErrHopeless] or [ErrBusy] if it finds none.
func (s *Service) Pick(client fair.Client, key string, tried ...*Endpoint) (Pick, error) {
	now := s.clock()
	s.mu.Lock()
	if s.verdict(client, 0, fair.Held{}) != fair.Granted {
		s.mu.Unlock()
		return Pick{}, ErrBusy
	}
	m := s.choose(key, tried, now)
	if m == nil {
		s.mu.Unlock()
		if err := s.hopeless(); err != nil {
			return Pick{}, err
		}
		return Pick{}, ErrNotReady
	}
	m.inFlight++
	m.figures.inFlight++
	s.inFlight++
	m.ep.picks.Add(1)
	var share *fair.Share
	if s.policy.MaxInFlight > 0 {
		share = s.shares.Of(client)
		share.Take()
	}
	s.mu.Unlock()
	return Pick{member: m, began: now, share: share}, nil
}

// full reports whether the service's limit is reached.
func (s *Service) full() bool { return s.policy.MaxInFlight > 0 && s.inFlight >= s.policy.MaxInFlight }

// verdict reports whether the client may have one more call in flight. before is the number of calls that are to
// begin earlier, and own counts those of them that belong to the client. The caller holds s.mu.
func (s *Service) verdict(client fair.Client, before int, own fair.Held) fair.Verdict {
	limit := s.policy.MaxInFlight
	if limit <= 0 {
		return fair.Granted
	}
	held := s.shares.Of(client).Held()
	held.Peer += own.Peer
	held.Conn += own.Conn
	return held.May(limit-s.inFlight-before, limit)
}

// hopeless returns the reason why waiting cannot help, or nil if it may. The caller must not hold s.mu.
func (s *Service) hopeless() error {
	s.mu.Lock()
	retired := s.retired
	s.mu.Unlock()
	if retired {
		return fmt.Errorf("%w: nobody offers %s any more", ErrHopeless, s.name)
	}
	if s.registry.opts.Hopeless == nil {
		return nil
	}
	if err := s.registry.opts.Hopeless(s.name); err != nil {
		return fmt.Errorf("%w: %w", ErrHopeless, err)
	}
	return nil
}

// Retry reports whether the service's retry budget allows one more retry now, and takes it.
func (s *Service) Retry() bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget.retry(now)
}

// Pick is the right to send one call to an endpoint. The zero value has no endpoint.
type Pick struct {
	member *member
	began  time.Duration // on the service's clock
	share  *fair.Share   // nil if the policy has no limit
}

// Endpoint returns the endpoint for the call, or nil for the zero value.
func (p Pick) Endpoint() *Endpoint {
	if p.member == nil {
		return nil
	}
	return p.member.ep
}

// End ends the pick. It must be called exactly once.
func (p Pick) End(o Outcome) {
	m := p.member
	if m == nil {
		return
	}
	s := m.service
	now := s.clock()
	if !o.Unseen {
		m.figures.ended(o, now-p.began)
	}
	var ejected time.Duration
	s.mu.Lock()
	if !o.Retried && !o.Unseen {
		s.budget.call(now)
	}
	m.inFlight--
	m.figures.inFlight--
	s.inFlight--
	if p.share != nil {
		p.share.Release()
	}
	switch {
	case o.Failed:
		ejected = s.failed(m, now)
	case o.answered():
		m.failures = 0
	}
	if s.waiting.Len() > 0 {
		s.release()
	}
	s.mu.Unlock()
	m.ep.release()
	if ejected > 0 {
		s.registry.opts.Log.Warn("endpoint ejected", "service", s.name,
			"address", m.ep.Address, "worker", m.ep.Worker, "failures", ejectAfter, "duration", ejected)
		s.registry.Changed()
	}
}

// failed counts a failure. It returns the time for which the endpoint is now ejected, or 0 if it is not.
func (s *Service) failed(m *member, now time.Duration) time.Duration {
	if m.ejected(now) {
		return 0 // a call that began before the ejection
	}
	m.failures++
	if m.failures < ejectAfter || !m.ready {
		return 0
	}
	out := 0
	for _, r := range s.ready {
		if r.ejected(now) {
			out++
		}
	}
	if !mayEject(len(s.ready), out) {
		return 0
	}
	m.figures.ejections.Add(1)
	return m.eject(now)
}
