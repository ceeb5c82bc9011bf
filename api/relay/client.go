package relay

import (
	"cmp"
	"net"
	"slices"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/streams"
	"github.com/core-tools/hsu-master/api/relay/wire"
	"github.com/core-tools/hsu-master/internal/fair"
)

const (
	// clientWindow is the flow-control window of a client's connection. Credit is given back on arrival, so that a
	// stalled call never stalls another. The window bounds the data that can be in flight before a client that
	// exceeds its budget is stopped.
	clientWindow = 4 << 20
	// cutTrailers bounds the trailers that may still arrive on a stream that was cut.
	cutTrailers = maxHeaderList
	// mostCut bounds the bytes that a client can have sent before it reads that its streams were cut.
	mostCut = clientWindow + maxStreams*cutTrailers
)

// lastPing is the payload of the PING after the first GOAWAY. When it is acknowledged, all frames that the client
// sent before it read the GOAWAY have arrived.
var lastPing = [8]byte{'h', 's', 'u', 'd', 'r', 'a', 'i', 'n'}

// clientConn is a connection to a client: the client begins calls, and is charged for its frames.
type clientConn struct {
	conn
	pools   *pools         // to which the calls go
	account *peers.Account // of the client's connection
	name    []byte         // the header list with [protocol.Client], constant once reading has begun
	guard   guard
	backlog backlog
	ids     streams.ClientIDs
	said    bool // the first SETTINGS have been sent; guarded by conn.mu
	evicted bool // being closed to make room; guarded by crowd.mu
}

func newClientConn(e *env, p *pools, nc net.Conn, m *peers.Account) *clientConn {
	c := &clientConn{
		pools: p, account: m, guard: guard{account: m}, ids: streams.NewClientIDs(cutTrailers, mostCut),
		backlog: backlog{account: m, all: &e.peers, most: int64(e.opts.MaxBuffered)},
	}
	c.init(e, c, clientOutput, clientWindow)
	c.socket.Conn = nc
	return c
}

// asClient identifies the connection to package fair.
func (c *clientConn) asClient() fair.Client {
	return fair.Client{Peer: c.account.Peer(), Conn: c.account}
}

// address returns the client's address.
func (c *clientConn) address() string { return c.socket.Conn.RemoteAddr().String() }

// sendHeaders appends a header block. It does nothing if the connection is over.
func (c *clientConn) sendHeaders(w *deferred.Work, id uint32, list []byte, end bool) {
	if !c.lockOutput(w) {
		return
	}
	c.out.Pending.AppendHeaders(id, end, list)
	c.guard.useful = true
	c.unlockOutput()
}

// interimRoom is the size of the output up to which interim headers are appended.
const interimRoom = wire.RoomBlocked

// sendInterim appends the headers of an interim response (1xx), unless much output is waiting. These headers have
// no window, and gRPC does not use them. Without this bound, an endpoint could end its caller's connection by
// sending many.
func (c *clientConn) sendInterim(w *deferred.Work, id uint32, list []byte) {
	if !c.lockOutput(w) {
		return
	}
	if c.out.Pending.Len() < interimRoom {
		c.out.Pending.AppendHeaders(id, false, list)
	}
	c.unlockOutput()
}

// sent records that n bytes of data have been appended to the output. c.mu is held.
func (c *clientConn) sent(n int) { c.guard.sent(n) }

// outputChanged counts the output that the socket has not accepted, and lets no call begin any more if the
// connection is over. c.mu is held.
func (c *clientConn) outputChanged() {
	if c.out.Dead() {
		c.account.Interrupt()
	}
	c.guard.keepOutput(c.out.Unaccepted())
}

// outputRelieved does nothing: no output to a client is refused.
func (c *clientConn) outputRelieved(*deferred.Work) {}

// streamError resets a stream for a fault of the client, and charges the client for it. All resets for such faults
// are sent here. It is called by the connection's reader.
func (c *clientConn) streamError(w *deferred.Work, id uint32, code http2.ErrCode) {
	c.reset(w, id, code)
	c.blame(0)
}

// blame charges the client for a stream of that age whose end it has caused. It is called by the connection's reader.
func (c *clientConn) blame(age time.Duration) { c.guard.blame(c.env.now(), age) }

// goOn gives back the window of a client that was stopped, as soon as the client need not be stopped any more.
func (c *clientConn) goOn(w *deferred.Work) {
	if c.backlog.relent() {
		c.grant(w)
	}
}

// look ends the connection if something that it waits for has not come in time, and sends a PING if one is due.
func (c *clientConn) look(w *deferred.Work, now time.Duration) {
	o := &c.env.opts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open() && c.guard.headLate(now, o.HeadTimeout) {
		c.killLocked(errHead)
		return
	}
	c.conn.look(w, now, silence{o.ClientPing, o.ClientPing, o.PingTimeout})
}

// goAway sends GOAWAY with the reason, and closes the connection when that is written.
func (c *clientConn) goAway(w *deferred.Work, code http2.ErrCode, reason string) {
	if !c.lockOutput(w) {
		return
	}
	c.out.Pending.AppendGoAway(c.ids.Served, code, reason)
	c.out.End()
	c.mu.Unlock()
}

// warn begins the graceful shutdown: the client is told to open no more streams, but streams that it opens before it
// reads that are served.
func (c *clientConn) warn(w *deferred.Work) {
	if !c.lockOutput(w) {
		return
	}
	if c.drain == serving && c.said { // if !c.said, hello does it after the SETTINGS
		c.drain = warned
		c.out.Pending.AppendGoAway(frames.MaxID, http2.ErrCodeNo, "graceful_stop")
		c.out.Pending.AppendPing(false, lastPing)
	}
	c.unlockOutput()
}

// leave announces the last stream that is served, and closes the connection when that and all earlier ones have
// ended.
func (c *clientConn) leave(w *deferred.Work) {
	if !c.lockOutput(w) {
		return
	}
	if c.drain == warned {
		c.drain = draining
		c.out.Pending.AppendGoAway(c.ids.Served, http2.ErrCodeNo, "graceful_stop")
		c.endIdle(w)
	}
	c.unlockOutput()
}

// endIdle closes a draining connection that has no streams left. c.mu is held.
func (c *clientConn) endIdle(w *deferred.Work) {
	if c.drained() {
		c.touch(w)
		c.out.End()
	}
}

// shed terminates calls of the connection, the largest first, until the wanted bytes or half of the connection's
// bytes are free. If that is not enough, the connection itself holds the rest, and is closed.
func (c *clientConn) shed(w *deferred.Work, wanted int64) {
	before := c.account.Kept()
	enough := before - min(wanted, max(before/2, 1))
	for _, s := range bySize(c.streams()) {
		if c.account.Kept() <= enough {
			return
		}
		c.shedCall(w, s)
	}
	if c.account.Kept() > enough {
		c.kill(errMemory)
	}
}

// bySize sorts calls: those that hold the most first, and of equal ones the newest first.
func bySize(calls []streams.Stream[*call]) []streams.Stream[*call] {
	sizes := make(map[uint32]int, len(calls))
	for _, s := range calls {
		s.Call.mu.Lock()
		sizes[s.ID] = s.Call.kept()
		s.Call.mu.Unlock()
	}
	slices.SortFunc(calls, func(x, y streams.Stream[*call]) int {
		return cmp.Or(cmp.Compare(sizes[y.ID], sizes[x.ID]), cmp.Compare(y.ID, x.ID))
	})
	return calls
}

// shedCall terminates the call of a stream, if it still has that stream.
func (c *clientConn) shedCall(w *deferred.Work, s streams.Stream[*call]) {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(w)
	if k.client.on(c, s.ID) {
		k.shed(w, errMemory.Error())
	}
}

// idleSince reports whether the connection has no streams, since when, and whether it is over.
func (c *clientConn) idleSince() (idle bool, at time.Duration, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.Len() == 0, c.idle, c.out.Dead()
}

// isNewer reports whether the connection is newer than another one.
func (c *clientConn) isNewer(other *clientConn) bool { return c.began > other.began }

// evict closes the connection to make room for others.
func (c *clientConn) evict() {
	var w deferred.Work
	c.goAway(&w, http2.ErrCodeNo, errIdlest.Error())
	w.Do()
	c.kill(errIdlest)
}

// closeStream removes the stream of a call that leaves the connection, and gives back by how much the windows of its
// flows have grown. Unless the client has ended the stream, it may still send as much as the window of up.
func (c *clientConn) closeStream(w *deferred.Work, id uint32, up, down *flow) {
	c.backlog.shrink(up.grown + down.grown)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendWindow.Forget(&down.sender)
	c.calls.Remove(id)
	if !up.ended {
		c.ids.Cut.Add(id, up.recvLeft)
	}
	c.idle = c.env.now()
	c.endIdle(w)
}

// kept returns the bytes that are kept for the connection, or 0 if it is over.
func (c *clientConn) kept() int64 {
	if c.err() != nil {
		return 0
	}
	return c.account.Kept()
}
