// Package relay is the gateway's data path: it relays the HTTP/2 frames of gRPC calls between clients and backends.
//
// Streams of client connections are mapped to streams of connections to backends, which all clients share. Headers
// are decoded and encoded again; DATA is forwarded as it arrives, without assembling messages. Each connection has
// a reader goroutine and a writer goroutine; calls have none. A reader handles all frames that one read has
// returned, appends the results to the output of other connections, and writes that output before it reads again,
// without blocking. Data that a socket does not accept is left to the connection's writer. So a slow peer does not
// delay the others.
//
// A clientConn is a connection to a client, a backendConn one to a backend. Each handles its frames in one file; conn
// is their common part. A call connects a stream of each: dispatch.go has its way from the request to the end.
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
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Counter counts processed calls durably.
type Counter interface {
	// Writable returns nil if Count can succeed now. A call that cannot be counted is not processed at all.
	Writable() error
	// Count counts one request, and calls Counted once, from another goroutine, when the count is durable or has
	// failed.
	Count(done interface{ Counted(err error) })
}

// Options are the options of a relay. The comments of the fields give the meaning of their zero values.
type Options struct {
	// Registry holds the services that are relayed. It is required.
	Registry *services.Registry
	// Local maps the full names of the services of LocalDial's server to the methods that it answers. Calls of
	// other methods go to the endpoints that offer the service too. If there are none, the local server refuses the
	// call.
	Local map[string][]string
	// LocalDial connects to the local server. It is required if Local is not empty.
	LocalDial func() (net.Conn, error)
	// Counted holds the paths of methods ("/proto.MyBusinessService/ProcessData") whose calls are counted before
	// they are acknowledged. Two kinds of these calls go to the local server instead, and are not counted here:
	// calls that carry [RequestID], if the server has the method, and calls whose service no endpoint offers, if
	// the server has the service.
	Counted map[string]bool
	// Counter counts these calls. It is required if Counted is not empty.
	Counter Counter
	// TLS is the TLS configuration of the port; nil disables TLS. The relay sets NextProtos itself.
	TLS *tls.Config
	// Log receives the errors of connections and, at level debug, a line for each call; nil discards them.
	Log *slog.Logger

	// MaxMessage bounds a message in bytes if its service sets no bound; 0 means 4 MiB.
	MaxMessage int
	// MaxConns bounds the connections of clients; 0 means 10,000.
	MaxConns int
	// MaxBackendConns bounds the connections to one endpoint. There is only one while that takes all streams. 0
	// means 16.
	MaxBackendConns int
	// MaxBuffered bounds the bytes that are kept for all clients together (see shed.go); 0 means 256 MiB.
	MaxBuffered int
	// MaxWait bounds the wait of a call for an endpoint if the call has no deadline; 0 means 10 s. A call with a
	// deadline waits until then.
	MaxWait time.Duration
	// HandshakeTimeout bounds the setup of a connection to a client or to a backend; 0 means 10 s.
	HandshakeTimeout time.Duration
	// HeadTimeout bounds the time between the first and the last byte of a call's headers, or of a frame other than
	// DATA; 0 means 10 s.
	HeadTimeout time.Duration
	// ClientPing is the silence after which a client is sent a PING; 0 means one minute.
	ClientPing time.Duration
	// BackendPing is the silence after which a backend with calls in flight is sent a PING; 0 means 6 minutes,
	// because grpc-go's server treats more than one PING in 5 minutes as an attack.
	BackendPing time.Duration
	// BackendSilence is how long a backend may be silent after calls have sent it something before it is sent an
	// early PING; 0 means 2 s.
	BackendSilence time.Duration
	// PingTimeout bounds the wait for the answer to a PING, to at most 4 s for a backend; 0 means 20 s.
	PingTimeout time.Duration
	// MinPing is the minimum time between PINGs from a client; 0 means 10 s.
	MinPing time.Duration
	// BackendIdle is how long a connection to a backend is kept without calls; 0 means 5 minutes.
	BackendIdle time.Duration
	// Dial connects to an endpoint; nil means TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	lastStream uint32 // the greatest id of a stream to a backend; tests lower it
	mostOpen   int    // the constant of that name; tests lower it
}

func (o *Options) defaults() {
	set(&o.MaxMessage, 4<<20)
	set(&o.MaxConns, 10_000)
	set(&o.MaxBackendConns, 16)
	set(&o.MaxBuffered, 256<<20)
	set(&o.MaxWait, 10*time.Second)
	set(&o.HandshakeTimeout, 10*time.Second)
	set(&o.HeadTimeout, 10*time.Second)
	set(&o.ClientPing, time.Minute)
	set(&o.BackendPing, 6*time.Minute)
	set(&o.BackendSilence, 2*time.Second)
	set(&o.PingTimeout, 20*time.Second)
	set(&o.MinPing, 10*time.Second)
	set(&o.BackendIdle, 5*time.Minute)
	set(&o.lastStream, frames.MaxID)
	set(&o.mostOpen, mostOpen)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dial == nil {
		dialer := &net.Dialer{}
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
}

func set[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// Relay relays calls. Its methods may be called from any goroutine.
type Relay struct {
	opts     Options
	epoch    time.Time
	debug    bool
	name     string // of this relay in [via]
	passedBy []byte // the header list with that field
	local    *pool
	// The methods of the local server by path, and its policies by service.
	localMethods  map[string]bool
	localPolicies map[string]*services.Policy

	closing atomic.Bool
	ctx     context.Context // canceled by Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of all goroutines

	mu        sync.RWMutex
	closed    bool
	listeners map[net.Listener]struct{}
	clients   map[*clientConn]struct{}
	backends  map[*backendConn]struct{}
	evicted   int           // clients whose connections are being closed to make room
	left      chan struct{} // receives a value when such a connection is closed
	others    atomic.Int64  // open descriptors that are not those of clients, as last counted
	empty     chan struct{} // closed when the relay is closing and the last client has gone

	acks     acks
	pools    pools
	peers    peers.Table
	log      *report.Log
	shedding sync.Mutex // held by the reader that terminates calls to free memory
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

var errClosing = errors.New("the master is shutting down")

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
		opts: o, epoch: time.Now(), debug: o.Log.Enabled(context.Background(), slog.LevelDebug),
		listeners: make(map[net.Listener]struct{}),
		clients:   make(map[*clientConn]struct{}), backends: make(map[*backendConn]struct{}),
		empty: make(chan struct{}), left: make(chan struct{}, 1),
	}
	r.log = report.New(o.Log, r.now)
	r.pools = newPools(func(e *services.Endpoint) *pool { return newPool(r, e) })
	if o.TLS != nil {
		r.opts.TLS = o.TLS.Clone()
		r.opts.TLS.NextProtos = []string{"h2", "http/1.1"} // the latter to refuse it clearly
	}
	var passedBy headers.List
	r.name = "hsu-" + rand.Text()
	passedBy.Add(protocol.Via, "2.0 "+r.name)
	r.passedBy = passedBy.Bytes()
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.localMethods, r.localPolicies = make(map[string]bool), make(map[string]*services.Policy)
	for service, methods := range o.Local {
		policy := o.Registry.Policy(service)
		r.localPolicies[service] = &policy
		for _, method := range methods {
			r.localMethods["/"+service+"/"+method] = true
		}
	}
	r.local = &pool{relay: r, dial: func(context.Context) (net.Conn, error) { return o.LocalDial() }}
	r.countOthers()
	r.acks.wake = make(chan struct{}, 1)
	r.wg.Go(r.watch)
	r.wg.Go(r.serveAcks)
	return r, nil
}

// now returns the time on the relay's clock, which starts at 0 in New.
func (r *Relay) now() time.Duration { return time.Since(r.epoch) }

// full reports whether more than MaxBuffered is kept for clients.
func (r *Relay) full() bool { return r.peers.Held() > int64(r.opts.MaxBuffered) }

// Serve accepts connections until the relay is closed, and then returns [ErrClosed]. It closes the listener.
func (r *Relay) Serve(l net.Listener) error {
	r.mu.Lock()
	if r.closed || r.closing.Load() {
		r.mu.Unlock()
		return errors.Join(ErrClosed, l.Close())
	}
	r.listeners[l] = struct{}{}
	r.mu.Unlock()
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
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Too many open files, or a client that has gone: the other clients must not suffer.
			if errors.Is(err, syscall.EMFILE) {
				r.evictFor(nil)
			}
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			r.log.Warning("cannot accept a connection", l.Addr().String(), err)
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
	c := newClientConn(r, nc, r.peers.Join(r.now(), peers.ByAddress(nc)))
	if !r.makeRoom(c) || !r.startClient(c) {
		c.member.Leave()
		_ = nc.Close()
	}
}

// startClient starts the goroutines of a client's connection. It returns false if no further one is allowed.
func (r *Relay) startClient(c *clientConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.clients)-r.evicted >= r.opts.MaxConns || r.closing.Load() {
		return false
	}
	r.clients[c] = struct{}{}
	r.wg.Go(c.write)
	r.wg.Go(func() {
		c.serve()
		r.removeClient(c)
	})
	return true
}

func (r *Relay) removeClient(c *clientConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.clients, c)
	if c.evicted {
		r.evicted--
		select {
		case r.left <- struct{}{}:
		default:
		}
	}
	if len(r.clients) == 0 && r.closing.Load() {
		r.finish()
	}
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
		c.serve(r.ctx)
		r.mu.Lock()
		delete(r.backends, c)
		r.mu.Unlock()
	})
	return true
}

// finish records that the last client has gone. r.mu is held.
func (r *Relay) finish() {
	select {
	case <-r.empty:
	default:
		close(r.empty)
	}
}

// Shutdown waits until all calls in flight have ended or ctx is done, and closes the relay. Clients are told to
// open no more streams; streams that they open before they read that are still served.
func (r *Relay) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.closing.Store(true)
	r.log.End()
	for l := range r.listeners {
		_ = l.Close()
	}
	if len(r.clients) == 0 {
		r.finish()
	}
	r.mu.Unlock()
	var w deferred.Work
	for _, c := range r.allClients() {
		c.warn(&w)
	}
	w.Do()
	var err error
	select {
	case <-r.empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Close()
	return err
}

// Close ends all connections and calls at once, and returns when all goroutines of the relay have ended.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.closing.Store(true)
	r.log.End()
	for l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Unlock()
	r.cancel()
	for _, c := range r.allClients() {
		c.kill(errClosing)
	}
	for _, c := range r.allBackends() {
		c.kill(errClosing)
	}
	r.wg.Wait()
}

// allClients returns the current connections to clients.
func (r *Relay) allClients() []*clientConn {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.AppendSeq(make([]*clientConn, 0, len(r.clients)), maps.Keys(r.clients))
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
	for _, c := range r.allClients() {
		s.Clients++
		c.mu.Lock()
		s.Streams += c.calls.Len()
		c.mu.Unlock()
	}
	s.Backends = len(r.allBackends())
	return s
}
