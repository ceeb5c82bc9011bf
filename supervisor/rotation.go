package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"
)

var (
	// ErrNoWorker means that no worker was ready before the caller gave up, or
	// that none can become ready any more.
	ErrNoWorker = errors.New("no worker is ready")
	// ErrBusy means that too many callers wait for a worker already.
	ErrBusy = errors.New("too many requests wait for a worker")
)

// maxWaiting bounds the callers that wait for a ready worker.
const maxWaiting = 1024

// rotation hands out the ready workers in turn.
type rotation struct {
	mu      sync.Mutex
	ready   []*endpoint
	next    int
	waiting int
	// changed is closed, and made anew, when an endpoint becomes ready or hopeless changes.
	changed  chan struct{}
	hopeless func() error // tells why no worker can become ready, or nil
}

func newRotation() *rotation { return &rotation{changed: make(chan struct{})} }

// endpoint is a ready worker that requests go to.
type endpoint struct {
	worker  string
	address string
	conn    grpc.ClientConnInterface

	mu       sync.Mutex
	inFlight int
	idle     chan struct{} // closed when it drains and nothing is in flight; nil before
}

// Lease is the right to send one request to a worker. Release it when the
// request has ended.
type Lease struct{ ep *endpoint }

// Conn is the connection to the worker; it fails fast when the worker is gone.
func (l *Lease) Conn() grpc.ClientConnInterface { return l.ep.conn }

// Worker is the id of the worker.
func (l *Lease) Worker() string { return l.ep.worker }

// Release gives the lease back. It must be called exactly once.
func (l *Lease) Release() {
	l.ep.mu.Lock()
	defer l.ep.mu.Unlock()
	l.ep.inFlight--
	if l.ep.inFlight == 0 && l.ep.idle != nil {
		close(l.ep.idle)
	}
}

// Acquire leases the next ready worker, waiting for one until ctx ends.
func (s *Supervisor) Acquire(ctx context.Context) (*Lease, error) {
	return s.rotation.acquire(ctx)
}

// TryAcquire is Acquire without waiting, and never gives the workers named in
// except: for a second try where the first cannot have seen the request.
func (s *Supervisor) TryAcquire(except ...string) (*Lease, error) {
	s.rotation.mu.Lock()
	defer s.rotation.mu.Unlock()
	if l := s.rotation.pick(except); l != nil {
		return l, nil
	}
	return nil, ErrNoWorker
}

func (r *rotation) acquire(ctx context.Context) (*Lease, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.pick(nil); l != nil {
		return l, nil
	}
	if r.waiting >= maxWaiting {
		return nil, ErrBusy
	}
	r.waiting++
	defer func() { r.waiting-- }()
	for {
		if r.hopeless != nil {
			if err := r.hopeless(); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrNoWorker, err)
			}
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			r.mu.Lock()
			return nil, fmt.Errorf("%w: %w", ErrNoWorker, ctx.Err())
		}
		r.mu.Lock()
		if l := r.pick(nil); l != nil {
			return l, nil
		}
	}
}

// pick is called with r.mu held.
func (r *rotation) pick(except []string) *Lease {
	for range r.ready {
		r.next = (r.next + 1) % len(r.ready)
		ep := r.ready[r.next]
		if slices.Contains(except, ep.worker) {
			continue
		}
		ep.mu.Lock()
		ep.inFlight++
		ep.mu.Unlock()
		return &Lease{ep: ep}
	}
	return nil
}

func (r *rotation) add(ep *endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = append(r.ready, ep)
	r.wake()
}

// remove takes an endpoint out; requests in flight go on.
func (r *rotation) remove(ep *endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ready = slices.DeleteFunc(r.ready, func(e *endpoint) bool { return e == ep })
	if r.next >= len(r.ready) {
		r.next = 0
	}
}

// reconsider lets waiting callers look again: a worker may have failed for good.
func (r *rotation) reconsider() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake()
}

func (r *rotation) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// drained is closed when the last request in flight has ended. The endpoint must
// have been removed from the rotation before.
func (ep *endpoint) drained() <-chan struct{} {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.idle == nil {
		ep.idle = make(chan struct{})
		if ep.inFlight == 0 {
			close(ep.idle)
		}
	}
	return ep.idle
}
