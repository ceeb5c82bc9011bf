package registrations

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/store/records"
)

var (
	// ErrTooMany means that the maximum number of endpoints is registered.
	ErrTooMany = errors.New("too many endpoints are registered")
	// ErrNotRegistered means that the endpoint is not registered, or that its registration has expired.
	ErrNotRegistered = errors.New("no such endpoint is registered")
)

// Endpoint is a registered endpoint as the running master sees it.
type Endpoint struct {
	records.Registration
	// Ready reports whether the endpoint answers, so that requests may go to it.
	Ready bool
	// Reason is why it is not ready, empty if it is.
	Reason string
	// Probe is the kind of health check: "ping", "grpc" or "tcp"; "" while there are none.
	Probe string
	// Expires is the time of its removal unless a heartbeat arrives; zero: never.
	Expires time.Time
}

// Register makes the master send calls of a service to an address that is not one of its workers, as soon as the
// address answers Pings. The registration is durable. If ttl is not 0, it must be renewed within each ttl by
// [Set.Heartbeat] or another Register.
//
// It returns the state of the endpoint after one Ping, and waits for that two seconds at most. The error wraps
// [ErrRegistration], [ErrTooMany], or an error of the store.
func (s *Set) Register(ctx context.Context, service, address string, ttl time.Duration) (Endpoint, error) {
	r := records.Registration{Service: service, Address: address, TTL: ttl, Registered: time.Now()}
	if err := check(r); err != nil {
		return Endpoint{}, err
	}
	first, err := s.register(ctx, r)
	if err != nil {
		return Endpoint{}, err
	}
	if first != nil {
		patience := time.NewTimer(firstAnswer)
		defer patience.Stop()
		select {
		case <-first:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	for _, known := range s.List() {
		if known.Service == service && known.Address == address {
			return known, nil
		}
	}
	return Endpoint{Registration: r}, nil // removed meanwhile
}

func (s *Set) register(ctx context.Context, r records.Registration) (first chan struct{}, err error) {
	s.durable.Lock()
	defer s.durable.Unlock()
	known, full := s.lookup(r)
	switch {
	case known != nil && known.TTL == r.TTL && !known.unsure:
		r.Registered = known.Registered // like a heartbeat: nothing to write
	case known == nil && full:
		return nil, fmt.Errorf("%w: %d at most: deregister some first", ErrTooMany, Max)
	default:
		muts := []records.Mutation{records.PutRegistration(r)}
		if known == nil {
			e := records.Event{
				Time: r.Registered, Type: eventtype.Registered, Detail: describe(r), Operator: operatorOf(ctx),
			}
			muts = append(muts, records.AppendEvent(e))
		}
		if err := s.record(ctx, crashpoint.RegisterRecord, []records.Registration{r}, muts...); err != nil {
			return nil, fmt.Errorf("record the registration: %w", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.add(r)
	s.offer()
	switch {
	case s.pinging == nil:
	case x.endpoint != nil:
		s.publish(x)
	default:
		if err := s.open(x, false); err != nil {
			return nil, fmt.Errorf("reach %s: %w", r.Address, err)
		}
		s.log.Info("endpoint registered", "service", r.Service, "address", r.Address)
	}
	s.look()
	return x.first, nil
}

// operatorOf returns the operator whose command line is executed with ctx. A program that registers itself is none.
func operatorOf(ctx context.Context) *records.Operator {
	if o := records.OperatorOf(ctx); o != nil && o.Command != "" {
		return o
	}
	return nil
}

// record makes a change of these registrations durable. It continues if the caller gives up, because the state in
// memory has to agree with the record. The caller holds s.durable.
func (s *Set) record(
	ctx context.Context, point crashpoint.Point, changed []records.Registration, muts ...records.Mutation,
) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := crashpoint.Do(point, func() error { return s.store.Apply(context.WithoutCancel(ctx), muts...) })
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range changed {
		if x := s.at[r.Address]; x != nil && x.names[r.Service] != nil {
			x.names[r.Service].unsure = true
		}
	}
	return err
}

func (s *Set) lookup(r records.Registration) (known *registration, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	full = s.count >= Max
	if x := s.at[r.Address]; x != nil && x.names[r.Service] != nil {
		found := *x.names[r.Service]
		known = &found
	}
	return known, full
}

// Deregister durably removes an endpoint from a service, or all registered endpoints if the address is empty, and
// returns the removed registrations. If there is none, it returns [ErrNotRegistered].
func (s *Set) Deregister(ctx context.Context, service, address string) ([]records.Registration, error) {
	s.durable.Lock()
	defer s.durable.Unlock()
	var gone []records.Registration
	var muts []records.Mutation
	for _, r := range s.List() {
		if r.Service == service && (address == "" || r.Address == address) {
			gone = append(gone, r.Registration)
			e := records.Event{
				Time: time.Now(), Type: eventtype.Deregistered, Detail: describe(r.Registration),
				Operator: operatorOf(ctx),
			}
			muts = append(muts, records.DeleteRegistration(r.Service, r.Address), records.AppendEvent(e))
		}
	}
	if len(gone) == 0 {
		return nil, ErrNotRegistered
	}
	if err := s.record(ctx, crashpoint.DeregisterRecord, gone, muts...); err != nil {
		return nil, fmt.Errorf("record the removal: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(gone)
	for _, r := range gone {
		s.log.Info("endpoint deregistered", "service", r.Service, "address", r.Address)
	}
	return gone, nil
}

// Heartbeat renews a registration and returns the time within which the next heartbeat must arrive; 0: none is
// needed. It is not written to disk. After [ErrNotRegistered], the endpoint has to be registered again.
func (s *Set) Heartbeat(service, address string) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.at[address]
	if x == nil || x.names[service] == nil {
		return 0, ErrNotRegistered
	}
	s.extend(x.names[service])
	return x.names[service].TTL, nil
}

// List returns the registered endpoints, sorted by service and address.
func (s *Set) List() []Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Endpoint, 0, s.count)
	for _, x := range s.at {
		for _, r := range x.names {
			reason := x.reason
			if reason == "" && !x.has(r.Service) {
				reason = "it does not offer the service: its reflection does not list it"
			}
			list = append(list, Endpoint{
				Registration: r.Registration, Ready: x.ready && x.has(r.Service),
				Reason: reason, Probe: x.probedBy(), Expires: r.expires,
			})
		}
	}
	slices.SortFunc(list, func(a, b Endpoint) int {
		return strings.Compare(describe(a.Registration), describe(b.Registration))
	})
	return list
}
