package relay

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/services"
)

const (
	// mostWaiting bounds the calls that wait for a stream to one endpoint.
	mostWaiting = 8192
	// unsettledStreams bounds the concurrent streams to a backend that has not announced its limit yet.
	unsettledStreams = 100
)

// pool holds the connections to one backend, which all clients share. There is one connection as long as it
// suffices.
type pool struct {
	env      *env
	endpoint *services.Endpoint // nil for the local server
	dial     func(context.Context) (net.Conn, error)
	start    func(*backendConn) bool // starts a connection; false if the relay is closed

	wanted    atomic.Bool   // calls are waiting
	announced atomic.Uint32 // concurrent streams that the last connection allowed; 0: not announced yet

	mu      sync.Mutex
	conns   []*backendConn // those that accept streams
	shares  fair.Shares
	waiting fair.Queue[callUse]
	gone    bool // given up: opens no streams any more
}

// opening is the result of opening a stream.
type opening uint8

const (
	opened opening = iota
	queued
	overfull
	stale // the pool has been given up, and another one has taken its place
)

// open opens a stream for the call and sends its headers. again means that the call has waited and it is its turn.
// k.mu is held.
func (p *pool) open(w *deferred.Work, k *call, again bool) opening {
	client := k.client.conn.asClient()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return stale
	}
	if !again && p.waiting.Len() > 0 && !p.excepted(p.shares.Of(client).Held()) {
		return p.enqueue(w, k, client) // behind others, or ahead of clients that have used up their share
	}
	if p.openNow(w, k, client) {
		return opened
	}
	// A stream may have ended since then without waking a call. From now on, the end of a stream wakes waiting
	// calls.
	if !p.wanted.Swap(true) && p.openNow(w, k, client) {
		p.wanted.Store(p.waiting.Len() > 0)
		return opened
	}
	if again {
		k.backend.place = p.waiting.PushFront(client, callUse{k, k.gen})
		return queued
	}
	return p.enqueue(w, k, client)
}

// enqueue makes the call wait for a stream. If the queue is full, a client with fewer waiting calls displaces a
// call of a client with more. p.mu is held.
func (p *pool) enqueue(w *deferred.Work, k *call, client fair.Client) opening {
	if p.waiting.Len() >= mostWaiting {
		u, ok := p.waiting.Displace(client)
		if !ok {
			return overfull
		}
		w.End(u)
	}
	k.backend.place = p.waiting.Push(client, callUse{k, k.gen})
	w.Wake(p)
	return queued
}

// excepted reports whether a call of a client that holds that many streams need not wait behind others or for its
// peer's share: it is the only call of its connection, and the peer has all the streams that it may have. p.mu is
// held.
func (p *pool) excepted(held fair.Held) bool {
	return held.Conn == 0 && held.Peer >= p.env.opts.mostOpen
}

// may reports whether a client that holds that many streams may have one more. p.mu is held.
func (p *pool) may(held fair.Held) bool {
	if p.excepted(held) {
		return true
	}
	free := p.unopened()
	for i := 0; held.May(free, p.env.opts.mostOpen) != fair.Granted; i++ {
		if i == len(p.conns) {
			return false
		}
		free += p.conns[i].freeStreams()
	}
	return true
}

// next removes the call whose turn it is from the queue, if there is a stream for it.
func (p *pool) next() (u callUse, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.unopened()
	for _, c := range p.conns {
		free += c.freeStreams()
	}
	if free > 0 {
		u, ok = p.waiting.Next(func(c fair.Client) fair.Verdict {
			return p.shares.Of(c).Held().May(free, p.env.opts.mostOpen)
		})
	}
	if p.waiting.Len() == 0 {
		p.wanted.Store(false)
	}
	return u, ok
}

// unopened returns how many streams fit on connections that do not exist yet. p.mu is held.
func (p *pool) unopened() int {
	return (p.env.opts.MaxBackendConns - len(p.conns)) * int(p.firstStreams())
}

// openNow opens a stream if the client may have one. p.mu is held.
func (p *pool) openNow(w *deferred.Work, k *call, client fair.Client) bool {
	share := p.shares.Of(client)
	if !p.may(share.Held()) || !p.openAny(w, k) {
		return false
	}
	share.Take()
	k.backend.share = share
	return true
}

// openAny opens a stream on a connection that accepts one, or on a new connection. p.mu is held.
func (p *pool) openAny(w *deferred.Work, k *call) bool {
	dialing := false
	var usedUp *backendConn
	for i, c := range slices.Backward(p.conns) {
		switch c.openStream(w, k, false) {
		case streamOpened:
			return true
		case streamsSoon:
			dialing = true
		case streamsNever:
			p.conns = slices.Delete(p.conns, i, i+1)
		case streamsUsedUp:
			usedUp = c
		case streamsFull:
		}
	}
	if !dialing && len(p.conns) < p.env.opts.MaxBackendConns {
		c := newBackendConn(p.env, p)
		c.openStream(w, k, true) // before the connection can end, so that the call learns of the end
		if p.start(c) {
			p.conns = append(p.conns, c)
			return true
		}
		c.abandon(k) // the relay is closed
	}
	return usedUp != nil && usedUp.openStream(w, k, true) == streamOpened
}

// firstStreams returns how many streams are sent to a new connection before its backend has announced a limit: no
// more than the backend accepted on the last connection.
func (p *pool) firstStreams() uint32 {
	if n := p.announced.Load(); n != 0 {
		return min(n, unsettledStreams)
	}
	return unsettledStreams
}

// forget removes a call from the queue. k.mu is held.
func (p *pool) forget(k *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting.Remove(k.backend.place) {
		p.wanted.Store(p.waiting.Len() > 0)
	}
	k.backend.place = nil
}

// remove removes a connection that accepts no more streams.
func (p *pool) remove(c *backendConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// Resume continues the calls that wait for a stream, as long as there are streams.
func (p *pool) Resume(w *deferred.Work) {
	for n := p.waiters(); n > 0; n-- {
		if u, ok := p.next(); !ok || !u.resume(w) {
			return
		}
	}
}

func (p *pool) waiters() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len()
}

// retire closes the pool's connections once the calls on them have ended.
func (p *pool) retire() {
	p.mu.Lock()
	conns := slices.Clone(p.conns)
	p.conns = nil
	p.mu.Unlock()
	var w deferred.Work
	for _, c := range conns {
		c.retire(&w)
	}
	w.Do()
}

// giveUp gives up the pool if it has neither connections nor calls that wait, and reports whether it has done so.
func (p *pool) giveUp() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = len(p.conns) == 0 && p.waiting.Len() == 0
	return p.gone
}

// pools holds the pools of all endpoints that calls have been sent to. Each endpoint has at most one pool that opens
// streams. A pool that has been given up stays so, and another one takes its place.
type pools struct {
	add   func(*services.Endpoint) *pool // makes a pool
	local *pool                          // of the local server

	mu sync.RWMutex // acquired after that of a call, and never together with that of a pool
	m  map[*services.Endpoint]*pool
}

func newPools(add func(*services.Endpoint) *pool) pools {
	return pools{add: add, m: make(map[*services.Endpoint]*pool)}
}

// of returns the pool of an endpoint. If that is unless, which has been given up, it returns a new pool.
func (s *pools) of(e *services.Endpoint, unless *pool) *pool {
	s.mu.RLock()
	p := s.m[e]
	s.mu.RUnlock()
	if p != nil && p != unless {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p = s.m[e]; p == nil || p == unless {
		p = s.add(e)
		s.m[e] = p
	}
	return p
}

// all returns the current pools.
func (s *pools) all() []*pool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*pool, 0, len(s.m)), maps.Values(s.m))
}

// sweep closes the connections to endpoints that are gone, and gives up pools without connections.
func (s *pools) sweep() {
	for _, p := range s.all() {
		if p.endpoint.Gone() {
			p.retire()
		}
		if !p.giveUp() {
			continue
		}
		s.mu.Lock()
		if s.m[p.endpoint] == p {
			delete(s.m, p.endpoint)
		}
		s.mu.Unlock()
	}
}
