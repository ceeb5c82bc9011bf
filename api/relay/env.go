package relay

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
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
	// calls that carry [protocol.RequestID], if the server has the method, and calls whose service no endpoint
	// offers, if the server has the service.
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

	lastStream uint32        // the greatest id of a stream to a backend; tests lower it
	mostOpen   int           // the constant of that name; tests lower it
	ackDelay   time.Duration // the constant of that name; tests raise it
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
	set(&o.ackDelay, ackDelay)
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

const (
	// maxHeaderList bounds a header list from a client, as HTTP/2 counts it.
	maxHeaderList = 16 << 10
	// maxStreams bounds the concurrent streams of a client's connection.
	maxStreams = 1024
	// mostOpen bounds the open calls of one peer at one endpoint. It is as many as 16 connections may have. Each of
	// the peer's connections may have one call open in any case. Further calls wait.
	mostOpen = 16 * maxStreams
)

// ackDelay is how long the answer to a PING waits for other output. If nothing else is sent, it adds to the
// round-trip time that the peer measures, but then the round-trip time does not matter.
const ackDelay = time.Millisecond

// env is shared by the connections and the calls of a relay.
type env struct {
	opts     Options
	epoch    time.Time
	debug    bool   // each call is logged
	name     string // of this relay in [protocol.Via]
	passedBy []byte // the header list with that field
	closing  atomic.Bool
	log      *report.Log
	peers    peers.Table
	acks     *deferred.Acks
	// The methods of the local server by path, and its policies by service.
	localMethods  map[string]bool
	localPolicies map[string]*services.Policy
	// shed terminates calls if too much is kept for clients. If another reader does so, it returns at once, or with
	// await when that is done. Readers call it, and hold no lock then.
	shed func(w *deferred.Work, await bool)
}

// now returns the time on the relay's clock, which starts at 0 in New.
func (e *env) now() time.Duration { return time.Since(e.epoch) }

// full reports whether more than MaxBuffered is kept for clients.
func (e *env) full() bool { return e.peers.Kept() > int64(e.opts.MaxBuffered) }
