package relay

import (
	"log/slog"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// about holds the data of a call for its log line, if each call is logged.
type about struct {
	path           string
	trace, request string             // ids that the caller sent, "" if none
	endpoint       *services.Endpoint // the last one that got the call, nil for the master's own server
}

// log logs the outcome of the call.
func (a *about) log(r *Relay, code uint32, took time.Duration, attempts int) {
	service, method, _ := splitPath(a.path)
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("service", service), slog.String("method", method))
	for _, id := range [...]struct{ key, value string }{{"trace_id", a.trace}, {"request_id", a.request}} {
		if id.value != "" {
			attrs = append(attrs, slog.String(id.key, id.value))
		}
	}
	if e := a.endpoint; e != nil {
		attrs = append(attrs, slog.String("address", e.Address))
		if e.Worker != "" {
			attrs = append(attrs, slog.String("worker", e.Worker))
		}
	}
	attrs = append(attrs, slog.String("code", services.CodeName(int(code))),
		slog.Duration("duration", took), slog.Int("attempts", attempts))
	r.opts.Log.LogAttrs(r.ctx, slog.LevelDebug, "call", attrs...)
}

// traceID returns the trace id in a traceparent (W3C Trace Context), or "" if that is not valid.
func traceID(parent string) string {
	const id, whole = 2 + 1, 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(parent) < whole || parent[2] != '-' || parent[id+32] != '-' {
		return ""
	}
	trace, zeros := parent[id:id+32], 0
	for i := range len(trace) {
		switch c := trace[i]; {
		case c == '0':
			zeros++
		case '1' <= c && c <= '9', 'a' <= c && c <= 'f':
		default:
			return ""
		}
	}
	if zeros == len(trace) {
		return ""
	}
	return trace
}

// trouble logs an error of a connection to peer, unless the relay is closing.
func (r *Relay) trouble(what, peer string, err error) {
	if !r.closing.Load() {
		r.warning(what, peer, err)
	}
}

// tokenBucket is a token bucket. The methods take its size and its rate.
type tokenBucket struct {
	spent float64
	last  time.Duration
}

// spend takes a token, and reports whether there was one.
func (p *tokenBucket) spend(now time.Duration, size, rate float64) bool {
	p.spent = max(0, p.spent-rate*(now-p.last).Seconds())
	p.last = now
	p.spent++
	return p.spent <= size
}

// warning logs an error, at most once a second and ten times in a row. The next line has the number of suppressed
// ones.
func (r *Relay) warning(what, peer string, err error) {
	if leftOut, ok := r.warnings.may(r.now()); ok {
		r.opts.Log.Warn("trouble with a connection",
			"what", what, "peer", peer, "err", plainly(err), "left_out", leftOut)
	}
}

// limited logs that a limit acts on a peer. The limits of warning and of [peers.Peer.Report] apply.
func (r *Relay) limited(limit string, p *peers.Peer) {
	if r.closing.Load() || !p.Report(r.now()) {
		return
	}
	if leftOut, ok := r.warnings.may(r.now()); ok {
		r.opts.Log.Warn("a limit acts on a client", "limit", limit, "peer", p.ID().String(), "left_out", leftOut)
	}
}

// warnings limits the warnings of a relay: once a second and ten times in a row.
type warnings struct {
	mu       sync.Mutex
	bucket   tokenBucket
	silenced int // warnings suppressed since the last one that was logged
}

// may reports whether a warning may be logged now, and how many were suppressed since the last one.
func (w *warnings) may(now time.Duration) (leftOut int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.bucket.spend(now, 10, 1) {
		w.silenced++
		return 0, false
	}
	leftOut, w.silenced = w.silenced, 0
	return leftOut, true
}
