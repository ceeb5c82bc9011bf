package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
)

var (
	// ErrRegistration means that what was to be registered is none that can be.
	ErrRegistration = errors.New("not registered")
	// ErrTooMany means that as many endpoints are registered as may be.
	ErrTooMany = errors.New("too many endpoints are registered")
	// ErrNotRegistered means that there is no such endpoint, or that its time is over.
	ErrNotRegistered = errors.New("no such endpoint is registered")
)

// What history gets of them.
const (
	eventRegistered   = "service-registered"
	eventDeregistered = "service-deregistered"
	eventExpired      = "service-expired"
)

// Registered is an endpoint from outside as the running master sees it.
type Registered struct {
	store.Registration
	// Ready: it answers, and requests may go to it.
	Ready bool
	// Silence is why it does not, empty where it does.
	Silence string
	// Expires is when it is removed unless a heartbeat comes; zero: never.
	Expires time.Time
}

// Register has the master send calls of a service to an address that is no worker of
// ours, once that answers; it is durable. Where ttl is not 0, [Supervisor.Heartbeat], or
// Register once more, must come within it again and again.
//
// It returns what is known of the endpoint after one ping, bounded by two seconds. The
// error wraps [ErrRegistration], [ErrTooMany], or one of the store.
func (s *Supervisor) Register(ctx context.Context, service, address string, ttl time.Duration) (Registered, error) {
	r := store.Registration{Service: service, Address: address, TTL: ttl, Registered: time.Now()}
	if err := checkRegistration(r); err != nil {
		return Registered{}, err
	}
	first, err := s.outside.register(ctx, r)
	if err != nil {
		return Registered{}, err
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
	for _, known := range s.Registered() {
		if known.Service == service && known.Address == address {
			return known, nil
		}
	}
	return Registered{Registration: r}, nil // gone again
}

func (o *outside) register(ctx context.Context, r store.Registration) (first chan struct{}, err error) {
	o.durable.Lock()
	defer o.durable.Unlock()
	known, full := o.lookup(r)
	switch {
	case known != nil && known.TTL == r.TTL && !known.unsure:
		r.Registered = known.Registered // as a heartbeat: nothing to write
	case known == nil && full:
		return nil, fmt.Errorf("%w: %d at most: deregister some first", ErrTooMany, maxRegistered)
	default:
		muts := []store.Mutation{store.PutRegistration(r)}
		if known == nil {
			e := store.Event{Time: r.Registered, Type: eventRegistered, Detail: describe(r)}
			muts = append(muts, store.AppendEvent(e))
		}
		if err := o.record(ctx, crashpoint.RegisterRecord, []store.Registration{r}, muts...); err != nil {
			return nil, fmt.Errorf("record the registration: %w", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.add(r)
	o.offer()
	switch {
	case o.pinging == nil:
	case x.endpoint != nil:
		o.publish(x)
	default:
		if err := o.open(x, false); err != nil {
			return nil, fmt.Errorf("reach %s: %w", r.Address, err)
		}
		o.sup.log.Info("endpoint from outside registered", "service", r.Service, "address", r.Address)
	}
	o.look()
	return x.first, nil
}

// record makes a change of these registrations durable. A caller who gives up does not end it: what is known here has to
// be what is recorded. o.durable is held.
func (o *outside) record(ctx context.Context, point crashpoint.Point, changed []store.Registration, muts ...store.Mutation) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := crashpoint.Do(point, func() error { return o.sup.opts.Store.Apply(context.WithoutCancel(ctx), muts...) })
	if err == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range changed {
		if x := o.at[r.Address]; x != nil && x.names[r.Service] != nil {
			x.names[r.Service].unsure = true
		}
	}
	return err
}

func (o *outside) lookup(r store.Registration) (known *registration, full bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	full = o.count >= maxRegistered
	if x := o.at[r.Address]; x != nil && x.names[r.Service] != nil {
		found := *x.names[r.Service]
		known = &found
	}
	return known, full
}

// Deregister takes an endpoint out of a service, or all from outside where the address
// is empty, durably; it returns which those were. Where there is none that is
// [ErrNotRegistered].
func (s *Supervisor) Deregister(ctx context.Context, service, address string) ([]store.Registration, error) {
	o := s.outside
	o.durable.Lock()
	defer o.durable.Unlock()
	var gone []store.Registration
	var muts []store.Mutation
	for _, r := range s.Registered() {
		if r.Service == service && (address == "" || r.Address == address) {
			gone = append(gone, r.Registration)
			e := store.Event{Time: time.Now(), Type: eventDeregistered, Detail: describe(r.Registration)}
			muts = append(muts, store.DeleteRegistration(r.Service, r.Address), store.AppendEvent(e))
		}
	}
	if len(gone) == 0 {
		return nil, ErrNotRegistered
	}
	if err := o.record(ctx, crashpoint.DeregisterRecord, gone, muts...); err != nil {
		return nil, fmt.Errorf("record the removal: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove(gone)
	for _, r := range gone {
		s.log.Info("endpoint from outside deregistered", "service", r.Service, "address", r.Address)
	}
	return gone, nil
}

// Heartbeat says that an endpoint is still there, and returns within which time the
// next must come; 0: none need come. It is not written to the disk. After
// [ErrNotRegistered] the endpoint has to be registered anew.
func (s *Supervisor) Heartbeat(service, address string) (time.Duration, error) {
	o := s.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	x := o.at[address]
	if x == nil || x.names[service] == nil {
		return 0, ErrNotRegistered
	}
	o.extend(x.names[service])
	return x.names[service].TTL, nil
}

// Registered lists the endpoints from outside, by service and address.
func (s *Supervisor) Registered() []Registered {
	o := s.outside
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]Registered, 0, o.count)
	for _, x := range o.at {
		for _, r := range x.names {
			silence := x.silence
			if silence == "" && !x.has(r.Service) {
				silence = "it does not offer the service: its reflection does not list it"
			}
			list = append(list, Registered{Registration: r.Registration, Ready: x.ready && x.has(r.Service), Silence: silence, Expires: r.expires})
		}
	}
	slices.SortFunc(list, func(a, b Registered) int { return strings.Compare(describe(a.Registration), describe(b.Registration)) })
	return list
}

func describe(r store.Registration) string { return r.Service + " at " + r.Address }
