package relay

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/streams"
	"github.com/core-tools/hsu-master/api/relay/window"
	"github.com/core-tools/hsu-master/api/relay/wire"
)

// conn is the part that a [clientConn] and a [backendConn] have in common: a connection of HTTP/2 with a table of
// streams. Its reader goroutine handles incoming frames and appends the results to the output of other connections;
// its writer goroutine writes the output that a socket did not accept at once.
//
// Locks are acquired in this order: call.mu, pool.mu, conn.mu; and never two of a kind.
type conn struct {
	env    *env
	role   role
	socket wire.Socket
	began  time.Duration
	live   liveness
	late   atomic.Bool // in the list of connections whose output is written soon: see acks

	// Only the reader uses these.
	in     wire.Input
	work   deferred.Work
	passed headers.List // the fields of the current header list that are passed on

	mu         sync.Mutex
	out        wire.Output
	calls      streams.Table[*call]
	idle       time.Duration // when the connection became idle
	drain      drain
	sendWindow window.Send[*flow]
	divider    window.Divider[*flow] // of sendWindow
	recvWindow window.Recv
	theirs     frames.Settings
}

// role is the side of a connection, as far as conn depends on it. The connection's lock is held, except for violated.
type role interface {
	// sent records that n bytes of data have been appended to the output.
	sent(n int)
	// violated ends the call because the peer has violated HTTP/2. k.mu is held, and not the connection's lock.
	violated(k *call, w *deferred.Work, code http2.ErrCode)
	// outputChanged is called after output has been appended or written, and after the end of the connection.
	outputChanged()
	// outputRelieved is called when output that was refused has become possible.
	outputRelieved(w *deferred.Work)
}

// drain is the state of a connection's graceful shutdown.
type drain uint8

const (
	serving  drain = iota
	warned         // GOAWAY with the greatest id and a PING have been sent
	draining       // no new streams; closed when the last has ended
)

// The bounds of the pending output beyond which a connection is closed.
const (
	// clientOutput is that of a client, which sends requests but does not read the answers.
	clientOutput = 2 << 20
	// backendOutput is that of a backend. All clients together cannot cause it: headers stop when the output is full
	// and data at its windows, and each open stream adds at most one end of its data and one reset. So only the
	// backend can.
	backendOutput = clientOutput + frames.UnboundedStreams*(frames.HeaderSize+frames.HeaderSize+4)
)

// limits are the limits of a connection that depend on its role.
type limits struct {
	output int // see output.most
	list   int // of a header list in bytes
	window int // of DATA from the peer
}

// init initializes a connection in place.
func (c *conn) init(e *env, own role, l limits) {
	c.env, c.role = e, own
	c.in, c.out = wire.NewInput(l.list), wire.NewOutput(&c.mu, &c.socket, l.output)
	c.sendWindow, c.recvWindow = window.NewSend[*flow](frames.FirstWindow), window.NewRecv(l.window)
	c.divider = &c.sendWindow
	c.theirs = frames.FirstSettings()
	c.began = e.now()
	c.idle = c.began
	c.hear()
}

// hear records that bytes have arrived.
func (c *conn) hear() { c.live.heard.Store(int64(c.env.now())) }

// lastHeard returns when bytes arrived last.
func (c *conn) lastHeard() time.Duration { return c.live.lastHeard() }

// ask records that a call sends something, to which a live peer is expected to react in some way. c.mu is held.
func (c *conn) ask() {
	if !c.live.asks() {
		c.live.ask(c.env.now())
	}
}

// suspect reports whether the peer is suspected to be dead, so that further calls should be sent elsewhere. c.mu is
// held.
func (c *conn) suspect() bool { return c.live.pinging() && c.live.suspect(c.env.now()) }

// hasAnswered reports whether the peer has answered a call.
func (c *conn) hasAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live.answered
}

// answeredCall returns the call that has a stream, or nil, and records that the peer has answered a call.
func (c *conn) answeredCall(id uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.live.answer()
	return c.calls.Get(id)
}

// unused reports whether the connection is set up, has no streams and waits for no answer. c.mu is held.
func (c *conn) unused(now time.Duration) bool {
	return c.open() && c.calls.Len() == 0 && c.live.unanswered(now) <= 0
}

// use sets the network connection. hello is sent first, before all output that calls have appended in the meantime.
func (c *conn) use(nc net.Conn, hello []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket.Use(nc)
	c.out.Open()
	if c.out.Dead() {
		c.socket.Interrupt()
		return
	}
	if len(hello) > 0 {
		c.touch(&c.work)
		c.out.Pending.Prepend(hello)
	}
}

// touch adds the connection to the work unless it is there already. c.mu is held.
func (c *conn) touch(w *deferred.Work) {
	if c.out.Touch() {
		w.Write(c)
	}
}

// begin locks c for output and returns true. If the connection is ending, it returns false and does not lock c.
func (c *conn) begin(w *deferred.Work) bool {
	c.mu.Lock()
	if c.out.Over() {
		c.mu.Unlock()
		return false
	}
	c.touch(w)
	return true
}

// end unlocks c after output has been appended. It ends the connection if too much output is waiting.
func (c *conn) end() {
	if c.out.Overflows() {
		c.killLocked(errSlow)
	}
	if c.out.Blocked() {
		c.role.outputChanged()
	}
	c.mu.Unlock()
}

// kill ends the connection at once.
func (c *conn) kill(err error) {
	c.mu.Lock()
	c.killLocked(err)
	c.mu.Unlock()
}

func (c *conn) killLocked(err error) {
	c.out.Kill(err)
	c.role.outputChanged()
}

// finish ends the connection after its reader has ended with err. It returns the error that ended the connection.
func (c *conn) finish(err error) error {
	c.kill(err)
	return c.over()
}

// over returns the error that ended the connection, or nil if the connection is not over.
func (c *conn) over() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Err()
}

// overWith reports whether the connection is read only until it closes, without handling its frames.
func (c *conn) overWith() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Over()
}

// streams returns the current streams.
func (c *conn) streams() []streams.Stream[*call] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.All()
}

// callOf returns the call that has a stream, or nil. After locking the call, the caller must check that it still has
// the stream.
func (c *conn) callOf(id uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.Get(id)
}

// streamCount returns the number of streams.
func (c *conn) streamCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.Len()
}

// drained reports whether the connection can be closed because its last stream has ended. c.mu is held.
func (c *conn) drained() bool { return c.drain == draining && c.calls.Len() == 0 && !c.out.Over() }

// Flush writes the output that the socket accepts without blocking, and leaves the rest to the writer goroutine.
func (c *conn) Flush() {
	c.mu.Lock()
	c.out.Flush()
	c.role.outputChanged()
	c.mu.Unlock()
}

// Hand leaves the output to the writer goroutine.
func (c *conn) Hand() {
	c.mu.Lock()
	c.out.Hand()
	c.role.outputChanged()
	c.mu.Unlock()
}

// write is the writer goroutine.
func (c *conn) write() {
	var w deferred.Work
	c.out.Serve(func(unblocked bool) {
		if unblocked { // the peer's side has accepted the data
			c.hear()
		}
		c.role.outputChanged()
	}, func() {
		c.Resume(&w)
		w.Do()
	})
}

// Resume continues blocked flows while there is a window and room, and calls that wait for room for their headers.
func (c *conn) Resume(w *deferred.Work) {
	for {
		c.mu.Lock()
		if c.out.Relieved() {
			c.role.outputRelieved(w)
		}
		if c.out.Dead() || c.out.Space() <= 0 {
			c.mu.Unlock()
			return
		}
		f, ok := c.sendWindow.Next()
		if !ok {
			c.mu.Unlock()
			return
		}
		k := f.call // under the lock, which a call takes before it leaves
		c.mu.Unlock()
		k.mu.Lock()
		// The call may have been reused by now. Then this does nothing, or only work that is due anyway.
		f.pump(w)
		k.closeFinished(w)
		k.unlock(w)
	}
}

// sendData sends as much of p as the windows and the room allow, and returns how much. If p does not fit for a
// reason other than the stream's own window, the flow continues when the connection can.
func (c *conn) sendData(w *deferred.Work, f *flow, id uint32, p []byte, end bool) (sent int) {
	if !c.begin(w) {
		return 0
	}
	space, window := c.out.Space(), c.divider.Free(&f.sender)
	for sent < len(p) {
		n := min(len(p)-sent, frames.MaxFrame, f.sendLeft, window, space)
		if n <= 0 {
			break
		}
		c.out.Pending.AppendData(id, p[sent:sent+n], end && sent+n == len(p))
		sent += n
		f.sendLeft -= n
		window -= n
		space -= n
	}
	if sent > 0 {
		c.divider.Sent(&f.sender, sent)
		c.role.sent(sent)
	}
	if sent < len(p) && f.sendLeft > 0 {
		c.divider.KeepBack(&f.sender, window)
	}
	c.end()
	return sent
}

// forget removes a flow from those that wait for the connection. c.mu is held.
func (c *conn) forget(f *flow) { c.sendWindow.Forget(&f.sender) }

// sendEnd ends a stream after its data.
func (c *conn) sendEnd(w *deferred.Work, id uint32) {
	if c.begin(w) {
		c.out.Pending.AppendData(id, nil, true)
		c.end()
	}
}

// reset sends RST_STREAM for a stream. If the stream is in the table, the caller removes it.
func (c *conn) reset(w *deferred.Work, id uint32, code http2.ErrCode) {
	if c.begin(w) {
		c.out.Pending.AppendReset(id, code)
		c.end()
	}
}

// giveBack gives n bytes of a stream's window back to its sender.
func (c *conn) giveBack(w *deferred.Work, id uint32, n int) {
	if c.begin(w) {
		c.out.Pending.AppendWindowUpdate(id, n)
		c.end()
	}
}

// grant gives the connection's window back.
func (c *conn) grant(w *deferred.Work) {
	if !c.begin(w) {
		return
	}
	if credit := c.recvWindow.Restore(); credit > 0 {
		c.out.Pending.AppendWindowUpdate(0, credit)
	}
	c.end()
}

// answerPing appends the answer to a PING. The answer is written with the next output, or after ackDelay: gRPC
// clients and servers send a PING with most of the data they receive, to measure their connection, and a write for
// each answer would wake them needlessly while the current call has yet to be passed on.
func (c *conn) answerPing(data [8]byte) {
	c.mu.Lock()
	if c.out.Over() {
		c.mu.Unlock()
		return
	}
	c.out.Pending.AppendPing(true, data)
	c.end()
	if !c.late.Swap(true) {
		c.env.acks.Later(c)
	}
}

// Due is called before the answer to a PING is written.
func (c *conn) Due() { c.late.Store(false) }

// takeData handles the part of a DATA frame that concerns the connection. It removes the padding from the frame, and
// returns the call that has the stream, or nil. due means that the connection's window must be given back.
func (c *conn) takeData(f *frames.Frame) (k *call, due bool, err error) {
	if f.ID == 0 {
		return nil, false, frames.Fault(http2.ErrCodeProtocol, "DATA on stream 0")
	}
	n := len(f.Payload)
	if err := frames.Unpad(f); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	ok, due := c.recvWindow.Take(n)
	k = c.calls.Get(f.ID)
	c.live.answer()
	c.mu.Unlock()
	if !ok {
		return nil, false, frames.Fault(http2.ErrCodeFlowControl, "DATA beyond the connection's window")
	}
	return k, due, nil
}

// The errors with which a connection ends, besides those of its socket.
var (
	errClosing   = errors.New("the master is shutting down")
	errSilent    = errors.New("no answer to a PING")
	errHead      = errors.New("the head of a call, or another frame, was not whole within the time for it")
	errHandshake = errors.New("no HTTP/2 within the time for it")
	errSlow      = errors.New("the peer does not read what it asked for")
	errIdlest    = errors.New("connections are short, and this one was not in use")
	errMemory    = errors.New("more is kept for the client than for others, and memory is short")
)

// errWindow ends the connection of a peer that opens the connection's window too far.
var errWindow = frames.Fault(http2.ErrCodeFlowControl, "the connection's window is too large")

// widenStream changes the window of a stream by n for the peer, which must be allowed to. k has, or had, the stream.
func (c *conn) widenStream(k *call, id uint32, n int) {
	k.mu.Lock()
	defer k.unlock(&c.work)
	flow := k.flowTo(c, id)
	switch {
	case flow == nil:
	case n == 0:
		c.role.violated(k, &c.work, http2.ErrCodeProtocol)
	case !flow.widen(&c.work, n):
		c.role.violated(k, &c.work, http2.ErrCodeFlowControl)
	default:
		k.closeFinished(&c.work)
	}
}

// onSettings applies and acknowledges the peer's SETTINGS, and returns them. announced is false if the frame is an
// acknowledgment.
func (c *conn) onSettings(f frames.Frame) (s frames.Settings, announced bool, err error) {
	ack, err := frames.CheckSettings(f)
	if err != nil || ack {
		return s, false, err
	}
	s = c.theirs // only the reader changes these
	if !s.Known {
		s.Known, s.Streams = true, frames.UnboundedStreams
	}
	if s, err = s.Read(f.Payload); err != nil {
		return s, false, err
	}
	return s, true, c.adopt(s)
}

// adopt applies the peer's settings and acknowledges them. All output after the acknowledgment obeys them, and no
// output before it makes use of larger limits (RFC 9113, section 6.5.3): smaller windows are applied before the
// acknowledgment, larger ones after it.
func (c *conn) adopt(s frames.Settings) error {
	delta := s.Window - c.theirs.Window
	if delta < 0 {
		c.mu.Lock()
		c.theirs.Window = s.Window
		calls := c.calls.All()
		c.mu.Unlock()
		if err := c.widenAll(calls, delta); err != nil {
			return err
		}
	}
	if !c.begin(&c.work) {
		return nil
	}
	c.out.Pending.Acknowledge(s)
	c.theirs = s
	var calls []streams.Stream[*call]
	if delta > 0 {
		calls = c.calls.All()
	}
	c.end()
	return c.widenAll(calls, delta)
}

// widenAll changes the windows of the streams by delta.
func (c *conn) widenAll(streams []streams.Stream[*call], delta int) error {
	for _, s := range streams {
		if !c.widen(s, delta) {
			return frames.Fault(http2.ErrCodeFlowControl, "the windows of streams become too large")
		}
	}
	return nil
}

// widen changes the window of a stream by delta. It returns false if the window becomes too large.
func (c *conn) widen(s streams.Stream[*call], delta int) bool {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(&c.work)
	flow := k.flowTo(c, s.ID)
	if flow == nil {
		return true
	}
	ok := flow.widen(&c.work, delta)
	k.closeFinished(&c.work)
	return ok
}

// silence holds how long a connection may be silent.
type silence struct {
	regular time.Duration // before it is sent a PING
	quick   time.Duration // before it is sent a PING if calls have sent something
	answer  time.Duration // before the PING must be answered
}

// open reports whether the connection is set up and not ending. c.mu is held.
func (c *conn) open() bool { return !c.out.Over() && c.theirs.Known }

// look ends the connection if something that it waits for has not come in time, and sends a PING if one is due. c.mu
// is held.
func (c *conn) look(w *deferred.Work, now time.Duration, s silence) {
	o := &c.env.opts
	switch {
	case c.out.Dead():
	case c.out.Ending():
		if c.out.Late(now, o.PingTimeout) {
			c.killLocked(errSlow)
		}
	case !c.theirs.Known:
		if now-c.began > o.HandshakeTimeout {
			c.killLocked(errHandshake)
		}
	case c.live.unanswered(now) > 0:
		if c.live.unanswered(now) > s.answer {
			c.killLocked(errSilent)
		}
	case c.live.pingDue(now, s.regular, s.quick):
		c.touch(w)
		c.out.Pending.AppendPing(false, ourPing)
	}
}
