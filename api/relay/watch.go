package relay

import (
	"errors"
	"time"
)

var (
	errSilent    = errors.New("no answer to a PING")
	errHandshake = errors.New("no HTTP/2 within the time for it")
)

// watch looks after all connections: those that are silent get a PING, those that do not answer, or are not needed,
// are closed. One goroutine and no timers for connections.
func (r *Relay) watch() {
	o := &r.opts
	every := min(time.Second, o.HandshakeTimeout/4, o.ClientPing/4, o.BackendPing/4, o.PingTimeout/4, o.BackendIdle/4)
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	var b batch
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		for _, c := range r.all() {
			c.look(&b, r.now())
		}
		b.hand()
		r.forgetUnused()
	}
}

// look does what is due on a connection.
func (c *conn) look(b *batch, now time.Duration) {
	o := &c.relay.opts
	heard := time.Duration(c.heard.Load())
	ping := o.ClientPing
	if c.pool != nil {
		ping = o.BackendPing
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dead:
	case c.ending:
		// A peer that does not read would hold up its end for ever.
		if c.endedAt == 0 {
			c.endedAt = now
		} else if now-c.endedAt > o.PingTimeout {
			c.killLocked(errSlow)
		}
	case !c.settled:
		if now-c.began > o.HandshakeTimeout {
			c.killLocked(errHandshake)
		}
	case c.pinged > heard:
		if now-c.pinged > o.PingTimeout {
			c.killLocked(errSilent)
		}
	case c.pool != nil && c.calls.n == 0:
		if now-c.idle > o.BackendIdle {
			c.drain = draining
			c.endIdle(b)
		}
	case now-heard > ping:
		c.pinged = now
		c.touch(b)
		c.out.b = appendPing(c.out.b, false, ourPing)
	}
}

// forgetUnused closes the connections to endpoints that are gone, and gives up pools without connections.
func (r *Relay) forgetUnused() {
	r.mu.RLock()
	pools := make([]*pool, 0, len(r.pools))
	for _, p := range r.pools {
		pools = append(pools, p)
	}
	r.mu.RUnlock()
	for _, p := range pools {
		if p.endpoint.Gone() {
			r.forget(p.endpoint)
		}
		p.mu.Lock()
		p.gone = len(p.conns) == 0 && len(p.waiting) == 0
		gone := p.gone
		p.mu.Unlock()
		if gone {
			r.mu.Lock()
			if r.pools[p.endpoint] == p {
				delete(r.pools, p.endpoint)
			}
			r.mu.Unlock()
		}
	}
}
