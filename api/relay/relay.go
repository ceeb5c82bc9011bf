// Package relay is the gateway's data path: it relays the HTTP/2 frames of gRPC calls between clients and backends.
//
// Streams of client connections are mapped to streams of connections to backends, which all clients share. Headers
// are decoded and encoded again; DATA is forwarded as it arrives, without assembling messages. Each connection has
// a reader goroutine and a writer goroutine; calls have none. A reader handles all frames that one read has
// returned, appends the results to the output of other connections, and writes that output before it reads again,
// without blocking. Data that a socket does not accept is left to the connection's writer. So a slow peer does not
// delay the others.
//
// A clientConn is a connection to a client, a backendConn one to a backend; conn is their common part. The state of the
// reader goroutines, and the handling of frames, is apart from that, in clientReader, backendReader and reader. A call
// connects a stream of each: dispatch.go has its way from the request to the end. All of them share env. What can be
// understood without calls is in the packages below: the bytes of a connection in wire and frames, what gRPC says in
// protocol and retry, and flow control in window.
//
// Flow control works on both sides: a sender gets credit back when its data has been sent on. A stream whose data
// moves freely gets a larger window.
//
// Hazards: calls are pooled and found through tables of stream ids, so code that locks a call must check that it is
// still the same call (conn.go defines the order of locks). Code that holds a lock must not block.
package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Relay relays calls. Its methods may be called from any goroutine.
type Relay struct {
	env
	clients crowd
	pools   pools
	ctx     context.Context // canceled by Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of all goroutines
	accepts sync.WaitGroup // of the calls of Serve
	empty   chan struct{}  // closed when the relay is closing and the last client has gone
	ended   sync.Once      // closes empty

	mu        sync.RWMutex
	ending    bool // no connection is accepted any more
	closed    bool
	listeners map[net.Listener]struct{}
	backends  map[*backendConn]struct{}
}

// Stats holds the figures of a relay.
type Stats struct {
	// Clients and Backends are the numbers of open connections.
	Clients, Backends int
	// Streams is the number of calls in flight.
	Streams int
	// Queued is the number of bytes that are kept for calls, apart from the fixed cost of each call: data and
	// headers that wait to be sent or are kept for a retry, and frames that have arrived in part.
	Queued int64
}

// ErrClosed is returned by [Relay.Serve] after [Relay.Shutdown] or [Relay.Close].
var ErrClosed = errors.New("the relay is closed")

// New returns a relay, which serves when Serve is called. The caller must close it.
func New(o Options) (*Relay, error) {
	switch {
	case o.Registry == nil:
		return nil, errors.New("relay: no registry of services")
	case len(o.Local) > 0 && o.LocalDial == nil:
		return nil, errors.New("relay: local services, but no way to reach them")
	case len(o.Counted) > 0 && o.Counter == nil:
		return nil, errors.New("relay: methods to count, but no counter")
	}
	o.defaults()
	r := &Relay{
		env: env{
			opts: o, epoch: time.Now(), debug: o.Log.Enabled(context.Background(), slog.LevelDebug),
			name: "hsu-" + rand.Text(), acks: deferred.NewAcks(o.ackDelay),
			localMethods: make(map[string]bool), localPolicies: make(map[string]*services.Policy),
		},
		listeners: make(map[net.Listener]struct{}), backends: make(map[*backendConn]struct{}),
		empty: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.log = report.New(o.Log, r.now)
	r.clients.init(&r.env, r.ctx.Done())
	r.shed = r.clients.shed
	r.pools = newPools(r.newPool)
	r.pools.local = &pool{env: &r.env, start: r.startBackend, dial: func(context.Context) (net.Conn, error) {
		return o.LocalDial()
	}}
	if o.TLS != nil {
		r.opts.TLS = o.TLS.Clone()
		r.opts.TLS.NextProtos = []string{"h2", "http/1.1"} // the latter to refuse it clearly
	}
	var passedBy headers.List
	passedBy.Add(protocol.Via, "2.0 "+r.name)
	r.passedBy = passedBy.Bytes()
	for service, methods := range o.Local {
		policy := o.Registry.Policy(service)
		r.localPolicies[service] = &policy
		for _, method := range methods {
			r.localMethods["/"+service+"/"+method] = true
		}
	}
	r.clients.countOthers()
	r.wg.Go(r.watch)
	r.wg.Go(func() { r.acks.Serve(r.ctx.Done()) })
	return r, nil
}

// Serve accepts connections until the relay is closed, and then returns [ErrClosed]. It closes the listener.
func (r *Relay) Serve(l net.Listener) error {
	r.mu.Lock()
	if r.closed || r.ending {
		r.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	r.listeners[l] = struct{}{}
	r.accepts.Add(1)
	r.mu.Unlock()
	defer r.accepts.Done()
	defer func() {
		_ = l.Close()
		r.mu.Lock()
		delete(r.listeners, l)
		r.mu.Unlock()
	}()
	var wait time.Duration
	for {
		nc, err := l.Accept()
		switch {
		case r.closing.Load():
			if err == nil {
				_ = nc.Close()
			}
			return ErrClosed
		case errors.Is(err, net.ErrClosed) && r.isEnding():
			return ErrClosed
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Too many open files, or a client that has gone: the other clients must not suffer.
			if errors.Is(err, syscall.EMFILE) {
				r.clients.evictFor(nil)
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			r.log.AcceptFailed(l.Addr().String(), err)
			select {
			case <-time.After(wait):
			case <-r.ctx.Done():
			}
			continue
		}
		wait = 0
		r.accept(nc)
	}
}

// accept starts serving a client's connection, or closes it if there is no room.
func (r *Relay) accept(nc net.Conn) {
	c := newClientConn(&r.env, &r.pools, nc, r.peers.Join(r.now(), peers.ByAddress(nc)))
	if !r.clients.makeRoom(c) || !r.clients.add(c, func() { r.startClient(c) }) {
		c.account.Leave()
		_ = nc.Close()
	}
}

// startClient starts the goroutines of a client's connection.
func (r *Relay) startClient(c *clientConn) {
	r.wg.Go(c.write)
	r.wg.Go(func() {
		newClientReader(c).serve()
		if r.clients.remove(c) == 0 && r.closing.Load() {
			r.finish()
		}
	})
}

// startBackend starts the goroutines of a connection to a backend. It returns false if the relay is closed.
func (r *Relay) startBackend(c *backendConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.backends[c] = struct{}{}
	r.wg.Go(c.write)
	r.wg.Go(func() {
		newBackendReader(c).serve(r.ctx)
		r.mu.Lock()
		delete(r.backends, c)
		r.mu.Unlock()
	})
	return true
}

// newPool returns the pool of an endpoint.
func (r *Relay) newPool(e *services.Endpoint) *pool {
	return &pool{env: &r.env, endpoint: e, start: r.startBackend, dial: func(ctx context.Context) (net.Conn, error) {
		return r.dialEndpoint(ctx, e)
	}}
}

// errItself is returned if an endpoint's address leads to this relay: each call would come back as another,
// endlessly.
var errItself = errors.New("the address is this master's own")

// dialEndpoint returns a connection that is verified to lead to the endpoint, if the endpoint can be verified.
func (r *Relay) dialEndpoint(ctx context.Context, e *services.Endpoint) (net.Conn, error) {
	nc, err := r.opts.Dial(ctx, e.Address)
	if err != nil {
		return nc, err
	}
	if e.Verify != nil {
		err = e.Verify(ctx, nc)
	}
	if err == nil && r.listensAt(nc) {
		err = errItself
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc, nil
}

// listensAt reports whether a new connection leads to the relay itself.
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
		if ok && own.Port == there.Port &&
			(own.IP.Equal(there.IP) || own.IP.IsUnspecified() && here.IP.Equal(there.IP)) {
			return true
		}
	}
	return false
}

// finish records that the last client has gone.
func (r *Relay) finish() { r.ended.Do(func() { close(r.empty) }) }

// StopAccepting closes the listeners and returns when each call of Serve has returned, with an error that wraps
// [net.ErrClosed]. All connections that were accepted are served.
func (r *Relay) StopAccepting() {
	r.mu.Lock()
	for l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Unlock()
	r.accepts.Wait()
}

// isEnding reports whether the relay accepts no more connections for good.
func (r *Relay) isEnding() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ending
}

// Shutdown drains the relay, as Drain does, and closes it.
func (r *Relay) Shutdown(ctx context.Context) error {
	err := r.Drain(ctx)
	r.Close()
	return err
}

// Drain returns when all calls in flight have ended, or ctx is done. Clients are told to open no more streams; streams
// that they open before they read that are still served, and so are connections that have just been accepted.
func (r *Relay) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.ending = true
	r.mu.Unlock()
	r.StopAccepting()
	r.closing.Store(true)
	r.log.End()
	clients := r.clients.all()
	if len(clients) == 0 {
		r.finish()
	}
	var w deferred.Work
	for _, c := range clients {
		c.warn(&w)
	}
	w.Do()
	select {
	case <-r.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends all connections and calls at once, and returns when all goroutines of the relay have ended.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed, r.ending = true, true
	r.closing.Store(true)
	r.log.End()
	for l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Unlock()
	r.cancel()
	for _, c := range r.clients.close() {
		c.kill(errClosing)
	}
	for _, c := range r.allBackends() {
		c.kill(errClosing)
	}
	r.wg.Wait()
}

// allBackends returns the current connections to backends.
func (r *Relay) allBackends() []*backendConn {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.AppendSeq(make([]*backendConn, 0, len(r.backends)), maps.Keys(r.backends))
}

// Stats returns the current figures.
func (r *Relay) Stats() Stats {
	s := Stats{Queued: r.peers.Queued()}
	for _, c := range r.clients.all() {
		s.Clients++
		s.Streams += c.streamCount()
	}
	s.Backends = len(r.allBackends())
	return s
}

// lateness is the delay of a tick from which the silence of peers proves nothing.
const lateness = time.Second

// watch checks all connections at each tick. Silent connections get a PING; connections whose peers do not answer,
// and connections that are not needed, are closed. So connections need neither timers nor goroutines for this.
func (r *Relay) watch() {
	o := &r.opts
	every := min(time.Second, o.HandshakeTimeout/4, o.HeadTimeout/4, o.ClientPing/4,
		o.BackendPing/4, o.BackendSilence/4, o.PingTimeout/4, o.BackendIdle/4)
	tick := time.NewTicker(max(every, time.Millisecond))
	defer tick.Stop()
	var w deferred.Work
	for last := r.now(); ; {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		now := r.now()
		late := now-last > every+lateness
		if last = now; late {
			continue // this process was stopped or starved: read first, the answer may have arrived meanwhile
		}
		for _, c := range r.clients.all() {
			c.look(&w, r.now())
			c.goOn(&w) // other clients may have released memory
		}
		for _, c := range r.allBackends() {
			c.look(&w, r.now())
		}
		w.Hand()
		r.clients.countOthers()
		r.pools.sweep()
		r.peers.Sweep(r.now())
	}
}
