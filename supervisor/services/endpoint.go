package services

import (
	"cmp"
	"context"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// Endpoint is an address that calls can be sent to. Its fields do not change once it is in a registry.
type Endpoint struct {
	Address string
	// Worker is the ID of the worker that serves there, or empty for a registered endpoint.
	Worker string
	// Conn is a gRPC connection to the endpoint, for calls that are not relayed; nil if there is none.
	Conn grpc.ClientConnInterface
	// Verify returns an error if a new connection to Address leads to something other than the endpoint; it is called
	// before anything is written to the connection. It removes the endpoint before it returns the error. If Verify is
	// nil, every connection is accepted.
	Verify func(ctx context.Context, nc net.Conn) error
	// Warm means that the endpoint has served before, and gets its full share at once.
	Warm bool

	ready bool // owned by the registry

	picks   atomic.Int64
	gone    atomic.Bool
	mu      sync.Mutex
	drained chan struct{}
	emptied bool
}

// Key returns the identifier of the endpoint that survives a restart of its process: the worker's ID, or else the
// address.
func (ep *Endpoint) Key() string { return cmp.Or(ep.Worker, ep.Address) }

// Gone reports whether the endpoint has been removed from the registry and gets no more calls. The owner of
// connections to it closes them when the calls in flight have ended.
func (ep *Endpoint) Gone() bool { return ep.gone.Load() }

// Drained returns a channel that is closed when the endpoint has been removed and its last call, of any service,
// has ended.
func (ep *Endpoint) Drained() <-chan struct{} {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if ep.drained == nil {
		ep.drained = make(chan struct{})
		if ep.emptied {
			close(ep.drained)
		}
	}
	return ep.drained
}

// remove marks the endpoint as removed. It must be called when no new pick can be made.
func (ep *Endpoint) remove() {
	ep.gone.Store(true)
	if ep.picks.Load() == 0 {
		ep.empty()
	}
}

// release ends a pick. Either release sees that the endpoint is gone, or remove sees that no pick is left.
func (ep *Endpoint) release() {
	if ep.picks.Add(-1) == 0 && ep.gone.Load() {
		ep.empty()
	}
}

func (ep *Endpoint) empty() {
	ep.mu.Lock()
	defer ep.mu.Unlock()
	if !ep.emptied && ep.drained != nil {
		close(ep.drained)
	}
	ep.emptied = true
}
