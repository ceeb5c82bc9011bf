package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// unsettledStreams are sent to a backend before it has said how many it takes.
	unsettledStreams = 100
	// unboundedStreams is what is sent at a time where it does not say.
	unboundedStreams = 1 << 20
	// mostWaiting calls wait for a stream to one endpoint.
	mostWaiting = 8192
)

// pool is the connections to one backend, which all clients share. There is one as long as it suffices.
type pool struct {
	relay    *Relay
	endpoint *services.Endpoint // nil for the local server
	dial     func(context.Context) (net.Conn, error)

	wanted atomic.Bool // calls wait

	mu      sync.Mutex
	conns   []*conn // that take streams
	waiting []waiter
	gone    bool // no longer in the relay's map
}

// waiter is a call that waits for a stream.
type waiter struct {
	call *call
	gen  uint32
}

// opening is what came of the wish for a stream.
type opening uint8

const (
	opened opening = iota
	queued
	overfull
	stale // the pool has been given up, and another took its place
)

// open opens a stream for the call, and sends its headers. k.mu is held.
func (p *pool) open(b *batch, k *call) opening {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return stale
	}
	if p.openNow(b, k) {
		return opened
	}
	if len(p.waiting) >= mostWaiting {
		return overfull
	}
	// A stream may have ended since, and nobody was told. Whoever ends one from now on wakes those that wait.
	if !p.wanted.Swap(true) && p.openNow(b, k) {
		p.wanted.Store(false)
		return opened
	}
	p.waiting = append(p.waiting, waiter{k, k.gen})
	return queued
}

// openNow opens a stream on a connection that has one left, or on a new one. p.mu is held.
func (p *pool) openNow(b *batch, k *call) bool {
	dialing := false
	for i, c := range slices.Backward(p.conns) {
		switch c.openStream(b, k) {
		case streamOpened:
			return true
		case streamsSoon:
			dialing = true
		case streamsNever:
			p.conns = slices.Delete(p.conns, i, i+1)
		case streamsFull:
		}
	}
	if !dialing && len(p.conns) < p.relay.opts.MaxBackendConns {
		c := newConn(p.relay, p)
		c.openStream(b, k) // before it can come to its end, of which the call is to hear
		if p.relay.start(c) {
			p.conns = append(p.conns, c)
			return true
		}
		c.calls.remove(k.backendID) // the relay is closed
		k.backend = nil
	}
	return false
}

// forget takes a call out of those that wait. k.mu is held.
func (p *pool) forget(k *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.waiting, func(w waiter) bool { return w.call == k && w.gen == k.gen }); i >= 0 {
		p.waiting = slices.Delete(p.waiting, i, i+1)
		p.wanted.Store(len(p.waiting) > 0)
	}
}

// remove takes a connection out that takes no streams any more.
func (p *pool) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// resume lets calls go on that wait for a stream, as long as there are any.
func (p *pool) resume(b *batch) {
	for n := p.waiters(); n > 0; n-- {
		p.mu.Lock()
		if len(p.waiting) == 0 {
			p.mu.Unlock()
			return
		}
		w := p.waiting[0]
		p.waiting = p.waiting[1:]
		if len(p.waiting) == 0 {
			p.waiting = nil
			p.wanted.Store(false)
		}
		p.mu.Unlock()
		if !w.resume(b) {
			return
		}
	}
}

func (p *pool) waiters() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)
}

// resume lets the call go on. It returns false where it waits again.
func (w waiter) resume(b *batch) bool {
	k := w.call
	k.mu.Lock()
	defer k.unlock(b)
	if k.gen != w.gen || k.waiting.kind != forStream {
		return true
	}
	k.endWaiting()
	k.attempts--
	k.tries--
	k.send(b)
	k.settle(b)
	return k.waiting.kind != forStream
}

// room is what a connection says to one stream more.
type room uint8

const (
	streamOpened room = iota
	streamsFull
	streamsSoon  // it does not know yet how many it takes, or has much to write first
	streamsNever // it takes none any more
)

// openStream opens a stream for the call, if the connection has one left. k.mu is held.
func (c *conn) openStream(b *batch, k *call) room {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dead || c.ending || c.drain != serving:
		return streamsNever
	case c.lastID > c.relay.opts.lastStream:
		c.drain = draining
		c.endIdle(b)
		return streamsNever
	case c.out != nil && len(c.out.b) > pauseOutput:
		// Headers have no window. The backend does not read, or cannot yet: what one client sends is not to end what all
		// share, nor to fill the memory.
		c.crowded = true
		return streamsSoon
	case uint32(c.calls.n) >= c.most:
		if !c.settled {
			return streamsSoon
		}
		return streamsFull
	}
	id := c.lastID
	c.lastID += 2
	c.calls.put(id, k)
	k.backend, k.backendID = c, id
	k.up.send = c.initial
	c.touch(b)
	end := k.up.ended && k.up.q.unsent == 0
	var passedBy []byte
	if e := c.pool.endpoint; e == nil || e.Worker == "" {
		passedBy = c.relay.passedBy // it may be another master, or the local server, which may send it to one
	}
	c.appendHeaders(id, end, k.timeoutLeft(), passedBy)
	k.up.endSent = end
	return streamOpened
}

// poolOf returns the connections to an endpoint: a new pool, where it is the one that has been given up.
func (r *Relay) poolOf(e *services.Endpoint, unless *pool) *pool {
	r.mu.RLock()
	p := r.pools[e]
	r.mu.RUnlock()
	if p != nil && p != unless {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p = r.pools[e]; p == nil || p == unless {
		p = &pool{relay: r, endpoint: e, dial: func(ctx context.Context) (net.Conn, error) { return r.opts.Dial(ctx, e.Address) }}
		r.pools[e] = p
	}
	return p
}

// forget closes the connections to an endpoint that is gone, as soon as the calls on them have ended.
func (r *Relay) forget(e *services.Endpoint) {
	r.mu.Lock()
	p := r.pools[e]
	r.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	conns := slices.Clone(p.conns)
	p.conns = nil
	p.mu.Unlock()
	var b batch
	for _, c := range conns {
		c.retire(&b)
	}
	b.flush()
}

// retire lets a connection to a backend end with its last stream.
func (c *conn) retire(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain = draining
	c.endIdle(b)
}

// serveBackend is the reader goroutine of a connection to a backend.
func (c *conn) serveBackend(ctx context.Context) {
	reason := "connect to the server: "
	nc, err := c.connect(ctx)
	if err == nil {
		hello := appendSettings([]byte(http2.ClientPreface),
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxBackendHeaderList})
		c.use(nc, appendWindowUpdate(hello, 0, backendWindow-firstWindow))
		c.batch.flush()
		err = c.read()
		reason = "connection to the server lost: "
	}
	c.pool.remove(c)
	c.mu.Lock()
	if c.reason != nil {
		err = c.reason
	}
	c.killLocked(err)
	refused := c.drain == draining
	c.mu.Unlock()
	if !refused {
		c.relay.trouble("connection to a backend lost", c, err)
	}
	c.loseCalls(reason + plainly(err))
	c.batch.pools = append(c.batch.pools, c.pool)
	c.batch.flush()
	close(c.wake)
	if nc != nil {
		_ = nc.Close()
	}
}

func (c *conn) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.relay.opts.HandshakeTimeout)
	defer cancel()
	nc, err := c.pool.dial(ctx)
	if err == nil && c.relay.listensAt(nc) {
		_ = nc.Close()
		return nil, errItself
	}
	return nc, err
}

// errItself means that an endpoint's name leads here: each call of it would come back as another one, without end.
var errItself = errors.New("the address is this master's own")

// listensAt tells whether it is the relay itself that a new connection leads to.
func (r *Relay) listensAt(nc net.Conn) bool {
	there, ok1 := nc.RemoteAddr().(*net.TCPAddr)
	here, ok2 := nc.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for l := range r.listeners {
		own, ok := l.Addr().(*net.TCPAddr)
		if ok && own.Port == there.Port && (own.IP.Equal(there.IP) || own.IP.IsUnspecified() && here.IP.Equal(there.IP)) {
			return true
		}
	}
	return false
}

// loseCalls tells all calls of a connection to a backend that they have lost it. Nothing is written to it any more, but
// what has been begun.
func (c *conn) loseCalls(reason string) {
	c.mu.Lock()
	calls, seen := c.calls.all(), c.seen
	c.mu.Unlock()
	for _, s := range calls {
		c.lost(s, s.id >= seen, reason)
	}
}

// plainly words an error of a connection for the caller of a call, without addresses that are not the caller's.
func plainly(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if err == nil || errors.Is(err, io.EOF) {
		return "closed by the other side"
	}
	return err.Error()
}
