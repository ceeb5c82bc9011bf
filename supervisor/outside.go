package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/services"
)

var (
	// ErrRegistration means that what was to be registered is none that can be.
	ErrRegistration = errors.New("not registered")
	// ErrTooMany means that as many endpoints are registered as may be.
	ErrTooMany = errors.New("too many endpoints are registered")
	// ErrNotRegistered means that there is no such endpoint, or that its time is over.
	ErrNotRegistered = errors.New("no such endpoint is registered")
)

const (
	// maxRegistered bounds the endpoints from outside, each counted under each of its services.
	maxRegistered = 1000
	// The shortest and the longest time without a heartbeat.
	minTTL = time.Second
	maxTTL = 24 * time.Hour
	// firstAnswer bounds how long a registration waits to tell whether the endpoint answers.
	firstAnswer = 2 * time.Second
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

// outside keeps the endpoints that are no workers of ours. Each address is pinged by
// one goroutine, whatever it offers.
type outside struct {
	sup *Supervisor

	// What it takes to reach one; tests put a fake here.
	dial func(address string) (prober, error)

	// durable is held by who changes what is recorded, over the wait for the disk.
	durable sync.Mutex

	mu      sync.Mutex
	at      map[string]*outsider // by address
	count   int                  // of registrations
	pinging context.Context      // nil while nothing is pinged
	stop    context.CancelFunc   // ends that
	work    context.Context      // ends when nobody has time any more
	helpers sync.WaitGroup
	wake    chan struct{} // one token: something may expire earlier than thought
}

// outsider is an address from outside.
type outsider struct {
	address string
	names   map[string]*registration
	// Only while it is pinged:
	endpoint *services.Endpoint
	prober   prober
	stop     context.CancelFunc
	first    chan struct{} // closed when it has been pinged once

	ready   bool
	silence string
	missed  int
}

type registration struct {
	store.Registration
	expires time.Time // zero: never
	// A change of it was not recorded, or not for certain: its record may be another, or none.
	unsure bool
}

// prober finds out whether an endpoint answers.
type prober interface {
	// Ping returns nil where it does.
	Ping(ctx context.Context) error
	GRPC() grpc.ClientConnInterface
	Close() error
}

func newOutside(s *Supervisor) *outside {
	return &outside{sup: s, dial: dialOutside, at: make(map[string]*outsider), wake: make(chan struct{}, 1)}
}

// recall takes over what is recorded. Calls for it wait from now on.
func (o *outside) recall(recorded []store.Registration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range recorded {
		if err := checkRegistration(r); err != nil {
			o.sup.log.Error("registration not usable", "error", err)
			continue
		}
		o.add(r)
	}
	o.offer()
}

// offer says what is offered from outside, also while nothing of it is ready.
func (o *outside) offer() {
	names := map[string]bool{}
	for _, x := range o.at {
		for name := range x.names {
			names[name] = true
		}
	}
	o.sup.services.Offer("", slices.Sorted(maps.Keys(names))...)
}

// add notes a registration, and returns its address. o.mu is held.
func (o *outside) add(r store.Registration) *outsider {
	x := o.at[r.Address]
	if x == nil {
		x = &outsider{address: r.Address, names: make(map[string]*registration)}
		o.at[r.Address] = x
	}
	if x.names[r.Service] == nil {
		o.count++
	}
	x.names[r.Service] = &registration{Registration: r}
	o.extend(x.names[r.Service])
	return x
}

// extend gives a registration a fresh ttl.
func (o *outside) extend(r *registration) {
	if r.TTL > 0 {
		r.expires = time.Now().Add(r.TTL)
	}
}

// begin pings what is registered, until end. Where ctx ends nothing is waited for any
// more. What an earlier master has recorded is taken for ready until it turns out not
// to be: a crash of the master says nothing of it.
func (o *outside) begin(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.work = ctx
	o.pinging, o.stop = context.WithCancel(ctx)
	for _, x := range o.at {
		for _, r := range x.names {
			o.extend(r)
		}
		if err := o.open(x, true); err != nil {
			o.sup.log.Error("endpoint from outside not reachable", "address", x.address, "error", err)
		}
	}
	pinging := o.pinging
	o.helpers.Go(func() { o.expire(pinging) })
}

// open begins to ping an address, and publishes it. o.mu is held.
func (o *outside) open(x *outsider, ready bool) error {
	p, err := o.dial(x.address)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(o.pinging)
	x.prober, x.stop, x.first = p, stop, make(chan struct{})
	x.ready, x.missed, x.silence = ready, 0, "it has not answered yet"
	x.endpoint = &services.Endpoint{Address: x.address, Conn: p.GRPC(), Warm: ready}
	names := slices.Sorted(maps.Keys(x.names))
	crashpoint.Pass(crashpoint.OutsidePublish, func() {
		if ready {
			o.sup.services.Add(x.endpoint, names...)
		} else {
			o.sup.services.AddIdle(x.endpoint, names...)
		}
	})
	o.helpers.Go(func() { o.ping(ctx, x, p, x.first) })
	return nil
}

// close ends that. o.mu is held. The connection stays for what is under way.
func (o *outside) close(x *outsider) {
	if x.endpoint == nil {
		return
	}
	x.stop()
	ep, p, work := x.endpoint, x.prober, o.work
	x.endpoint, x.prober = nil, nil
	crashpoint.Pass(crashpoint.OutsideWithdraw, func() { o.sup.services.Remove(ep) })
	o.helpers.Go(func() {
		over := time.NewTimer(defaultStopGrace / 2)
		defer over.Stop()
		select {
		case <-ep.Drained():
		case <-over.C:
		case <-o.sup.hurry:
		case <-work.Done():
		}
		if err := p.Close(); err != nil {
			o.sup.log.Debug("connection not closed cleanly", "address", x.address, "error", err)
		}
	})
}

// end lets go of all endpoints and waits until what is under way has ended, bounded.
func (o *outside) end() {
	o.mu.Lock()
	if o.pinging != nil {
		o.stop()
		o.pinging = nil
		for _, x := range o.at {
			o.close(x)
		}
	}
	o.mu.Unlock()
	o.helpers.Wait()
}

// ping asks an endpoint again and again, first now.
func (o *outside) ping(ctx context.Context, x *outsider, p prober, first chan struct{}) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		asked := time.Now()
		wait, cancel := context.WithTimeout(ctx, pingTimeout)
		err := p.Ping(wait)
		cancel()
		if ctx.Err() != nil {
			return
		}
		// A machine that is loaded, or lacks descriptors, says nothing of the endpoint.
		if err == nil || time.Since(asked) <= pingTimeout+lateness && !outOfReach(err) {
			o.answered(x, p, err)
		}
		if first != nil {
			close(first)
			first = nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// answered takes up what came of a ping.
func (o *outside) answered(x *outsider, p prober, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if x.prober != p {
		return // closed meanwhile
	}
	was := x.ready
	if err == nil {
		x.ready, x.missed, x.silence = true, 0, ""
	} else {
		x.missed++
		x.silence = fmt.Sprintf("%.200q", err.Error())
		x.ready = x.ready && x.missed < missedPings
	}
	if x.ready == was {
		return
	}
	crashpoint.Pass(crashpoint.OutsideReady, func() { o.sup.services.SetReady(x.endpoint, x.ready) })
	if x.ready {
		o.sup.log.Info("endpoint from outside is ready", "address", x.address)
		return
	}
	o.sup.log.Warn("endpoint from outside is not ready", "address", x.address, "reason", x.silence)
	o.sup.services.Reconsider()
}

// expire removes each registration whose heartbeat does not come.
func (o *outside) expire(ctx context.Context) {
	timer := stoppedTimer()
	defer timer.Stop()
	for {
		if next := o.nextExpiry(); !next.IsZero() {
			timer.Reset(max(0, time.Until(next)))
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
			o.removeExpired(ctx)
		case <-o.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (o *outside) nextExpiry() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	var next time.Time
	for _, x := range o.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && (next.IsZero() || r.expires.Before(next)) {
				next = r.expires
			}
		}
	}
	return next
}

// removeExpired removes those whose time is over. None is registered anew between the
// two halves of it, or its new record would be deleted.
func (o *outside) removeExpired(ctx context.Context) {
	o.durable.Lock()
	gone := o.expired()
	var muts []store.Mutation
	for _, r := range gone {
		e := store.Event{Time: time.Now(), Type: eventExpired, Detail: describe(r)}
		muts = append(muts, store.DeleteRegistration(r.Service, r.Address), store.AppendEvent(e))
	}
	var err error
	if len(gone) > 0 {
		err = crashpoint.Do(crashpoint.ExpireRecord, func() error { return o.sup.opts.Store.Apply(ctx, muts...) })
	}
	o.durable.Unlock()
	for _, r := range gone {
		o.sup.log.Warn("endpoint from outside sent no heartbeat, removed", "service", r.Service, "address", r.Address, "ttl", r.TTL)
	}
	if err != nil && ctx.Err() == nil {
		// The next master would give them one more ttl, and remove them then.
		o.sup.log.Error("removal not recorded", "endpoints", len(gone), "error", err)
	}
}

// expired takes out those whose time is over. o.durable is held.
func (o *outside) expired() []store.Registration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	var gone []store.Registration
	for _, x := range o.at {
		for _, r := range x.names {
			if !r.expires.IsZero() && !r.expires.After(now) {
				gone = append(gone, r.Registration)
			}
		}
	}
	o.remove(gone)
	return gone
}

// remove takes registrations out. o.mu is held.
func (o *outside) remove(gone []store.Registration) {
	if len(gone) == 0 {
		return
	}
	for _, r := range gone {
		x := o.at[r.Address]
		delete(x.names, r.Service)
		o.count--
		if x.endpoint != nil {
			crashpoint.Pass(crashpoint.OutsideWithdraw, func() { o.sup.services.Withdraw(x.endpoint, r.Service) })
		}
		if len(x.names) == 0 {
			delete(o.at, r.Address)
			o.close(x)
		}
	}
	o.offer()
	o.sup.services.Reconsider()
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
		crashpoint.Pass(crashpoint.OutsidePublish, func() { o.sup.services.Add(x.endpoint, r.Service) })
	default:
		if err := o.open(x, false); err != nil {
			return nil, fmt.Errorf("reach %s: %w", r.Address, err)
		}
		o.sup.log.Info("endpoint from outside registered", "service", r.Service, "address", r.Address)
	}
	o.look()
	return x.first, nil
}

// look has what expires next looked for again.
func (o *outside) look() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
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
			list = append(list, Registered{Registration: r.Registration, Ready: x.ready, Silence: x.silence, Expires: r.expires})
		}
	}
	slices.SortFunc(list, func(a, b Registered) int { return strings.Compare(describe(a.Registration), describe(b.Registration)) })
	return list
}

// offers tells whether somebody outside offers the service.
func (o *outside) offers(service string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.at {
		if x.names[service] != nil {
			return true
		}
	}
	return false
}

func describe(r store.Registration) string { return r.Service + " at " + r.Address }

// CheckRegistration tells why something cannot be registered, nil where it can.
func CheckRegistration(service, address string, ttl time.Duration) error {
	return checkRegistration(store.Registration{Service: service, Address: address, TTL: ttl})
}

func checkRegistration(r store.Registration) error {
	if err := services.CheckName(r.Service); err != nil {
		return fmt.Errorf("%w: %w", ErrRegistration, err)
	}
	if services.Infrastructure(r.Service) {
		return fmt.Errorf("%w: the master answers %s itself", ErrRegistration, r.Service)
	}
	if err := CheckAddress(r.Address); err != nil {
		return fmt.Errorf("%w: %w", ErrRegistration, err)
	}
	if r.TTL != 0 && (r.TTL < minTTL || r.TTL > maxTTL) {
		return fmt.Errorf("%w: ttl %s: want %s to %s, or 0 for an endpoint that sends no heartbeats", ErrRegistration, r.TTL, minTTL, shortDuration(maxTTL))
	}
	return nil
}

// maxHost bounds a host's name, as DNS does.
const maxHost = 253

// CheckAddress tells why address cannot be registered, nil where it can.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %.300q: want HOST:PORT such as 10.0.0.7:8080", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
		return fmt.Errorf("address %.300q: want a port from 1 to 65535", address)
	}
	if net.ParseIP(host) == nil && !hostName(host) {
		return fmt.Errorf("address %.300q: want the name of a host or an IP address before the port", address)
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsMulticast()) {
		return fmt.Errorf("address %.300q: nobody can be reached there: name the host's own address", address)
	}
	return nil
}

func hostName(host string) bool {
	if len(host) > maxHost {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}
