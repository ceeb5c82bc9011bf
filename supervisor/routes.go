package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/services"
)

var (
	// ErrNoWorker means that no worker was ready before the caller gave up, or
	// that none can become ready any more.
	ErrNoWorker = errors.New("no worker is ready")
	// ErrBusy means that too many callers are served, or wait for a worker, already.
	ErrBusy = errors.New("too many requests wait for a worker")
)

// DefaultService is what the workers of a unit offer that says nothing else.
const DefaultService = "proto.MyBusinessService"

// Services is the registry of all services: who offers what, and who gets the next
// call.
func (s *Supervisor) Services() *services.Registry { return s.services }

// Lease is the right to send one request to a worker. Release it when the
// request has ended.
type Lease struct {
	service *services.Service
	lease   services.Lease
	ended   atomic.Bool
}

// Conn is the connection to the worker; it fails fast when the worker is gone.
func (l *Lease) Conn() grpc.ClientConnInterface { return l.lease.Endpoint().Conn }

// Worker is the id of the worker, or the address of an endpoint from outside.
func (l *Lease) Worker() string { return l.lease.Endpoint().Key() }

// Release gives the lease back, of a request that has succeeded. [Lease.End] or
// Release must be called; whatever comes second does nothing.
func (l *Lease) Release() { l.End(nil) }

// End gives the lease back with the error of the request, for the figures.
func (l *Lease) End(err error) { l.EndWith(services.Outcome{Code: uint32(status.Code(err))}) }

// EndWith is End for one who knows whether the worker is to blame, by which it may be
// ejected, and whether the request goes on to another one.
func (l *Lease) EndWith(o services.Outcome) {
	if !l.ended.Swap(true) {
		l.lease.End(o)
	}
}

// Retry tells whether the service's budget of second tries allows that what this worker
// may have seen is sent once more, and takes it.
func (l *Lease) Retry() bool { return l.service.Retry() }

// Acquire leases a ready worker that offers the service of that full name, waiting for
// one until ctx ends. key is the value of the service's affinity, "" where there is none.
func (s *Supervisor) Acquire(ctx context.Context, name, key string) (*Lease, error) {
	for {
		service := s.services.Service(name)
		if service == nil {
			return nil, fmt.Errorf("%w: nobody offers %s", ErrNoWorker, name)
		}
		lease, err := service.Lease(key)
		switch {
		case err == nil:
			return &Lease{service: service, lease: lease}, nil
		case errors.Is(err, services.ErrBusy):
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		case !errors.Is(err, services.ErrNotReady):
			return nil, fmt.Errorf("%w: %w", ErrNoWorker, err)
		}
		ready := make(chan struct{})
		cancel, err := service.Wait(func() { close(ready) })
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		select {
		case <-ready:
		case <-ctx.Done():
			cancel()
			return nil, fmt.Errorf("%w: %w", ErrNoWorker, ctx.Err())
		}
	}
}

// TryAcquire is Acquire without waiting, and never gives the workers named in
// except: for a second try where the first cannot have seen the request.
func (s *Supervisor) TryAcquire(name, key string, except ...string) (*Lease, error) {
	service := s.services.Service(name)
	if service == nil {
		return nil, ErrNoWorker
	}
	tried := slices.DeleteFunc(service.Endpoints(), func(ep *services.Endpoint) bool {
		return !slices.Contains(except, ep.Key())
	})
	lease, err := service.Lease(key, tried...)
	if err != nil {
		return nil, ErrNoWorker
	}
	return &Lease{service: service, lease: lease}, nil
}

// Policy is how calls of the service are treated.
func (s *Supervisor) Policy(name string) services.Policy { return s.services.Policy(name) }

// Standalone tells that there is nobody whom requests to that service could be sent to:
// no worker that offers it or is said to, and no endpoint from outside.
func (s *Supervisor) Standalone(name string) bool {
	for _, u := range s.units {
		if u.Replicas > 0 && !u.assumed && slices.Contains(u.Services, name) {
			return false
		}
	}
	return s.services.Service(name) == nil
}

// hopeless tells why nobody who offers the service can become ready, or nil while one may.
func (s *Supervisor) hopeless(service string) error {
	switch s.Status() {
	case Recovering:
		return nil // what is recorded as stopped is about to be started
	case Stopping:
		return errStopping
	case Running:
	}
	if s.outside.offers(service) {
		return nil
	}
	reason, count := "", 0
	// Many calls may ask at a time, about many workers: nothing is copied.
	for _, slot := range s.list() {
		w := slot.info.Load()
		switch {
		case w == nil || !offers(w.Services, service):
		case w.Status != store.StatusFailed && w.Status != store.StatusStopped:
			return nil
		default:
			if count++; count == 1 {
				reason = w.Reason
			}
		}
	}
	if count == 0 {
		return nil
	}
	return fmt.Errorf("all %d workers have failed or are stopped, the first because: %s", count, reason)
}

// offers tells whether the service is among those that calls may come for.
func offers(list []store.Offer, name string) bool {
	return slices.ContainsFunc(list, func(o store.Offer) bool { return o.Name == name && !o.Unlisted })
}

// admit lets requests go to the worker.
func (w *worker) admit(ctx context.Context) {
	if w.endpoint != nil || w.link == nil {
		return
	}
	w.endpoint = &services.Endpoint{
		Address: WorkerAddress(w.rec.Instance.Port), Worker: w.id, Conn: w.link.GRPC(),
		// One that only did not answer for a while has long been at work.
		Warm: w.adopted || w.admitted == w.rec.Incarnation,
	}
	w.admitted = w.rec.Incarnation
	crashpoint.Pass(crashpoint.Publish, func() { w.sup.services.Add(w.endpoint, w.served()...) })
	w.schedulePing()
	select {
	case <-w.sup.recovered:
		w.discover(ctx)
	default:
		// Afterwards: see there.
	}
}

// served are the services that requests may be sent to it for: not what an instance
// before it has told of.
func (w *worker) served() []string {
	return namesOf(w.rec.Services, func(o store.Offer) bool { return !o.Unlisted && (!o.Reflected || w.confirmed) })
}

func namesOf(offers []store.Offer, which func(store.Offer) bool) []string {
	var names []string
	for _, o := range offers {
		if which(o) {
			names = append(names, o.Name)
		}
	}
	return names
}

// withdraw takes it out; requests in flight go on.
func (w *worker) withdraw() {
	if w.endpoint == nil {
		return
	}
	crashpoint.Pass(crashpoint.Withdraw, func() { w.sup.services.Remove(w.endpoint) })
	w.endpoint = nil
}

// offer says what the worker offers, be it ready or not.
func (w *worker) offer() {
	var names []string
	if !w.state.retired {
		names = namesOf(w.rec.Services, func(o store.Offer) bool { return !o.Unlisted })
	}
	w.sup.services.Offer(w.id, names...)
}

// offersOf are what a unit is said to offer, and what reflection has told of. unlisted
// tells what it has told not to be there.
func offersOf(unit Unit, reflected []string, unlisted func(name string) bool) []store.Offer {
	var list []store.Offer
	for _, name := range unit.Services {
		list = append(list, store.Offer{Name: name, Unlisted: unlisted(name), Assumed: unit.assumed})
	}
	for _, name := range reflected {
		if !slices.ContainsFunc(list, func(o store.Offer) bool { return o.Name == name }) {
			list = append(list, store.Offer{Name: name, Reflected: true})
		}
	}
	slices.SortFunc(list, func(a, b store.Offer) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// recalled are the offers of a unit whose instance before has told of these.
func recalled(unit Unit, told []store.Offer) []store.Offer {
	return offersOf(unit, reflected(told), func(name string) bool {
		return slices.ContainsFunc(told, func(o store.Offer) bool { return o.Name == name && o.Unlisted })
	})
}

// reflected are the names that only reflection has told of.
func reflected(offers []store.Offer) []string {
	return namesOf(offers, func(o store.Offer) bool { return o.Reflected && services.CheckName(o.Name) == nil })
}
