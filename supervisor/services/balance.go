package services

import (
	"math"
	"slices"
	"time"
)

const (
	// slowStart is how long the share of a fresh endpoint grows.
	slowStart = 10 * time.Second
	// leastWeight is what it begins with.
	leastWeight = 0.1

	// boundedLoad is how many times the average an endpoint may have under way before affinity passes it over.
	boundedLoad = 1.25
	// fewCalls are never too many for affinity: else two calls of one session would be torn apart on an idle service.
	fewCalls = 4
)

// standing is what a member's chance of a call depends on.
type standing struct {
	hash     uint64 // of its key
	inFlight int
	// turn says who is next among equals: whoever has the lowest. Each call adds 1 to it, or more to one that is to
	// have less than its share.
	turn   float64
	warmAt time.Duration // when its share is whole

	failures     int // in a row
	ejectedUntil time.Duration
	ejections    int // see eject
}

// weight is the share that the member may have, from leastWeight to 1.
func (m *standing) weight(now time.Duration) float64 {
	left := m.warmAt - now
	if left <= 0 {
		return 1
	}
	return max(leastWeight, 1-float64(left)/float64(slowStart))
}

func (m *standing) ejected(now time.Duration) bool { return m.ejectedUntil > now }

// choose returns the member that the next call goes to, nil where none can take it.
func (s *Service) choose(key string, tried []*Endpoint, now time.Duration) *member {
	q := question{now: now, tried: tried, inFlight: s.inFlight}
	if s.policy.Balance == Affinity && key != "" {
		q.keyed, q.key = true, hash(key)
	}
	m := q.pick(s.policy.Balance, s.ready)
	if m == nil {
		// Better one that has failed than nobody.
		q.evenEjected = true
		if m = q.pick(s.policy.Balance, s.ready); m == nil {
			return nil
		}
	}
	s.turn = max(s.turn, m.turn)
	m.turn = s.turn + 1/m.weight(now)
	return m
}

// question is what is known of a call that wants an endpoint.
type question struct {
	now         time.Duration
	tried       []*Endpoint
	evenEjected bool
	keyed       bool
	key         uint64
	inFlight    int // at all members
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

// idlest returns the member with the fewest calls under way for its weight, among equals the one whose turn it is.
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

// next returns the member whose turn it is.
func (q question) next(ready []*member) *member {
	var best *member
	for _, m := range ready {
		if q.takes(m) && (best == nil || m.turn < best.turn) {
			best = m
		}
	}
	return best
}

// closest returns the member that the key belongs to: each key ranks the members in an order of its own, which does not
// change when others come and go (rendezvous hashing). Who has more than boundedLoad times the average under way is
// passed over, for the next in that order.
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
		return fallback // all that are left were tried, or are warming up
	}
	return best
}

// hash is the same in each run of the program, so that a key finds its endpoint also after a restart: FNV-1a.
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
