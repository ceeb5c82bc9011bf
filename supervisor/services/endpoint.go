package services

import (
	"cmp"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

// Endpoint is an address that calls can be sent to. Its fields do not change once it is in a registry.
type Endpoint struct {
	Address string
	// Worker is the id of the worker of ours that serves there, empty for one from outside.
	Worker string
	// Conn is a gRPC connection to it, for calls that are not relayed; nil where there is none.
	Conn grpc.ClientConnInterface
	// Warm: it has been at work before, and gets its whole share at once.
	Warm bool

	ready bool // the registry's

	leases  atomic.Int64
	gone    atomic.Bool
	mu      sync.Mutex
	drained chan struct{}
	emptied bool
}

// Key is what stays the same of an endpoint when its process is another: the worker's id, or else the address.
func (ep *Endpoint) Key() string { return cmp.Or(ep.Worker, ep.Address) }

// Gone tells that the endpoint has been taken out of the registry and gets no calls any more: who keeps connections to
// it closes them when what is under way has ended.
func (ep *Endpoint) Gone() bool { return ep.gone.Load() }

// Drained is closed when the endpoint has been removed and the last call at it has ended, of whichever service.
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

// remove is called when no lease can be taken any more.
func (ep *Endpoint) remove() {
	ep.gone.Store(true)
	if ep.leases.Load() == 0 {
		ep.empty()
	}
}

// release ends a lease. Either it sees that the endpoint is gone, or whoever removes it sees that this was the last.
func (ep *Endpoint) release() {
	if ep.leases.Add(-1) == 0 && ep.gone.Load() {
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
