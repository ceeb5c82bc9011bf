package relay

import (
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/window"
)

const (
	// maxBackendHeaderList bounds a header list from a backend, as HTTP/2 counts it.
	maxBackendHeaderList = 64 << 10
	// backendPatience bounds how long a backend's answer to a PING may take.
	backendPatience = 4 * time.Second
	// backendWindow is the flow-control window of a connection to a backend. Credit is given back on arrival, so
	// that a stalled call never stalls another.
	backendWindow = 16 << 20
)

// backendConn is a connection to a backend, on which the relay opens streams for calls of all clients.
type backendConn struct {
	conn
	pool   *pool
	uplink *window.Uplink[*flow]
	next   uint32 // the id of the next stream; guarded by conn.mu
}

func newBackendConn(e *env, p *pool) *backendConn {
	c := &backendConn{pool: p, next: 1}
	c.init(e, c, backendOutput, backendWindow)
	c.theirs.Streams = p.firstStreams()
	c.out.Marks.Set(c.next)
	c.uplink = window.NewUplink(&c.sendWindow, e.now)
	c.divider = c.uplink
	return c
}

// address returns the name of the backend.
func (c *backendConn) address() string {
	if c.pool.endpoint == nil {
		return "the master's own server"
	}
	return c.pool.endpoint.Address
}

func (c *backendConn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drain == draining
}

// openResult is the result of opening a stream on one connection.
type openResult uint8

const (
	streamOpened openResult = iota
	streamsFull
	streamsSoon   // the backend has not announced a limit yet, or much output is waiting
	streamsNever  // the connection accepts no more streams
	streamsUsedUp // there is a stream, but no window for the data of the call
)

// openStream opens a stream for the call, if the connection has a stream and a window for it. anyway means even
// without a window. k.mu is held.
func (c *backendConn) openStream(w *deferred.Work, k *call, anyway bool) openResult {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := k.up.ended && k.up.q.Unsent == 0
	switch {
	case c.out.Over() || c.drain != serving:
		return streamsNever
	case c.next > c.env.opts.lastStream:
		c.drain = draining
		c.endIdle(w)
		return streamsNever
	case c.out.Full():
		// Headers have no window. The backend does not read, or is not connected yet. The headers of one client
		// must neither end a connection that all clients share nor fill the memory.
		c.out.Refuse()
		return streamsSoon
	case uint32(c.calls.Len()) >= c.theirs.Streams:
		if !c.theirs.Known && c.theirs.Streams == unsettledStreams {
			return streamsSoon
		}
		return streamsFull
	case c.suspect():
		return streamsFull
	case !anyway && !end && c.uplink.UsedUp(k.client.conn.account):
		return streamsUsedUp
	}
	id := c.next
	c.next += 2
	c.out.Marks.Set(c.next)
	c.calls.Put(id, k)
	k.backend.conn, k.backend.id = c, id
	k.up.sendLeft = c.theirs.Window
	c.uplink.Join(&k.up.sender, k.client.conn.account)
	c.touch(w)
	var passedBy, name []byte
	if e := c.pool.endpoint; e == nil || e.Worker == "" {
		passedBy = c.env.passedBy // may be another master, or the local server, which may send the call to one
	}
	if c.pool.endpoint == nil {
		name = k.client.conn.name
	}
	c.out.Pending.AppendHeaders(id, end, k.request.headersAt(c.env.now(), k.attempts.All > 1), passedBy, name)
	c.ask()
	k.up.endSent = end
	return streamOpened
}

// abandon takes a stream back that was opened on a connection whose goroutines have not been started. k.mu is held.
func (c *backendConn) abandon(k *call) {
	c.calls.Remove(k.backend.id)
	c.uplink.Leave(&k.up.sender)
	k.backend.conn = nil
}

// freeStreams returns how many more streams the connection accepts.
func (c *backendConn) freeStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.Over() || c.drain != serving {
		return 0
	}
	return max(0, int(c.theirs.Streams)-c.calls.Len())
}

// closeStream removes the stream of a flow that leaves the connection. It reports whether the backend is suspected
// to be dead.
func (c *backendConn) closeStream(w *deferred.Work, f *flow, id uint32) (suspect bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	suspect = c.suspect()
	if c.uplink.Leave(&f.sender) {
		c.touch(w)
	}
	c.calls.Remove(id)
	if c.calls.Len() == 0 {
		c.idle = c.env.now()
	}
	c.endIdle(w)
	return suspect
}

// opened reports whether the stream with that id was ever opened.
func (c *backendConn) opened(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id&1 == 1 && id < c.next
}

// sent records that data has been appended to the output. c.mu is held.
func (c *backendConn) sent(int) { c.ask() }

// outputChanged does nothing: output to a backend is counted for no client.
func (c *backendConn) outputChanged() {}

// outputRelieved lets the calls go on that wait for room for their headers.
func (c *backendConn) outputRelieved(w *deferred.Work) { w.Wake(c.pool) }

// look ends the connection if it is unused, or if something that it waits for has not come in time. It sends a PING
// if one is due.
func (c *backendConn) look(w *deferred.Work, now time.Duration) {
	o := &c.env.opts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unused(now) {
		if now-c.idle > o.BackendIdle {
			c.drain = draining
			c.endIdle(w)
		}
		return
	}
	c.conn.look(w, now, silence{o.BackendPing, o.BackendSilence, min(o.PingTimeout, backendPatience)})
}

// retire closes the connection once its last stream has ended.
func (c *backendConn) retire(w *deferred.Work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain = draining
	c.endIdle(w)
}

// endIdle closes a draining connection that has no streams left. c.mu is held.
func (c *backendConn) endIdle(w *deferred.Work) {
	if c.drained() {
		c.touch(w)
		c.out.Pending.AppendGoAway(0, http2.ErrCodeNo, "")
		c.out.End()
	}
}

// goAway sends GOAWAY with the reason instead of all pending output, and closes the connection when that is written.
// Streams that the backend has not seen go to another connection: see loseCalls.
func (c *backendConn) goAway(w *deferred.Work, code http2.ErrCode, reason string) {
	if !c.lockOutput(w) {
		return
	}
	c.out.Pending.Drop()
	c.out.Pending.AppendGoAway(0, code, reason)
	c.out.End()
	c.mu.Unlock()
}
