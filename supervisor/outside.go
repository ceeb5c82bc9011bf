package supervisor

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/services"
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
	pings   int // answered
	// reflects: its reflection has told what it offers, and these are listed there.
	reflects bool
	listed   []string
}

// has tells whether it offers a service, as far as it says.
func (x *outsider) has(service string) bool {
	return !x.reflects || slices.Contains(x.listed, service)
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
	// List returns the services that its reflection lists, UNIMPLEMENTED where it has none.
	List(ctx context.Context) ([]string, error)
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
			if x.has(name) {
				names[name] = true
			}
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

// publish has calls of what it has go to an address, and of nothing else. o.mu is held.
func (o *outside) publish(x *outsider) {
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
		o.sup.services.Add(x.endpoint, has...)
		o.sup.services.Withdraw(x.endpoint, lacks...)
	})
	o.offer()
}

// offers tells whether somebody outside offers the service.
func (o *outside) offers(service string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range o.at {
		if x.names[service] != nil && x.has(service) {
			return true
		}
	}
	return false
}
