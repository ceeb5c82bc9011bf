// Package ports chooses the TCP ports of workers on loopback and reserves them while no worker listens on them.
package ports

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"

	"github.com/core-tools/hsu-master/supervisor/process"
	"github.com/phayes/freeport"
)

// Book prevents two workers from choosing the same port, and reserves the chosen ports.
type Book struct {
	mu       sync.Mutex
	assigned map[int]string // port → worker
	reserved reservations
	Share    int // the share of the ports that this master prefers; 0: not drawn yet
}

// portShares is the number of shares into which masters divide the free ports; each draws one for itself. Without
// shares, two masters that start at the same time could both find a port free until one worker listens, and the
// other's worker would end for that.
const portShares = 8

// maxPortTries limits the search; each try is another free port.
const maxPortTries = 64

// Choose returns the preferred port if it is free, else another free one, and assigns it to the worker until the
// worker gets another port.
func (b *Book) Choose(worker string, preferred int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if preferred > 0 && b.free(worker, preferred) {
		err := listenable(preferred)
		if err == nil {
			b.assign(worker, preferred)
			b.reserved.reserve(worker, preferred)
			return preferred, nil
		}
		if process.Exhausted(err) { // the error is not about the port
			return 0, fmt.Errorf("try port %d: %w", preferred, err)
		}
	}
	for range maxPortTries {
		port, err := freePort()
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		for _, candidate := range b.candidates(port) {
			if b.free(worker, candidate) && b.reserved.claim(worker, candidate) {
				b.assign(worker, candidate)
				return candidate, nil
			}
		}
	}
	return 0, fmt.Errorf("find a free port: %d tries gave ports of other workers", maxPortTries)
}

// Take assigns a port to the worker, if it is free.
func (b *Book) Take(worker string, port int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.free(worker, port) {
		return fmt.Errorf("port %d is that of %s", port, b.assigned[port])
	}
	if err := listenable(port); err != nil {
		return fmt.Errorf("port %d is not free: %w", port, err)
	}
	b.assign(worker, port)
	b.reserved.reserve(worker, port)
	return nil
}

// candidates returns the ports to try, in order, when the kernel has offered a port: the one next to it of this
// master's share, then the port itself. Linux offers only every other port, so a share consists of pairs.
func (b *Book) candidates(port int) [2]int {
	if b.Share == 0 {
		b.Share = 1 + rand.IntN(portShares)
	}
	return [2]int{port + 2*(b.Share-1-port/2%portShares), port}
}

// freePort returns a port without a listener. freeport asks for "localhost", which a host without /etc/hosts cannot
// resolve.
func freePort() (int, error) {
	if port, err := freeport.GetFreePort(); err == nil {
		return port, nil
	}
	l, err := net.Listen("tcp", Address(0))
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// Keep assigns to a worker the port that it already has, so that no other worker gets it.
func (b *Book) Keep(worker string, port int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.assign(worker, port)
}

// Reserve keeps other processes from taking the port of a worker without a living process.
func (b *Book) Reserve(worker string, port int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved.reserve(worker, port)
}

// MakeRoom releases the reservation of a worker that is about to start, if workers of its unit cannot listen beside
// one.
func (b *Book) MakeRoom(unit, worker string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reserved.lone[unit] {
		b.reserved.release(worker)
	}
}

// Refused records that a started worker did not open its port, and reports whether a reservation may be the cause.
// If so, the reservation is released.
func (b *Book) Refused(unit, worker string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reserved.refuse(unit, worker)
}

// LetGo releases the reservation of a worker.
func (b *Book) LetGo(worker string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved.release(worker)
}

// Forget releases the port of a worker that has ended for good, or gets none any more, for others.
func (b *Book) Forget(worker string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reserved.release(worker)
	for port, holder := range b.assigned {
		if holder == worker {
			delete(b.assigned, port)
		}
	}
}

func (b *Book) assign(worker string, port int) {
	if b.assigned == nil {
		b.assigned = map[int]string{}
	}
	for p, w := range b.assigned {
		if w == worker {
			delete(b.assigned, p)
		}
	}
	b.assigned[port] = worker
}

func (b *Book) free(worker string, port int) bool {
	holder, ok := b.assigned[port]
	return !ok || holder == worker
}

func listenable(port int) error {
	l, err := net.Listen("tcp", Address(port))
	if err != nil {
		return err
	}
	return l.Close()
}

// Address returns the address, on loopback, of the worker with that port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
