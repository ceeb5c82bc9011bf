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

// End suppresses trouble and limits from now on: the relay is closing, which ends connections.
func (l *Log) End() { l.ended.Store(true) }

// Trouble logs an error of a connection to peer, unless the relay is closing.
func (l *Log) Trouble(what, peer string, err error) {
	if !l.ended.Load() {
		l.Warning(what, peer, err)
	}
}

// Warning logs an error, at most once a second and ten times in a row. The next line has the number of suppressed
// ones.
func (l *Log) Warning(what, peer string, err error) {
	if leftOut, ok := l.may(); ok {
		l.out.Warn("trouble with a connection", "what", what, "peer", peer, "err", ErrorText(err), "left_out", leftOut)
	}
}

// Limited logs that a limit acts on a peer. The limits of Warning and of [peers.Peer.Report] apply.
func (l *Log) Limited(limit string, p *peers.Peer) {
	if l.ended.Load() || !p.Report(l.now()) {
		return
	}
	if leftOut, ok := l.may(); ok {
		l.out.Warn("a limit acts on a client", "limit", limit, "peer", p.ID().String(), "left_out", leftOut)
	}
}

// may reports whether a warning may be logged now, and how many were suppressed since the last one.
func (l *Log) may() (leftOut int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.bucket.spend(l.now(), 10, 1) {
		l.silenced++
		return 0, false
	}
	leftOut, l.silenced = l.silenced, 0
	return leftOut, true
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
	for _, id := range [...]struct{ key, value string }{{"trace_id", a.Trace}, {"request_id", a.Request}} {
		if id.value != "" {
			attrs = append(attrs, slog.String(id.key, id.value))
		}
	}
	if e := a.Endpoint; e != nil {
		attrs = append(attrs, slog.String("address", e.Address))
		if e.Worker != "" {
			attrs = append(attrs, slog.String("worker", e.Worker))
		}
	}
	attrs = append(attrs, slog.String("code", services.CodeName(int(code))),
		slog.Duration("duration", took), slog.Int("attempts", attempts))
	l.out.LogAttrs(context.Background(), slog.LevelDebug, "call", attrs...)
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
