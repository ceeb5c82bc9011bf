// Package relay is the gateway's data path: it relays the HTTP/2 frames of gRPC calls between clients and backends.
//
// Streams of client connections are mapped onto streams of connections to backends, which all clients share. Headers
// are decoded and encoded again; DATA is passed on as it comes, without assembling messages. Each connection has a
// reader goroutine and a writer goroutine, and no call has one. A reader handles all frames that one read has brought,
// appends what follows to the output of other connections, and writes those before it reads again, without blocking;
// what a socket does not take is left to its writer. So nobody who is slow holds up another.
//
// Flow control is kept on both sides: credit is given back to a sender when its data has moved on. What moves freely
// gets a larger window.
//
// The hazards: a call is pooled, and found through tables of ids, so whoever locks one checks that it still is the one
// (conn.go names the order of locks). Nothing that is called with a lock held may block.
package relay

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Counter counts what was processed, durably.
type Counter interface {
	// Writable returns nil where Count can succeed now. What could not be counted is not done in the first place.
	Writable() error
	// Count counts one request, and calls Counted once, from another goroutine, when that is durable or has failed.
	Count(done interface{ Counted(err error) })
}

// Options of a relay. The zero value of a field has the meaning that it names.
type Options struct {
	// Registry knows the services that are relayed. Required.
	Registry *services.Registry
	// Local holds the full names of the services that LocalDial's server answers, and their methods. Others of their
	// methods are for whoever offers the service besides; where nobody does, the server refuses them.
	Local map[string][]string
	// LocalDial connects to the local server; required where Local has any.
	LocalDial func() (net.Conn, error)
	// Counted holds the paths of methods ("/proto.MyBusinessService/ProcessData") whose calls are counted before they
	// are acknowledged. A call that carries [RequestID], or whose service nobody offers, goes to the local server
	// instead, if that has the service, and is not counted here.
	Counted map[string]bool
	// Counter counts them; required where Counted has any.
	Counter Counter
	// TLS is the configuration of the port; nil: none. ALPN is the relay's own matter.
	TLS *tls.Config
	// Log gets what goes wrong with connections, and, where debug is enabled, a line for each call; nil: nothing.
	Log *slog.Logger

	// MaxMessage bounds a message in bytes where its service has no bound; 0: 4 MiB.
	MaxMessage int
	// MaxConns bounds the connections of clients; 0: 10,000.
	MaxConns int
	// MaxBackendConns bounds the connections to one endpoint, of which there is one while that takes all streams; 0: 16.
	MaxBackendConns int
	// MaxBuffered bounds what is queued for all calls, in bytes; 0: 256 MiB.
	MaxBuffered int
	// MaxWait bounds the wait for an endpoint of a call without a deadline, which else bounds it; 0: 10 s.
	MaxWait time.Duration
	// HandshakeTimeout bounds the time until a connection is set up, of either kind; 0: 10 s.
	HandshakeTimeout time.Duration
	// ClientPing is the silence of a client after which it is sent a PING; 0: a minute.
	ClientPing time.Duration
	// BackendPing is the silence of a backend with calls under way after which it is sent a PING; 0: 6 minutes, for
	// grpc-go's server takes one every 5 minutes for an attack.
	BackendPing time.Duration
	// PingTimeout is how long the answer may take; 0: 20 s.
	PingTimeout time.Duration
	// MinPing is the least time between PINGs of a client; 0: 10 s.
	MinPing time.Duration
	// BackendIdle is how long a connection to a backend is kept without calls; 0: 5 minutes.
	BackendIdle time.Duration
	// Dial connects to an endpoint; nil: TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)

	lastStream uint32 // the greatest id of a stream to a backend; tests lower it
}

func (o *Options) defaults() {
	set(&o.MaxMessage, 4<<20)
	set(&o.MaxConns, 10_000)
	set(&o.MaxBackendConns, 16)
	set(&o.MaxBuffered, 256<<20)
	set(&o.MaxWait, 10*time.Second)
	set(&o.HandshakeTimeout, 10*time.Second)
	set(&o.ClientPing, time.Minute)
	set(&o.BackendPing, 6*time.Minute)
	set(&o.PingTimeout, 20*time.Second)
	set(&o.MinPing, 10*time.Second)
	set(&o.BackendIdle, 5*time.Minute)
	set(&o.lastStream, maxID)
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

// Relay relays calls. All its methods may be called from any goroutine.
type Relay struct {
	opts     Options
	epoch    time.Time
	debug    bool
	name     string // in [via]
	passedBy []byte // the list with it
	local    *pool
	// Of what it answers: by path, and the policies by service.
	localMethods  map[string]bool
	localPolicies map[string]*services.Policy

	closing atomic.Bool
	queued  atomic.Int64
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // of all goroutines

	mu        sync.RWMutex
	closed    bool
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	clients   int
	empty     chan struct{} // closed when closing and the last client has gone
	pools     map[*services.Endpoint]*pool
	warnings  purse
	silenced  int // warnings since the last that was logged

	acks acks
}

// Stats are figures of a relay.
type Stats struct {
	// Clients and Backends are the connections that are open now.
	Clients, Backends int
	// Streams are the calls under way.
	Streams int
	// Queued is what waits for the windows of clients and backends, or is kept for a second attempt, in bytes.
	Queued int64
}

// ErrClosed is what [Relay.Serve] returns after [Relay.Shutdown] or [Relay.Close].
var ErrClosed = errors.New("the relay is closed")

var errClosing = errors.New("the master is shutting down")

// New returns a relay, which serves when Serve is called. It must be closed.
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
		listeners: make(map[net.Listener]struct{}), conns: make(map[*conn]struct{}),
		pools: make(map[*services.Endpoint]*pool), empty: make(chan struct{}),
	}
	if o.TLS != nil {
		r.opts.TLS = o.TLS.Clone()
		r.opts.TLS.NextProtos = []string{"h2", "http/1.1"} // the latter for a clear refusal
	}
	var passedBy headers.List
	r.name = "hsu-" + rand.Text()
	passedBy.Add(via, "2.0 "+r.name)
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
	r.acks.wake = make(chan struct{}, 1)
	r.wg.Go(r.watch)
	r.wg.Go(r.serveAcks)
	return r, nil
}

// now is the relay's clock: the time since it was made.
func (r *Relay) now() time.Duration { return time.Since(r.epoch) }

// full tells that as much is queued as may be.
func (r *Relay) full() bool { return r.queued.Load() > int64(r.opts.MaxBuffered) }

// Serve accepts connections until the relay is closed, and returns [ErrClosed] then. It closes the listener.
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
			// Too many open files, or a client that has gone: the others are not to suffer.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			r.warning("cannot accept a connection", l.Addr().String(), err)
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

// accept takes a client's connection on.
func (r *Relay) accept(nc net.Conn) {
	c := newConn(r, nil)
	c.nc = nc
	if !r.start(c) {
		_ = nc.Close()
	}
}

// start starts the goroutines of a connection; false where there may be no more.
func (r *Relay) start(c *conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || c.pool == nil && (r.clients >= r.opts.MaxConns || r.closing.Load()) {
		return false
	}
	r.conns[c] = struct{}{}
	if c.pool == nil {
		r.clients++
	}
	r.wg.Go(c.write)
	r.wg.Go(func() {
		if c.pool == nil {
			c.serveClient()
		} else {
			c.serveBackend(r.ctx)
		}
		r.remove(c)
	})
	return true
}

func (r *Relay) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	if c.pool == nil {
		r.clients--
		if r.clients == 0 && r.closing.Load() {
			r.finish()
		}
	}
}

// finish notes that the last client has gone. r.mu is held.
func (r *Relay) finish() {
	select {
	case <-r.empty:
	default:
		close(r.empty)
	}
}

// Shutdown lets the calls under way end, but ctx bounds the wait, and closes the relay. Clients are told to open no
// more streams; what they had sent before they read that is served.
func (r *Relay) Shutdown(ctx context.Context) error {
	r.mu.Lock()
	r.closing.Store(true)
	for l := range r.listeners {
		_ = l.Close()
	}
	if r.clients == 0 {
		r.finish()
	}
	r.mu.Unlock()
	var b batch
	for _, c := range r.all() {
		if c.pool == nil {
			c.warn(&b)
		}
	}
	b.flush()
	var err error
	select {
	case <-r.empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	r.Close()
	return err
}

// Close ends all connections and calls at once, and returns when nothing of the relay runs any more.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed = true
	r.closing.Store(true)
	for l := range r.listeners {
		_ = l.Close()
	}
	r.mu.Unlock()
	r.cancel()
	for _, c := range r.all() {
		c.kill(errClosing)
	}
	r.wg.Wait()
}

// all returns the connections that there are.
func (r *Relay) all() []*conn {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]*conn, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	return all
}

// Stats returns the figures of now.
func (r *Relay) Stats() Stats {
	s := Stats{Queued: r.queued.Load()}
	for _, c := range r.all() {
		if c.pool != nil {
			s.Backends++
			continue
		}
		s.Clients++
		c.mu.Lock()
		s.Streams += c.calls.n
		c.mu.Unlock()
	}
	return s
}
