package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/internal/rpc"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
	"github.com/core-tools/hsu-master/supervisor/worker"
)

var (
	// ErrNoWorker means that no worker became ready before the caller gave up, or that none can become ready any
	// more.
	ErrNoWorker = errors.New("no worker is ready")
	// ErrBusy means that too many calls are in flight or wait for a worker.
	ErrBusy = errors.New("too many requests wait for a worker")
)

// Services returns the registry of all services. It knows which endpoint offers which service, and picks the
// endpoint for each call.
func (s *Supervisor) Services() *services.Registry { return s.services }

// Registrations returns the endpoints that are registered with the master and are not its workers.
func (s *Supervisor) Registrations() *registrations.Set { return s.registered }

// Pick is the right to send one request to a worker. It must be ended when the request has.
type Pick struct {
	service *services.Service
	pick    services.Pick
	ended   atomic.Bool
}

// Conn returns the connection to the worker; it fails fast when the worker is gone.
func (p *Pick) Conn() grpc.ClientConnInterface {
	return rpc.Conn{ClientConnInterface: p.pick.Endpoint().Conn}
}

// Worker returns the ID of the worker, or the address of a registered endpoint.
func (p *Pick) Worker() string { return p.pick.Endpoint().Key() }

// End ends the pick with the error of the request, nil if it has succeeded, for the statistics. [Pick.End] or
// [Pick.EndWith] must be called; a second call does nothing.
func (p *Pick) End(err error) { p.EndWith(services.Outcome{Code: uint32(status.Code(err))}) }

// EndWith is like End for a caller that knows more: whether the failure is the worker's fault, which may eject it,
// and whether the request is retried on another worker.
func (p *Pick) EndWith(o services.Outcome) {
	if !p.ended.Swap(true) {
		p.pick.End(o)
	}
}

// Retry reports whether the service's retry budget allows sending a request again that this worker may have seen,
// and charges the budget.
func (p *Pick) Retry() bool { return p.service.Retry() }

// Acquire picks a ready worker that offers the service of that full name, waiting for one until ctx ends. key is
// the value of the service's affinity, "" if it has none.
func (s *Supervisor) Acquire(ctx context.Context, name, key string) (*Pick, error) {
	client := fair.FromContext(ctx)
	for {
		service := s.services.Service(name)
		if service == nil {
			return nil, fmt.Errorf("%w: nobody offers %s", ErrNoWorker, name)
		}
		pick, err := service.Pick(client, key)
		switch {
		case err == nil:
			return &Pick{service: service, pick: pick}, nil
		case errors.Is(err, services.ErrBusy):
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		case !errors.Is(err, services.ErrNotReady):
			return nil, fmt.Errorf("%w: %w", ErrNoWorker, err)
		}
		ready := make(chan error, 1)
		cancel, err := service.Wait(client, func(err error) { ready <- err })
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBusy, err)
		}
		select {
		case err := <-ready:
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrBusy, err)
			}
		case <-ctx.Done():
			cancel()
			return nil, fmt.Errorf("%w: %w", ErrNoWorker, ctx.Err())
		}
	}
}

// TryAcquire is Acquire without waiting, and never returns a worker named in except: for a retry if the first
// worker cannot have seen the request.
func (s *Supervisor) TryAcquire(name, key string, except ...string) (*Pick, error) {
	service := s.services.Service(name)
	if service == nil {
		return nil, ErrNoWorker
	}
	tried := slices.DeleteFunc(service.Endpoints(), func(ep *services.Endpoint) bool {
		return !slices.Contains(except, ep.Key())
	})
	pick, err := service.Pick(fair.Client{}, key, tried...)
	if err != nil {
		return nil, ErrNoWorker
	}
	return &Pick{service: service, pick: pick}, nil
}

// Policy returns the policy for calls of the service.
func (s *Supervisor) Policy(name string) services.Policy { return s.services.Policy(name) }

// Standalone reports whether no endpoint exists for the service: no worker that offers it or is configured to, and
// no registered endpoint.
func (s *Supervisor) Standalone(name string) bool {
	for _, u := range s.set.specs() {
		if u.Replicas > 0 && !u.Assumed && slices.Contains(u.Services, name) {
			return false
		}
	}
	return s.services.Service(name) == nil
}

// hopeless returns the reason why no endpoint of the service can become ready, or nil if one may.
func (s *Supervisor) hopeless(service string) error {
	switch s.Status() {
	case Recovering:
		return nil // workers recorded as stopped are about to be started
	case Stopping:
		return worker.ErrStopping
	case Running:
	}
	if s.registered.Offers(service) {
		return nil
	}
	reason, count := "", 0
	// Many calls may ask at the same time, about many workers: avoid copies.
	for _, each := range s.set.list() {
		w := each.Info()
		switch {
		case w == nil || !offers(w.Services, service):
		case w.Desired == records.DesiredStopped:
			if count++; count == 1 {
				reason = w.Reason
			}
		case w.Status == records.StatusWaiting:
			b := s.set.resolve().Of(w.Unit)
			if !b.Hopeless {
				return nil
			}
			if count++; count == 1 {
				reason = b.Reason
			}
		case w.Status != records.StatusFailed && w.Status != records.StatusStopped &&
			w.Status != records.StatusCompleted && w.Status != records.StatusScheduled:
			return nil
		default:
			if count++; count == 1 {
				reason = w.Reason
			}
		}
	}
	if name := s.set.disabled(service); count == 0 && name != "" {
		return fmt.Errorf("unit %s, which offers it, is disabled", name)
	}
	if count == 0 {
		return nil
	}
	return fmt.Errorf("all %d workers have failed, have completed, are stopped or wait in vain, the first because: %s",
		count, reason)
}

// offers reports whether the list contains the service and its calls are accepted.
func offers(list []records.Offer, name string) bool {
	return slices.ContainsFunc(list, func(o records.Offer) bool { return o.Name == name && !o.Unlisted })
}
