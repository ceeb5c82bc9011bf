package services

import (
	"math"
	"slices"
	"time"
)

const (
	// slowStart is the time in which the share of a fresh endpoint grows to its full size.
	slowStart = 10 * time.Second
	// leastWeight is the weight at the beginning of slowStart.
	leastWeight = 0.1

	// boundedLoad is the multiple of the average load up to which affinity sends calls to an endpoint.
	boundedLoad = 1.25
	// fewCalls in flight never exceed the bound of affinity. Otherwise two calls of one session would go to different
	// endpoints on an idle service.
	fewCalls = 4
)

// standing is the part of a member's state that balancing depends on.
type standing struct {
	hash     uint64 // of the member's key
	inFlight int
	// turn orders members that are otherwise equal: the lowest is next. Each call adds 1, or more for a member that
	// gets less than a full share.
	turn   float64
	warmAt time.Duration // the time at which its weight reaches 1

	failures     int // in a row
	ejectedUntil time.Duration
	ejections    int // see eject
}

// weight returns the member's weight, from leastWeight to 1.
func (m *standing) weight(now time.Duration) float64 {
	left := m.warmAt - now
	if left <= 0 {
		return 1
	}
	return max(leastWeight, 1-float64(left)/float64(slowStart))
}

func (m *standing) ejected(now time.Duration) bool { return m.ejectedUntil > now }

// choose returns the member for the next call, or nil if none can take it.
func (s *Service) choose(key string, tried []*Endpoint, now time.Duration) *member {
	q := question{now: now, tried: tried, inFlight: s.inFlight}
	if s.policy.Balance == Affinity && key != "" {
		q.keyed, q.key = true, hash(key)
	}
	m := q.pick(s.policy.Balance, s.ready)
	if m == nil {
		// An ejected endpoint is better than none.
		q.evenEjected = true
		if m = q.pick(s.policy.Balance, s.ready); m == nil {
			return nil
		}
	}
	s.turn = max(s.turn, m.turn)
	m.turn = s.turn + 1/m.weight(now)
	return m
}

// question describes a call that needs an endpoint.
type question struct {
	now         time.Duration
	tried       []*Endpoint
	evenEjected bool
	keyed       bool
	key         uint64
	inFlight    int // at all members together
}

func (q question) pick(b Balance, ready []*member) *member {
	switch {
	case q.keyed:
		return q.closest(ready)
	case b == RoundRobin:
		return q.next(ready)
	}
	return q.idlest(ready)
}

func (q question) takes(m *member) bool {
	return (q.evenEjected || !m.ejected(q.now)) && (len(q.tried) == 0 || !slices.Contains(q.tried, m.ep))
}

// idlest returns the member with the fewest calls in flight relative to its weight. Among equals it returns the
// one with the lowest turn.
func (q question) idlest(ready []*member) *member {
	var best *member
	var least float64
	for _, m := range ready {
		if !q.takes(m) {
			continue
		}
		load := float64(m.inFlight)
		if m.warmAt > q.now {
			load /= m.weight(q.now)
		}
		if best == nil || load < least || load == least && m.turn < best.turn {
			best, least = m, load
		}
	}
	return best
}

// next returns the member with the lowest turn.
func (q question) next(ready []*member) *member {
	var best *member
	for _, m := range ready {
		if q.takes(m) && (best == nil || m.turn < best.turn) {
			best = m
		}
	}
	return best
}

// closest returns the member that the key belongs to. Each key ranks the members in an order of its own, which
// does not change when other members come and go (rendezvous hashing). closest skips a member whose calls in
// flight exceed the bound, and takes the next one in that order.
func (q question) closest(ready []*member) *member {
	var best, fallback *member
	var most, mostAnyway uint64
	average := float64(q.inFlight+1) / float64(max(1, len(ready)))
	bound := max(fewCalls, int(math.Ceil(boundedLoad*average)))
	for _, m := range ready {
		if !q.takes(m) {
			continue
		}
		rank := mix(q.key ^ m.hash)
		if fallback == nil || rank > mostAnyway {
			fallback, mostAnyway = m, rank
		}
		room := bound
		if m.warmAt > q.now {
			room = max(1, int(math.Ceil(float64(bound)*m.weight(q.now))))
		}
		if m.inFlight < room && (best == nil || rank > most) {
			best, most = m, rank
		}
	}
	if best == nil {
		return fallback // the members below the bound were tried or ejected, or are warming up
	}
	return best
}

// hash returns the same value in each run of the program, so that a key finds its endpoint after a restart as
// well. It is FNV-1a followed by mix.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix spreads each bit over all others: the finalizer of SplitMix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}
