package relay

import (
	"sync"
	"time"
)

// acks writes what acknowledges and is not written by who appends it: the ends of calls that have just been counted,
// and the answers to PINGs. A counter tells of many calls at once, one after the other, and each may be a client's of
// its own: they are gathered, and written by a goroutine that all of them wake once.
type acks struct {
	mu    sync.Mutex // before call.mu
	batch batch
	wake  chan struct{}

	lateMu sync.Mutex
	late   []*conn     // with the answer to a PING, which nothing else may have taken along yet
	timer  *time.Timer // runs while there are any
}

// ackDelay is how long the answer to a PING waits for company. It is added to what the peer takes for the connection's
// round trip where nothing else is sent, which is where that does not matter.
const ackDelay = time.Millisecond

// later has the connection's output written after ackDelay.
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

// due hands the connections whose time has come to the goroutine that writes.
func (a *acks) due() {
	a.lateMu.Lock()
	late := a.late
	a.late = nil
	a.lateMu.Unlock()
	a.mu.Lock()
	for _, c := range late {
		c.late.Store(false)
		a.batch.conns = append(a.batch.conns, c)
	}
	a.mu.Unlock()
	a.tell()
}

// tell wakes the goroutine.
func (a *acks) tell() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Counted is called by the [Counter] when the call has been counted, or could not be.
func (k *call) Counted(err error) {
	a := &k.relay.acks // a call stays what it is while it is being counted
	a.mu.Lock()
	k.mu.Lock()
	k.counting, k.holding = false, false
	if err != nil && k.client != nil {
		k.code = codeUnavailable
		k.setTrailers(codeUnavailable, notCounted+err.Error())
	}
	if k.client != nil {
		k.down.pump(&a.batch)
		k.settle(&a.batch)
	}
	k.unlock(&a.batch)
	a.mu.Unlock()
	a.tell()
}

// serveAcks is the goroutine that writes them.
func (r *Relay) serveAcks() {
	var b batch
	for {
		select {
		case <-r.acks.wake:
		case <-r.ctx.Done():
			return
		}
		r.acks.mu.Lock()
		b, r.acks.batch = r.acks.batch, b
		r.acks.mu.Unlock()
		b.flush()
	}
}
