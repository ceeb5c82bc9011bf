package supervisor

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"

	"github.com/phayes/freeport"
)

// portBook keeps two starting workers from choosing the same port: between the
// choice and the worker's own listen nothing else holds it.
type portBook struct {
	mu    sync.Mutex
	taken map[int]string // port → worker
	share int            // of the ports, which this master prefers; 0: not drawn yet
}

// portShares is into how many shares masters divide the free ports, each drawing one for
// itself. Those of two masters that start at a time would be found free by both until one
// worker listens, and the other's would end for that.
const portShares = 8

// maxPortTries bounds the search; each try is another free port.
const maxPortTries = 64

// choose returns the preferred port where it is free, else another free one,
// and holds it for the worker until release.
func (b *portBook) choose(worker string, preferred int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if preferred > 0 && b.free(worker, preferred) {
		err := listenable(preferred)
		if err == nil {
			b.hold(worker, preferred)
			return preferred, nil
		}
		if ownFault(err) { // which says nothing of the port
			return 0, fmt.Errorf("try port %d: %w", preferred, err)
		}
	}
	if b.share == 0 {
		b.share = 1 + rand.IntN(portShares)
	}
	for range maxPortTries {
		port, err := freePort()
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		if near := b.ours(port); near != port && b.free(worker, near) && listenable(near) == nil {
			port = near
		}
		if b.free(worker, port) {
			b.hold(worker, port)
			return port, nil
		}
	}
	return 0, fmt.Errorf("find a free port: %d tries gave ports of other workers", maxPortTries)
}

// ours is the port of this master's share that is next to a port. Linux gives out every
// other one only, so that shares go by pairs.
func (b *portBook) ours(port int) int { return port + 2*(b.share-1-port/2%portShares) }

// freePort returns a port that nobody listens on. freeport asks for "localhost",
// which a host without /etc/hosts cannot resolve.
func freePort() (int, error) {
	if port, err := freeport.GetFreePort(); err == nil {
		return port, nil
	}
	l, err := net.Listen("tcp", WorkerAddress(0))
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// keep holds a port that a worker has already, so that no other is given it.
func (b *portBook) keep(worker string, port int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold(worker, port)
}

func (b *portBook) hold(worker string, port int) {
	if b.taken == nil {
		b.taken = map[int]string{}
	}
	for p, w := range b.taken {
		if w == worker {
			delete(b.taken, p)
		}
	}
	b.taken[port] = worker
}

func (b *portBook) free(worker string, port int) bool {
	holder, taken := b.taken[port]
	return !taken || holder == worker
}

func listenable(port int) error {
	l, err := net.Listen("tcp", WorkerAddress(port))
	if err != nil {
		return err
	}
	return l.Close()
}
