// Package services is the registry of services: who offers which gRPC service, and who gets the next call of it.
//
// A [Service] is a name such as "proto.MyBusinessService". An [Endpoint] is an address that serves one or more of
// them: a worker of ours, or something registered from outside. A call takes a [Lease] on an endpoint and ends it with
// what came of the call, from which balancing, ejection and figures follow.
//
// All methods may be called from any goroutine and none blocks, so that the goroutines which relay frames can call them.
//
// # How an endpoint is chosen
//
// By the service's [Policy], among the endpoints that are ready. One that has failed several times in a row is ejected
// for a while; one that has just been started gets its share step by step. What a choice depends on is in balance.go
// and ejection.go, in functions that know neither a clock nor a lock.
//
// # Hazards
//
//   - A lease that is not ended keeps its endpoint from draining, and so a worker from being stopped before its grace
//     is over.
//   - An endpoint that was removed does not come back: make a new one.
package services

import (
	"container/list"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var (
	// ErrNotReady means that no endpoint can take the call now, but one may soon: see [Service.Wait].
	ErrNotReady = errors.New("no endpoint is ready")
	// ErrHopeless means that none is ready, and that none will be by waiting. What wraps it says why.
	ErrHopeless = errors.New("no endpoint can become ready")
	// ErrBusy means that as many calls are under way, or wait, as may.
	ErrBusy = errors.New("too many calls are under way")
)

// maxWaiting bounds the calls of a service that wait for an endpoint.
const maxWaiting = 1024

// Options configure a [Registry]; the zero value works.
type Options struct {
	// Policies of services by name; "*" is that of all others, and gives a named one what it leaves open.
	Policies map[string]Policy
	// Hopeless tells why no endpoint of the service can become ready by waiting, nil while one may. It is called with
	// no lock held, when a call finds none ready. Nil: there is always hope.
	Hopeless func(service string) error
	// Rand is the source of chance; nil means a seeded one.
	Rand *rand.Rand
	// Log gets a line for each ejection; nil discards them.
	Log *slog.Logger
}

// Registry knows who offers what.
type Registry struct {
	opts Options

	// services is replaced as a whole, so that a call finds its service without a lock.
	services atomic.Pointer[map[string]*Service]

	mu        sync.Mutex // taken before that of a service
	rand      *rand.Rand
	offers    map[string][]string           // owner → names, see Offer
	endpoints map[*Endpoint]map[string]bool // names that each is under
	offered   map[string]int                // how many of both there are of a name
	retired   []*Service                    // that nobody offers any more, the last of them last

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
		offers: make(map[string][]string), endpoints: make(map[*Endpoint]map[string]bool),
		offered: make(map[string]int), watchers: make(map[chan struct{}]struct{}),
	}
	r.services.Store(&map[string]*Service{})
	return r
}

// Service returns the service of that full name, nil where nobody offers it.
func (r *Registry) Service(name string) *Service { return (*r.services.Load())[name] }

// Offer says that owner offers these services, also while it has no endpoint that is ready: then calls wait for one.
// It takes the place of what was said of the owner before; no names take it back.
func (r *Registry) Offer(owner string, names ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(r.offers[owner], names) {
		return
	}
	before := r.offers[owner]
	if r.offers[owner] = slices.Clone(names); len(names) == 0 {
		delete(r.offers, owner)
	}
	r.settle(names, before)
	r.Changed()
}

// Add publishes an endpoint that is ready under each of the services that it offers. For one that is there already
// names are added; whether it is ready stays.
func (r *Registry) Add(ep *Endpoint, names ...string) { r.add(ep, true, names) }

// AddIdle is Add for an endpoint that is not ready until [Registry.SetReady] says so.
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
	r.settle(added, nil)
	for _, name := range added {
		r.Service(name).add(ep, ep.ready, !ep.Warm)
	}
	r.Changed()
}

// SetReady says whether calls may go to the endpoint. One that is back begins slowly.
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

// Withdraw takes an endpoint out of these services; calls under way go on. It stays under its other names, if only to
// be drained: see [Registry.Remove].
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
	r.settle(nil, gone)
	r.Changed()
}

// Remove takes an endpoint out of all services, for good. It gets nothing new from then on; calls under way go on, and
// [Endpoint.Drained] tells when the last has ended.
func (r *Registry) Remove(ep *Endpoint) {
	r.mu.Lock()
	r.withdraw(ep, slices.Collect(maps.Keys(r.endpoints[ep])))
	delete(r.endpoints, ep)
	r.mu.Unlock()
	ep.remove()
}

// Reconsider has those who wait look whether there is still hope: what Options.Hopeless depends on has changed.
func (r *Registry) Reconsider() {
	for _, s := range *r.services.Load() {
		s.mu.Lock()
		s.release()
		s.mu.Unlock()
	}
}

// settle makes the services those that somebody offers, after some are offered once more and some once less. It is
// called with r.mu held, and does not tell who watches: the caller has more to change.
func (r *Registry) settle(more, less []string) {
	old := *r.services.Load()
	settled := old
	changed := false
	change := func() {
		if !changed {
			changed, settled = true, maps.Clone(old)
		}
	}
	for _, name := range more {
		if r.offered[name]++; settled[name] == nil {
			change()
			settled[name] = r.begin(name)
		}
	}
	var retired []*Service
	for _, name := range less {
		if r.offered[name]--; r.offered[name] == 0 {
			delete(r.offered, name)
			change()
			retired = append(retired, settled[name])
			delete(settled, name)
		}
	}
	if changed {
		r.services.Store(&settled)
	}
	for _, s := range retired {
		s.retire(true)
		r.retired = append(r.retired, s)
	}
	r.retired = slices.Delete(r.retired, 0, max(0, len(r.retired)-keepRetired))
}

// begin returns the service of that name: the one that was there before, where it is kept, so that what was counted of
// it does not begin at 0 again.
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

// Policy is that of the service of that name, also where nobody offers it.
func (r *Registry) Policy(name string) Policy {
	return r.opts.Policies[name].or(r.opts.Policies["*"])
}

// Service is what endpoints offer under one name.
type Service struct {
	registry *Registry
	name     string
	policy   Policy
	epoch    time.Time // what its clock counts from

	mu       sync.Mutex
	rand     *rand.Rand
	members  []*member
	ready    []*member // those that are
	turn     float64   // see balance.go
	inFlight int
	budget   budget
	retired  bool // nobody offers it any more

	paused    atomic.Int64 // see Paused
	waiting   list.List    // of func()
	releasing bool         // a goroutine calls those who wait
	again     bool         // and is to look once more before it ends

	kept map[string]*figures // of endpoints, present or gone, by Endpoint.Key
	past Figures             // of those that are not kept any more
}

// member is an endpoint as one of a service.
type member struct {
	service *Service
	ep      *Endpoint
	standing
	figures *figures
	ready   bool
}

// Name is the full name, as it stands in a method's path.
func (s *Service) Name() string { return s.name }

// Policy of the service.
func (s *Service) Policy() *Policy { return &s.policy }

// clock is how long the service has been there.
func (s *Service) clock() time.Duration { return time.Since(s.epoch) }

// Endpoints returns those that are ready.
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

// enter lets a member have calls.
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

// retire has those end their wait who wait for what nobody offers any more, or takes that back.
func (s *Service) retire(retired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = retired
	s.release()
}

// Lease chooses an endpoint for a call, and is the right to send it there. key is the value of the policy's affinity,
// "" where the call has none; none of tried is given. It fails with [ErrNotReady], [ErrHopeless] or [ErrBusy].
func (s *Service) Lease(key string, tried ...*Endpoint) (Lease, error) {
	now := s.clock()
	s.mu.Lock()
	if s.full() {
		s.mu.Unlock()
		return Lease{}, ErrBusy
	}
	m := s.choose(key, tried, now)
	if m == nil {
		s.mu.Unlock()
		if err := s.hopeless(); err != nil {
			return Lease{}, err
		}
		return Lease{}, ErrNotReady
	}
	m.inFlight++
	m.figures.inFlight++
	s.inFlight++
	m.ep.leases.Add(1)
	s.mu.Unlock()
	return Lease{member: m, began: now}, nil
}

// full tells that the service's limit is reached.
func (s *Service) full() bool { return s.policy.MaxInFlight > 0 && s.inFlight >= s.policy.MaxInFlight }

// hopeless says why waiting is of no use, nil where it may be. It is called without s.mu.
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

// Retry tells whether the service's budget of second tries allows one more now, and takes it.
func (s *Service) Retry() bool {
	now := s.clock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget.retry(now)
}

// Lease is the right to send one call to an endpoint. The zero value is none.
type Lease struct {
	member *member
	began  time.Duration // on the service's clock
}

// Endpoint that the call goes to, nil for the zero value.
func (l Lease) Endpoint() *Endpoint {
	if l.member == nil {
		return nil
	}
	return l.member.ep
}

// Outcome is what came of a call at an endpoint.
type Outcome struct {
	// Code is the gRPC status, as the endpoint said it or as the relay had to make it up.
	Code uint32
	// Failed: the endpoint is to blame: it could not be reached, broke off, or answered what is no gRPC.
	Failed bool
	// Retried: the call goes on, at another endpoint or once more at this one.
	Retried bool
	// Unseen: nothing of the call can have reached the endpoint, and the call goes on or was given up before. It is not
	// counted as one of its calls, and not in the retry budget.
	Unseen bool
}

// End gives the lease back. It must be called exactly once.
func (l Lease) End(o Outcome) {
	m := l.member
	if m == nil {
		return
	}
	s := m.service
	now := s.clock()
	if !o.Unseen {
		m.figures.ended(o, now-l.began)
	}
	var ejected time.Duration
	s.mu.Lock()
	if !o.Retried && !o.Unseen {
		s.budget.call(now)
	}
	m.inFlight--
	m.figures.inFlight--
	s.inFlight--
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
		s.registry.opts.Log.Warn("endpoint ejected", "service", s.name, "address", m.ep.Address, "worker", m.ep.Worker, "failures", ejectAfter, "for", ejected)
		s.registry.Changed()
	}
}

// answered tells that the outcome is the endpoint's own word, and so a sign of life: a call that was given up, or whose
// time ran out, may have been given up because the endpoint hangs.
func (o Outcome) answered() bool {
	const cancelled, deadlineExceeded = 1, 4
	return !o.Failed && !o.Unseen && o.Code != cancelled && o.Code != deadlineExceeded
}

// failed counts a failure, and returns for how long the endpoint is ejected, 0 where it is not.
func (s *Service) failed(m *member, now time.Duration) time.Duration {
	if m.ejected(now) {
		return 0 // a call that began before
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
