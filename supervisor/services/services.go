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
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
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

// New returns an empty registry.
func New(opts Options) *Registry {
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

// Watch returns a channel that receives a value after each change of the offered services or of readiness. Changes
// that occur before the value is received share it. stop ends the watch.
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

// Changed notifies all watchers. It may also be called for a change of state that is kept outside of the registry.
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

// keepRetired bounds the number of services that are kept for their figures when they are no longer offered.
const keepRetired = 256

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
