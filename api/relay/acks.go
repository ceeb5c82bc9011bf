package relay

import (
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
)

// acks writes acknowledgments that are not written by the goroutine that appends them: the ends of calls that have
// just been counted, and the answers to PINGs. A counter reports many calls at once, one after the other, each of
// them perhaps of another client. The output is collected, and written by one goroutine that is woken once for all
// of it.
type acks struct {
	mu   sync.Mutex // acquired before call.mu
	work deferred.Work
	wake chan struct{}

	lateMu sync.Mutex
	late   []*conn     // have the answer to a PING in their output, which may not have been written yet
	timer  *time.Timer // runs while late is not empty
}

// ackDelay is how long the answer to a PING waits for other output. If nothing else is sent, it adds to the
// round-trip time that the peer measures, but then the round-trip time does not matter.
const ackDelay = time.Millisecond

// later makes the connection's output be written after ackDelay.
func (a *acks) later(c *conn) {
	a.lateMu.Lock()
	defer a.lateMu.Unlock()
	a.late = append(a.late, c)
	if len(a.late) > 1 {
		return
	}
	if a.timer == nil {
		a.timer = time.AfterFunc(ackDelay, a.due)
	} else {
		a.timer.Reset(ackDelay)
	}
}

// due passes the connections in late to the goroutine that writes.
func (a *acks) due() {
	a.lateMu.Lock()
	late := a.late
	a.late = nil
	a.lateMu.Unlock()
	a.mu.Lock()
	for _, c := range late {
		c.late.Store(false)
		a.work.Write(c)
	}
	a.mu.Unlock()
	a.tell()
}

// tell wakes the goroutine that writes.
func (a *acks) tell() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// serveAcks is the goroutine that writes the output of acks.
func (r *Relay) serveAcks() {
	var w deferred.Work
	for {
		select {
		case <-r.acks.wake:
		case <-r.ctx.Done():
			return
		}
		r.acks.mu.Lock()
		w, r.acks.work = r.acks.work, w
		r.acks.mu.Unlock()
		w.Do()
	}
}
