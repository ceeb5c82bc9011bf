// Package report writes the log lines of the relay, with fixed messages and keys, and bounds their number: neither a
// client nor a backend can fill the log.
package report

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Log writes the log lines of a relay. Its methods may be called from any goroutine.
type Log struct {
	out   *slog.Logger
	now   func() time.Duration // the relay's clock
	ended atomic.Bool

	mu       sync.Mutex
	bucket   tokenBucket
	silenced int // warnings suppressed since the last one that was logged
}

// New returns a log that writes to out. now is the relay's clock.
func New(out *slog.Logger, now func() time.Duration) *Log { return &Log{out: out, now: now} }

// End suppresses warnings from now on: the relay is closing, which ends connections.
func (l *Log) End() { l.ended.Store(true) }

// HandshakeFailed logs that the TLS handshake with a client failed.
func (l *Log) HandshakeFailed(clientAddress string, err error) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("TLS handshake failed",
			"client_address", clientAddress, "error", ErrorText(err), "suppressed", suppressed)
	}
}

// ClientViolated logs that a client violated HTTP/2, which ends its connection.
func (l *Log) ClientViolated(clientAddress string, err error) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("protocol violated by client",
			"client_address", clientAddress, "error", ErrorText(err), "suppressed", suppressed)
	}
}

// EndpointViolated logs that an endpoint violated HTTP/2, which ends the connection to it.
func (l *Log) EndpointViolated(address string, err error) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("protocol violated by endpoint",
			"address", address, "error", ErrorText(err), "suppressed", suppressed)
	}
}

// ConnectionLost logs that the connection to an endpoint ended or could not be made.
func (l *Log) ConnectionLost(address string, err error) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("connection to endpoint lost",
			"address", address, "error", ErrorText(err), "suppressed", suppressed)
	}
}

// CallLooped logs that a call came back to this relay and was refused.
func (l *Log) CallLooped(clientAddress string) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("call loop detected", "client_address", clientAddress, "suppressed", suppressed)
	}
}

// AcceptFailed logs that a connection could not be accepted.
func (l *Log) AcceptFailed(address string, err error) {
	if suppressed, ok := l.may(); ok {
		l.out.Warn("accept failed", "address", address, "error", ErrorText(err), "suppressed", suppressed)
	}
}

// Limited logs that a limit acts on a peer. The limit of [peers.Peer.Report] applies too.
func (l *Log) Limited(limit string, p *peers.Peer) {
	if l.ended.Load() || !p.Report(l.now()) {
		return
	}
	if suppressed, ok := l.may(); ok {
		l.out.Warn("client limited", "limit", limit, "client", p.ID().String(), "suppressed", suppressed)
	}
}

// may reports whether a warning may be logged now, and how many were suppressed since the last one: at most one a
// second and ten in a row may, and none while the relay is closing.
func (l *Log) may() (suppressed int, ok bool) {
	if l.ended.Load() {
		return 0, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.bucket.spend(l.now(), 10, 1) {
		l.silenced++
		return 0, false
	}
	suppressed, l.silenced = l.silenced, 0
	return suppressed, true
}

// tokenBucket is a token bucket. The methods take its size and its rate.
type tokenBucket struct {
	spent float64
	last  time.Duration
}

// spend takes a token if there is one, and reports whether there was.
func (p *tokenBucket) spend(now time.Duration, size, rate float64) bool {
	p.spent = max(0, p.spent-rate*(now-p.last).Seconds())
	p.last = now
	if p.spent+1 > size {
		return false
	}
	p.spent++
	return true
}

// Call holds the data of a call for its log line, if each call is logged.
type Call struct {
	Service, Method string
	Trace, Request  string             // ids that the caller sent, "" if none
	Endpoint        *services.Endpoint // the last one that got the call, nil for the master's own server
}

// Call logs the outcome of a call.
func (l *Log) Call(a *Call, code uint32, took time.Duration, attempts int) {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("service", a.Service), slog.String("method", a.Method))
	if a.Trace != "" {
		attrs = append(attrs, slog.String("trace_id", a.Trace))
	}
	if a.Request != "" {
		attrs = append(attrs, slog.String("request_id", a.Request))
	}
	if e := a.Endpoint; e != nil {
		attrs = append(attrs, slog.String("address", e.Address))
		if e.Worker != "" {
			attrs = append(attrs, slog.String("worker", e.Worker))
		}
	}
	attrs = append(attrs, slog.String("code", services.CodeName(int(code))),
		slog.Duration("duration", took), slog.Int("attempts", attempts))
	l.out.LogAttrs(context.Background(), slog.LevelDebug, "call ended", attrs...)
}

// ErrorText returns the text of a connection's error for callers, without addresses that are not theirs.
func ErrorText(err error) string {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if err == nil || errors.Is(err, io.EOF) {
		return "closed by the other side"
	}
	return err.Error()
}
