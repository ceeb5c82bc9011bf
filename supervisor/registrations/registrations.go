// Package registrations manages the endpoints that run outside of the master's workers and are registered with it. A
// registration is durable; heartbeats are not written, so each registration gets a fresh ttl when a master starts.
// Each address is pinged, and gets calls for its registered services while it answers.
package registrations

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/probe"
	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// Max limits the registered endpoints, each counted once per service.
	Max = 1000
	// firstAnswer limits the wait of a registration for the endpoint's first answer.
	firstAnswer = 2 * time.Second
	// listTimeout limits the query for an endpoint's services.
	listTimeout = 2 * time.Second
	// drainTime limits the wait for the calls in flight of an endpoint that is removed.
	drainTime = 5 * time.Second
)

// Options configure a [Set].
type Options struct {
	Store    *store.DB          // records the registrations
	Services *services.Registry // gets the endpoints
	Checks   *probe.Scheduler   // checks them
	Log      *slog.Logger
	// Hurry is closed to end the wait for calls in flight.
	Hurry <-chan struct{}
	// Dial connects to an address; nil means [Dial].
	Dial func(address string) (Prober, error)
}

// Set is the set of registered endpoints. Each address is pinged once an interval, regardless of its services. Its
// methods may be called from any goroutine.
type Set struct {
	store    *store.DB
	services *services.Registry
	log      *slog.Logger
	hurry    <-chan struct{}
	dial     func(address string) (Prober, error)
	checks   *probe.Scheduler
	health   probe.Policy

	// durable is held during a change of the records, including the write to disk.
	durable sync.Mutex

	mu      sync.Mutex
	at      map[string]*target // by address
	count   int                // of registrations
	pinging context.Context    // nil while no endpoint is pinged
	stop    context.CancelFunc // ends pinging
	work    context.Context    // ends when the shutdown must not wait any longer
	helpers sync.WaitGroup
	wake    chan struct{} // one token: the next expiry may be earlier than computed
}

// target is the address of registered endpoints.
type target struct {
	address string
	names   map[string]*registration
	// Only set while the address is pinged:
	endpoint *services.Endpoint
	prober   Prober
	check    *probe.Check
	first    chan struct{} // closed after the first Ping

	ready  bool
	reason string
	missed int
	pings  int // answered
	// reflects reports whether its reflection has listed its services; they are in listed.
	reflects bool
	listed   []string
}

// probedBy returns the probe method, "" while the address is not pinged.
func (x *target) probedBy() string {
	if x.prober == nil {
		return ""
	}
	return x.prober.Method().String()
}

// has reports whether the address offers a service, as far as its reflection shows.
func (x *target) has(service string) bool {
	return !x.reflects || slices.Contains(x.listed, service)
}

type registration struct {
	records.Registration
	expires time.Time // zero: never
	// The last change was not recorded, or not for certain: the record may differ or be missing.
	unsure bool
}

// New returns an empty set, which pings no address until [Set.Start].
func New(opts Options) *Set {
	if opts.Dial == nil {
		opts.Dial = Dial
	}
	return &Set{
		store: opts.Store, services: opts.Services, log: opts.Log, hurry: opts.Hurry, dial: opts.Dial,
		checks: opts.Checks, health: probe.DefaultPolicy(), at: make(map[string]*target), wake: make(chan struct{}, 1),
	}
}

// Restore adds the recorded registrations. From now on, calls wait for their endpoints.
func (s *Set) Restore(recorded []records.Registration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range recorded {
		if err := check(r); err != nil {
			s.log.Error("endpoint unusable", "error", err)
			continue
		}
		s.add(r)
	}
	s.offer()
}

// offer registers the services that the addresses offer, whether they are ready or not.
func (s *Set) offer() {
	names := map[string]bool{}
	for _, x := range s.at {
		for name := range x.names {
			if x.has(name) {
				names[name] = true
			}
		}
	}
	s.services.Offer(services.Registered, slices.Sorted(maps.Keys(names))...)
}

// add adds a registration and returns its address. The caller holds s.mu.
func (s *Set) add(r records.Registration) *target {
	x := s.at[r.Address]
	if x == nil {
		x = &target{address: r.Address, names: make(map[string]*registration)}
		s.at[r.Address] = x
	}
	if x.names[r.Service] == nil {
		s.count++
	}
	x.names[r.Service] = &registration{Registration: r}
	s.extend(x.names[r.Service])
	return x
}

// extend gives a registration a fresh ttl.
func (s *Set) extend(r *registration) {
	if r.TTL > 0 {
		r.expires = time.Now().Add(r.TTL)
	}
}

// Start pings the registered addresses until [Set.Stop]. The end of ctx cuts short the wait in Stop. Endpoints that
// an earlier master has recorded count as ready until their first Ping: a crash of the master says nothing about them.
// If they miss that one, they are not ready until they answer. Later ones are counted.
func (s *Set) Start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.work = ctx
	s.pinging, s.stop = context.WithCancel(ctx)
	for _, x := range s.at {
		for _, r := range x.names {
			s.extend(r)
		}
		if err := s.open(x, true); err != nil {
			s.log.Error("endpoint not reachable", "address", x.address, "error", err)
		}
	}
	pinging := s.pinging
	s.helpers.Go(func() { s.expire(pinging) })
}

// open publishes an address and begins to ping it. The caller holds s.mu.
func (s *Set) open(x *target, ready bool) error {
	p, err := s.dial(x.address)
	if err != nil {
		return err
	}
	x.prober, x.first = p, make(chan struct{})
	x.ready, x.missed, x.reason = ready, 0, "it has not answered yet"
	x.endpoint = &services.Endpoint{Address: x.address, Conn: p.GRPC(), Warm: ready}
	names := slices.Sorted(maps.Keys(x.names))
	crashpoint.Pass(crashpoint.OutsidePublish, func() {
		if ready {
			s.services.Add(x.endpoint, names...)
		} else {
			s.services.AddIdle(x.endpoint, names...)
		}
	})
	x.check = s.checks.Add(s.health, p.Ping, s.onPinged(x, p, x.first))
	x.check.Now()
	return nil
}

// close stops the Pings and withdraws the endpoint. The connection remains for calls in flight. The caller holds
// s.mu.
func (s *Set) close(x *target) {
	if x.endpoint == nil {
		return
	}
	x.check.Stop()
	ep, p, work := x.endpoint, x.prober, s.work
	x.endpoint, x.prober = nil, nil
	crashpoint.Pass(crashpoint.OutsideWithdraw, func() { s.services.Remove(ep) })
	s.helpers.Go(func() {
		over := time.NewTimer(drainTime)
		defer over.Stop()
		select {
		case <-ep.Drained():
		case <-over.C:
		case <-s.hurry:
		case <-work.Done():
		}
		if err := p.Close(); err != nil {
			s.log.Debug("endpoint connection not closed cleanly", "address", x.address, "error", err)
		}
	})
}

// Stop withdraws all endpoints and waits until the calls in flight have ended, for a limited time.
func (s *Set) Stop() {
	s.mu.Lock()
	if s.pinging != nil {
		s.stop()
		s.pinging = nil
		for _, x := range s.at {
			s.close(x)
		}
	}
	s.mu.Unlock()
	s.helpers.Wait()
}

// remove removes registrations. The caller holds s.mu.
func (s *Set) remove(gone []records.Registration) {
	if len(gone) == 0 {
		return
	}
	for _, r := range gone {
		x := s.at[r.Address]
		delete(x.names, r.Service)
		s.count--
		if x.endpoint != nil {
			crashpoint.Pass(crashpoint.OutsideWithdraw, func() { s.services.Withdraw(x.endpoint, r.Service) })
		}
		if len(x.names) == 0 {
			delete(s.at, r.Address)
			s.close(x)
		}
	}
	s.offer()
	s.services.Reconsider()
}

// publish routes the services that an address has to it, and no others. The caller holds s.mu.
func (s *Set) publish(x *target) {
	if x.endpoint == nil {
		return
	}
	var has, lacks []string
	for name := range x.names {
		if x.has(name) {
			has = append(has, name)
		} else {
			lacks = append(lacks, name)
		}
	}
	crashpoint.Pass(crashpoint.OutsidePublish, func() {
		s.services.Add(x.endpoint, has...)
		s.services.Withdraw(x.endpoint, lacks...)
	})
	s.offer()
}

// Offers reports whether a registered endpoint offers the service.
func (s *Set) Offers(service string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.at {
		if x.names[service] != nil && x.has(service) {
			return true
		}
	}
	return false
}

func describe(r records.Registration) string { return r.Service + " at " + r.Address }
