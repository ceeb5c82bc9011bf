package worker

import (
	"sync"
	"time"

	"github.com/core-tools/hsu-master/supervisor/process/sockets"
)

// portWatch tells starting workers that a process listens on their port. One goroutine reads the kernel's table of
// listeners for all of them, which costs as much as three connects that are refused.
//
// Invariant: the goroutine runs while a worker waits.
type portWatch struct {
	list func() (listens func(port int) (somewhere, loopback bool), err error)

	mu      sync.Mutex
	came    chan struct{} // has room for one: another worker waits
	waiting map[*portWait]bool
	running bool
	changed time.Time // when waiting last changed
}

// portWait is the wait of one worker.
type portWait struct {
	port   int
	over   chan struct{} // closed when a process listens on the port, or when the table cannot be read
	accept bool          // a connect to the worker's address is known to succeed; valid when over is closed
}

// opened is the watch of all workers.
var opened = &portWatch{list: sockets.Listening}

// The goroutine reads the table again after a multiple of the time that this took, so that it uses a twentieth of a
// processor at most, and less often the longer the programs take.
const (
	readShare = 20
	readPause = 500 * time.Microsecond // the shortest
	readSlow  = 50                     // the share of the time for which nothing has changed
)

// await begins a wait for the port. The caller calls stop when it does not wait any more.
func (p *portWatch) await(port int) (w *portWait, stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w = &portWait{port: port, over: make(chan struct{})}
	if p.waiting == nil {
		p.waiting, p.came = map[*portWait]bool{}, make(chan struct{}, 1)
	}
	p.waiting[w], p.changed = true, time.Now()
	select {
	case p.came <- struct{}{}:
	default: // an earlier signal is pending
	}
	if !p.running {
		p.running = true
		go p.run()
	}
	return w, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.waiting, w)
	}
}

// run reads the table until no worker waits. A worker that comes does not wait as long as those that take long.
func (p *portWatch) run() {
	for {
		began := time.Now()
		listens, err := p.list()
		least := max(readShare*time.Since(began), readPause)
		more, wanted := p.tell(listens, err)
		if !wanted {
			return
		}
		time.Sleep(least)
		select {
		case <-time.After(more - least):
		case <-p.came:
		}
	}
}

// tell notifies the workers whose ports are open. It returns the time until the next reading if no other worker comes,
// and whether a worker still waits.
func (p *portWatch) tell(listens func(port int) (somewhere, loopback bool), err error) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for w := range p.waiting {
		found := err != nil
		if !found {
			found, w.accept = listens(w.port)
		}
		if found {
			close(w.over)
			delete(p.waiting, w)
			p.changed = now
		}
	}
	p.running = len(p.waiting) > 0
	return min(now.Sub(p.changed)/readSlow, probeMost), p.running
}
