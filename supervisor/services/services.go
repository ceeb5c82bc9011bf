// Package services is the registry of gRPC services: it knows which endpoints offer a service, and chooses the
// endpoint for each call.
//
// A [Service] is a name such as "proto.MyBusinessService". An [Endpoint] is an address that serves one or more
// services: a worker of this master, or a registered endpoint. A call gets a [Pick] of an endpoint and ends it
// with an [Outcome], on which balancing, ejection and figures are based.
//
// All methods may be called from any goroutine. None blocks, so that the goroutines that relay frames can call
// them.
//
// # How an endpoint is chosen
//
// The service's [Policy] chooses among the ready endpoints. An endpoint that has failed several times in a row is
// ejected for a while; the share of an endpoint that has just been started grows step by step. The decisions are
// in balance.go and ejection.go, in functions that use neither a clock nor a lock.
//
// # Hazards
//
//   - A pick that is not ended keeps its endpoint from draining, and so keeps a worker from being stopped before its
//     grace period is over.
//   - A removed endpoint cannot be added again: make a new one.
package services

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
)

var (
	// ErrNotReady is returned if no endpoint can take the call now, but one may soon: see [Service.Wait].
	ErrNotReady = errors.New("no endpoint is ready")
	// ErrHopeless is returned if no endpoint is ready and waiting cannot help. Errors that wrap it give the reason.
	ErrHopeless = errors.New("no endpoint can become ready")
	// ErrBusy is returned if the limit of calls in flight, or of waiting calls, is reached: for all clients together,
	// or for this one.
	ErrBusy = errors.New("too many calls are under way")
)

// maxWaiting bounds the number of calls of a service that wait for an endpoint.
const maxWaiting = 1024

// Options configure a [Registry]; the zero value works.
type Options struct {
	// Policies of services by name. "*" is the policy of all other services, and the default for unset fields of a
	// named one.
	Policies map[string]Policy
	// Hopeless returns the reason why waiting cannot make an endpoint of the service ready, or nil if it may. It is
	// called with no lock held, when a call finds no ready endpoint. If Hopeless is nil, waiting is never hopeless.
	Hopeless func(service string) error
	// Rand is the source of randomness; nil means a seeded one.
	Rand *rand.Rand
	// Log receives a line for each ejection; nil discards them.
	Log *slog.Logger
}

// Registry records which endpoints offer which services.
type Registry struct {
	opts Options

	// services is replaced as a whole, so that a call finds its service without a lock.
	services atomic.Pointer[map[string]*Service]

	mu        sync.Mutex // taken before that of a service
	rand      *rand.Rand
	offers    map[Owner][]string            // names by owner, see Offer
	endpoints map[*Endpoint]map[string]bool // the names under which each is registered
	offered   map[string]int                // number of offers and endpoints by name
	retired   []*Service                    // services that are no longer offered, the latest last

	watching sync.Mutex
	watchers map[chan struct{}]struct{}
}

// New returns an empty registry with the default [Options].
func New() *Registry { return With(Options{}) }

// With returns an empty registry.
func With(opts Options) *Registry {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Rand == nil {
		opts.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	r := &Registry{
		opts: opts, rand: opts.Rand,
		offers: make(map[Owner][]string), endpoints: make(map[*Endpoint]map[string]bool),
		offered: make(map[string]int), watchers: make(map[chan struct{}]struct{}),
	}
	r.services.Store(&map[string]*Service{})
	return r
}

// Service returns the service with the full name, or nil if it is not offered.
func (r *Registry) Service(name string) *Service { return (*r.services.Load())[name] }

// Owner is one source of declarations to [Registry.Offer].
type Owner string

// Registered owns the offers of all registered endpoints.
const Registered Owner = "registered"

// OfWorker returns the owner of a worker's offers.
func OfWorker(id string) Owner { return Owner("worker/" + id) }

// OfUnit returns the owner of the offers of a unit, which are declared until its workers are known.
func OfUnit(name string) Owner { return Owner("unit/" + name) }

// Offer declares that owner offers the services, even while it has no ready endpoint: calls then wait for one. It
// replaces an earlier declaration of owner; without names it withdraws that.
func (r *Registry) Offer(owner Owner, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(r.offers[owner], names) {
		return
	}
	before := r.offers[owner]
	if r.offers[owner] = slices.Clone(names); len(names) == 0 {
		delete(r.offers, owner)
	}
	r.updateOffers(names, before)
	r.Changed()
}

// Add registers a ready endpoint under each of the services that it offers. If the endpoint is registered already,
// Add adds the names and does not change its readiness.
func (r *Registry) Add(ep *Endpoint, names ...string) { r.add(ep, true, names) }

// AddIdle is like Add for an endpoint that is not ready until [Registry.SetReady] is called.
func (r *Registry) AddIdle(ep *Endpoint, names ...string) { r.add(ep, false, names) }

func (r *Registry) add(ep *Endpoint, ready bool, names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endpoints[ep] == nil {
		r.endpoints[ep] = make(map[string]bool)
		ep.ready = ready
	}
	var added []string
	for _, name := range names {
		if !r.endpoints[ep][name] {
			r.endpoints[ep][name] = true
			added = append(added, name)
		}
	}
	r.updateOffers(added, nil)
	for _, name := range added {
		r.Service(name).add(ep, ep.ready, !ep.Warm)
	}
	r.Changed()
}

// SetReady sets whether calls may go to the endpoint. An endpoint that becomes ready again starts with a small
// share.
func (r *Registry) SetReady(ep *Endpoint, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endpoints[ep] == nil || ep.ready == ready {
		return
	}
	ep.ready = ready
	for name := range r.endpoints[ep] {
		r.Service(name).setReady(ep, ready, true)
	}
	r.Changed()
}

// Withdraw removes an endpoint from the services; calls in flight continue. The endpoint stays registered, even
// without names, until [Registry.Remove] is called.
func (r *Registry) Withdraw(ep *Endpoint, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.withdraw(ep, names)
}

func (r *Registry) withdraw(ep *Endpoint, names []string) {
	var gone []string
	for _, name := range names {
		if r.endpoints[ep][name] {
			delete(r.endpoints[ep], name)
			r.Service(name).remove(ep)
			gone = append(gone, name)
		}
	}
	r.updateOffers(nil, gone)
	r.Changed()
}

// Remove removes an endpoint from all services for good. The endpoint gets no new calls; calls in flight continue,
// and [Endpoint.Drained] is closed when the last one has ended.
func (r *Registry) Remove(ep *Endpoint) {
	r.mu.Lock()
	r.withdraw(ep, slices.Collect(maps.Keys(r.endpoints[ep])))
	delete(r.endpoints, ep)
	r.mu.Unlock()
	ep.remove()
}

// Reconsider makes the waiting calls check again whether waiting is hopeless. Call it when the result of
// Options.Hopeless may have changed.
func (r *Registry) Reconsider() {
	for _, s := range *r.services.Load() {
		s.mu.Lock()
		s.release()
		s.mu.Unlock()
	}
}

// updateOffers updates the offer counts, up for the names in more and down for those in less, and makes the services
// match them. The caller holds r.mu, and calls Changed itself after its other changes.
func (r *Registry) updateOffers(more, less []string) {
	old := *r.services.Load()
	updated := old
	changed := false
	change := func() {
		if !changed {
			changed, updated = true, maps.Clone(old)
		}
	}
	for _, name := range more {
		if r.offered[name]++; updated[name] == nil {
			change()
			updated[name] = r.begin(name)
		}
	}
	var retired []*Service
	for _, name := range less {
		if r.offered[name]--; r.offered[name] == 0 {
			delete(r.offered, name)
			change()
			retired = append(retired, updated[name])
			delete(updated, name)
		}
	}
	if changed {
		r.services.Store(&updated)
	}
	for _, s := range retired {
		s.retire(true)
		r.retired = append(r.retired, s)
	}
	r.retired = slices.Delete(r.retired, 0, max(0, len(r.retired)-keepRetired))
}

// begin returns the service with the name. If an earlier one is still kept, begin returns that, so that its
// figures do not start again at 0.
func (r *Registry) begin(name string) *Service {
	i := slices.IndexFunc(r.retired, func(s *Service) bool { return s.name == name })
	if i < 0 {
		return r.newService(name)
	}
	s := r.retired[i]
	r.retired = slices.Delete(r.retired, i, i+1)
	s.retire(false)
	return s
}

func (r *Registry) newService(name string) *Service {
	return &Service{
		registry: r, name: name, policy: r.Policy(name), epoch: time.Now(),
		rand: rand.New(rand.NewPCG(r.rand.Uint64(), r.rand.Uint64())), kept: make(map[string]*figures),
	}
}

// Policy returns the policy of the service with the name, even if it is not offered.
func (r *Registry) Policy(name string) Policy {
	return r.opts.Policies[name].or(r.opts.Policies["*"])
}

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

// Outcome describes how a call at an endpoint ended.
type Outcome struct {
	// Code is the gRPC status code, from the endpoint or generated by the relay.
	Code uint32
	// Failed means that the endpoint is at fault: it could not be reached, broke the connection, or did not answer
	// with gRPC.
	Failed bool
	// Retried means that the call is retried, at another endpoint or at the same one.
	Retried bool
	// Unseen means that nothing of the call can have reached the endpoint, and that the call is retried or was given
	// up before. It is counted neither in the endpoint's figures nor in the retry budget.
	Unseen bool
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
			"address", m.ep.Address, "worker", m.ep.Worker, "failures", ejectAfter, "for", ejected)
		s.registry.Changed()
	}
}

// answered reports whether the outcome comes from the endpoint itself and so proves that it is alive. A call that
// was cancelled or timed out proves nothing: the endpoint may hang.
func (o Outcome) answered() bool {
	const cancelled, deadlineExceeded = 1, 4
	return !o.Failed && !o.Unseen && o.Code != cancelled && o.Code != deadlineExceeded
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
