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
	"github.com/core-tools/hsu-master/api/relay/streams"
	"github.com/core-tools/hsu-master/api/relay/window"
	"github.com/core-tools/hsu-master/api/relay/wire"
)

// conn is the part that a [clientConn] and a [backendConn] have in common: a connection of HTTP/2 with a table of
// streams. Any goroutine may use it. Its [reader] goroutine handles incoming frames and appends the results to the
// output of other connections; its writer goroutine writes the output that a socket did not accept at once.
//
// Locks are acquired in this order: call.mu, pool.mu, conn.mu; and never two of a kind.
type conn struct {
	env    *env
	role   role
	socket wire.Socket
	began  time.Duration
	live   liveness
	late   atomic.Bool // in the list of connections whose output is written soon: see acks

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

// role is the part of a connection that depends on its peer, a client or a backend. The connection's lock is held.
type role interface {
	// sent records that n bytes of data have been appended to the output.
	sent(n int)
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

// init initializes a connection in place. Beyond mostOutput, its pending output ends it. recvWindow is the size of the
// window for DATA from the peer.
func (c *conn) init(e *env, own role, mostOutput, recvWindow int) {
	c.env, c.role = e, own
	c.out = wire.NewOutput(&c.mu, &c.socket, mostOutput)
	c.sendWindow, c.recvWindow = window.NewSend[*flow](frames.FirstWindow), window.NewRecv(recvWindow)
	c.divider = &c.sendWindow
	c.theirs = frames.FirstSettings()
	c.began = e.now()
	c.idle = c.began
	c.hear()
}

// hear records that bytes have arrived.
func (c *conn) hear() { c.live.heard.Store(int64(c.env.now())) }

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
func (c *conn) use(w *deferred.Work, nc net.Conn, hello []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.socket.Use(nc)
	c.out.Open()
	if c.out.Dead() {
		c.socket.Interrupt()
		return
	}
	if len(hello) > 0 {
		c.touch(w)
		c.out.Pending.Prepend(hello)
	}
}

// touch adds the connection to the work unless it is there already. c.mu is held.
func (c *conn) touch(w *deferred.Work) {
	if c.out.Touch() {
		w.Write(c)
	}
}

// lockOutput locks c for output and returns true. If the connection is over or ending, it returns false and does not
// lock c.
func (c *conn) lockOutput(w *deferred.Work) bool {
	c.mu.Lock()
	if c.out.Over() {
		c.mu.Unlock()
		return false
	}
	c.touch(w)
	return true
}

// unlockOutput unlocks c after output has been appended. It ends the connection if too much output is waiting.
func (c *conn) unlockOutput() {
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
	return c.err()
}

// err returns the error that ended the connection, or nil if the connection is not over.
func (c *conn) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Err()
}

// isOver reports whether the connection is over or ending. Frames that arrive are not handled then.
func (c *conn) isOver() bool {
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
	if !c.lockOutput(w) {
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
	c.unlockOutput()
	return sent
}

// sendEnd ends a stream after its data.
func (c *conn) sendEnd(w *deferred.Work, id uint32) {
	if c.lockOutput(w) {
		c.out.Pending.AppendData(id, nil, true)
		c.unlockOutput()
	}
}

// reset sends RST_STREAM for a stream. If the stream is in the table, the caller removes it.
func (c *conn) reset(w *deferred.Work, id uint32, code http2.ErrCode) {
	if c.lockOutput(w) {
		c.out.Pending.AppendReset(id, code)
		c.unlockOutput()
	}
}

// giveBack gives n bytes of a stream's window back to its sender.
func (c *conn) giveBack(w *deferred.Work, id uint32, n int) {
	if c.lockOutput(w) {
		c.out.Pending.AppendWindowUpdate(id, n)
		c.unlockOutput()
	}
}

// grant gives the connection's window back.
func (c *conn) grant(w *deferred.Work) {
	if !c.lockOutput(w) {
		return
	}
	if credit := c.recvWindow.Restore(); credit > 0 {
		c.out.Pending.AppendWindowUpdate(0, credit)
	}
	c.unlockOutput()
}

// Due is called before the answer to a PING is written.
func (c *conn) Due() { c.late.Store(false) }

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
