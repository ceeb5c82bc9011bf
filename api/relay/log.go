package relay

import (
	"log/slog"

	"github.com/core-tools/hsu-master/supervisor/services"
)

// about is what the log says of a call, where it wants a line for each.
type about struct {
	path           string
	trace, request string             // ids that the caller gave it, "" where none
	endpoint       *services.Endpoint // that got it last, nil for the master's own server
}

// report writes what became of a call to the log, where that wants to know of each.
func (k *call) report() {
	if k.about == nil {
		return
	}
	service, method, _ := splitPath(k.about.path)
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("service", service), slog.String("method", method))
	for _, id := range [...]struct{ key, value string }{{"trace_id", k.about.trace}, {"request_id", k.about.request}} {
		if id.value != "" {
			attrs = append(attrs, slog.String(id.key, id.value))
		}
	}
	if e := k.about.endpoint; e != nil {
		attrs = append(attrs, slog.String("address", e.Address))
		if e.Worker != "" {
			attrs = append(attrs, slog.String("worker", e.Worker))
		}
	}
	attrs = append(attrs, slog.Uint64("code", uint64(k.code)), slog.Duration("duration", k.relay.now()-k.began), slog.Int("attempts", k.tries))
	k.relay.opts.Log.LogAttrs(k.relay.ctx, slog.LevelDebug, "call", attrs...)
}

// traceID returns the trace's id in a traceparent (W3C Trace Context), "" where it is none.
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

// trouble logs what is wrong with a connection.
func (r *Relay) trouble(what string, c *conn, err error) {
	if !r.closing.Load() {
		r.warning(what, c.peer(), err)
	}
}

// peer is whom the connection is to. It is for the reader.
func (c *conn) peer() string {
	switch {
	case c.pool == nil:
		return c.nc.RemoteAddr().String()
	case c.pool.endpoint == nil:
		return "the master's own server"
	default:
		return c.pool.endpoint.Address
	}
}

// warning logs what is wrong, once a second and ten times in a row at most. What is left out is counted in the next.
func (r *Relay) warning(what, peer string, err error) {
	r.mu.Lock()
	logs, silenced := r.warnings.spend(r.now(), 10, 1), r.silenced
	if r.silenced++; logs {
		r.silenced = 0
	}
	r.mu.Unlock()
	if logs {
		r.opts.Log.Warn("trouble with a connection", "what", what, "peer", peer, "err", plainly(err), "left_out", silenced)
	}
}
