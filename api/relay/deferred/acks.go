package deferred

import (
	"sync"
	"time"
)

// Acks writes acknowledgments that are not written by the goroutine that appends them: the ends of calls that have
// just been counted, and the answers to PINGs. A counter reports many calls at once, one after the other, each of
// them perhaps of another client. The output is collected, and written by one goroutine that is woken once for all
// of it.
type Acks struct {
	delay time.Duration
	wake  chan struct{}

	mu   sync.Mutex
	work Work

	lateMu sync.Mutex
	late   []LateConn  // have the answer to a PING in their output, which may not have been written yet
	timer  *time.Timer // runs while late is not empty
}

// LateConn is a connection whose output may wait for a moment.
type LateConn interface {
	Conn
	// Due is called when the moment is over, before the output is written.
	Due()
}

// NewAcks returns an Acks that writes the answers to PINGs after delay. The caller must run Serve.
func NewAcks(delay time.Duration) *Acks { return &Acks{delay: delay, wake: make(chan struct{}, 1)} }

// Now calls do, which may append output, and has the work written that do adds. Only one do runs at a time.
func (a *Acks) Now(do func(w *Work)) {
	a.mu.Lock()
	do(&a.work)
	a.mu.Unlock()
	a.tell()
}

// Later makes the connection's output be written after the delay.
func (a *Acks) Later(c LateConn) {
	a.lateMu.Lock()
	defer a.lateMu.Unlock()
	a.late = append(a.late, c)
	if len(a.late) > 1 {
		return
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(a.delay, a.Due)
	} else {
		a.timer.Reset(a.delay)
	}
}

// Due has the output written for which Later was called. The timer calls it.
func (a *Acks) Due() {
	a.lateMu.Lock()
	late := a.late
	a.late = nil
	a.lateMu.Unlock()
	a.Now(func(w *Work) {
		for _, c := range late {
			c.Due()
			w.Write(c)
		}
	})
}

// tell wakes the goroutine that writes.
func (a *Acks) tell() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Serve writes until done is closed.
func (a *Acks) Serve(done <-chan struct{}) {
	var w Work
	for {
		select {
		case <-a.wake:
		case <-done:
			return
		}
		a.mu.Lock()
		w, a.work = a.work, w
		a.mu.Unlock()
		w.Do()
	}
}
