package relay

import (
	"context"
	"net"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/streams"
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
	c.init(e, c, limits{backendOutput, maxBackendHeaderList, backendWindow})
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

// serve is the reader goroutine.
func (c *backendConn) serve(ctx context.Context) {
	reason := "connect to the server: "
	nc, err := c.connect(ctx)
	if err == nil {
		hello := frames.AppendSettings([]byte(http2.ClientPreface),
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxBackendHeaderList})
		c.use(nc, frames.AppendWindowUpdate(hello, 0, backendWindow-frames.FirstWindow))
		c.work.Do()
		err = c.in.Read(&c.socket, c.arrived)
		reason = "connection to the server lost: "
	}
	c.pool.remove(c)
	err = c.finish(err)
	if !c.isDraining() {
		c.env.log.Trouble("connection to a backend lost", c.address(), err)
	}
	c.loseCalls(reason + report.ErrorText(err))
	c.work.Wake(c.pool)
	c.work.Do()
	c.out.Stop()
	if nc != nil {
		_ = nc.Close()
	}
}

func (c *backendConn) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.env.opts.HandshakeTimeout)
	defer cancel()
	return c.pool.dial(ctx)
}

func (c *backendConn) isDraining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drain == draining
}

// room is the result of opening a stream on one connection.
type room uint8

const (
	streamOpened room = iota
	streamsFull
	streamsSoon   // the backend has not announced a limit yet, or much output is waiting
	streamsNever  // the connection accepts no more streams
	streamsUsedUp // there is a stream, but no window for the data of the call
)

// openStream opens a stream for the call, if the connection has a stream and a window for it. anyway means even
// without a window. k.mu is held.
func (c *backendConn) openStream(w *deferred.Work, k *call, anyway bool) room {
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
	case !anyway && !end && c.uplink.UsedUp(k.account()):
		return streamsUsedUp
	}
	id := c.next
	c.next += 2
	c.out.Marks.Set(c.next)
	c.calls.Put(id, k)
	k.backend, k.backendID = c, id
	k.up.sendLeft = c.theirs.Window
	c.uplink.Join(&k.up.sender, k.account())
	c.touch(w)
	var passedBy, name []byte
	if e := c.pool.endpoint; e == nil || e.Worker == "" {
		passedBy = c.env.passedBy // may be another master, or the local server, which may send the call to one
	}
	if c.pool.endpoint == nil {
		name = k.clientName()
	}
	c.out.Pending.AppendHeaders(id, end, k.timeoutLeft(), passedBy, name)
	c.ask()
	k.up.endSent = end
	return streamOpened
}

// abandon takes a stream back that was opened on a connection whose goroutines have not been started. k.mu is held.
func (c *backendConn) abandon(k *call) {
	c.calls.Remove(k.backendID)
	c.uplink.Leave(&k.up.sender)
	k.backend = nil
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

// arrived handles the bytes that have been read, and writes the results.
func (c *backendConn) arrived() error {
	c.hear()
	err := c.handle()
	if err != nil {
		c.in.Discard()
		err = c.fault(err)
	}
	c.in.Compact()
	c.env.shed(&c.work)
	c.work.Do()
	if err == nil {
		err = c.over()
	}
	return err
}

// fault reports a violation of the protocol to the backend and ends the calls. It returns nil if the reader must go
// on for a moment, without handling further input. It returns other errors unchanged.
func (c *backendConn) fault(err error) error {
	fault, ok := err.(frames.ConnError) //nolint:errorlint // a connError is never wrapped
	if !ok {
		return err
	}
	c.env.log.Trouble("connection ended for a fault of its peer", c.address(), fault)
	c.goAway(&c.work, fault.Code, fault.Reason)
	c.loseCalls("the server broke the rules of HTTP/2: " + fault.Error())
	return nil
}

// handle handles the frames that are whole.
func (c *backendConn) handle() error {
	if c.overWith() {
		c.in.Discard()
		return nil
	}
	for {
		f, ok, err := c.in.Next()
		if err != nil || !ok {
			return err
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

// frame handles one frame.
func (c *backendConn) frame(f frames.Frame) error {
	if err := c.in.Check(&f); err != nil {
		return err
	}
	switch f.Kind {
	case http2.FrameHeaders:
		return c.onHeaders(c.in.Headers(f))
	case http2.FrameContinuation:
		return c.onHeaders(c.in.Continuation(f))
	case http2.FrameData:
		return c.onData(f)
	case http2.FrameWindowUpdate:
		return c.onWindowUpdate(f)
	case http2.FrameRSTStream:
		return c.onReset(f)
	case http2.FrameSettings:
		s, announced, err := c.onSettings(f)
		if err == nil && announced {
			c.pool.announced.Store(max(s.Streams, 1))
			c.work.Wake(c.pool)
		}
		return err
	case http2.FramePing:
		data, ack, err := frames.ParsePing(f)
		switch {
		case err != nil:
			return err
		case ack:
			c.work.Wake(c.pool) // the backend may have been suspected, and calls may wait
		default:
			c.answerPing(data)
		}
		return nil
	case http2.FrameGoAway:
		return c.onGoAway(f)
	default:
		return frames.CheckOther(f)
	}
}

// opened reports whether the stream with that id was ever opened.
func (c *backendConn) opened(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return id&1 == 1 && id < c.next
}

// onHeaders handles a header block, unless it is not whole yet.
func (c *backendConn) onHeaders(id uint32, end bool, err error) error {
	if err != nil || id == 0 {
		return err
	}
	if k := c.answeredCall(id); k != nil {
		k.mu.Lock()
		defer k.unlock(&c.work)
		if k.backend == c && k.backendID == id {
			k.downHeaders(&c.work, &c.in.List, end)
			return nil
		}
	}
	if !c.opened(id) {
		return frames.Fault(http2.ErrCodeProtocol, "HEADERS on an idle stream")
	}
	return nil
}

func (c *backendConn) onData(f frames.Frame) error {
	n, end := len(f.Payload), f.Flags&http2.FlagDataEndStream != 0
	k, due, err := c.takeData(&f)
	if err != nil {
		return err
	}
	if due {
		c.grant(&c.work)
	}
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&c.work)
		if k.backend == c && k.backendID == f.ID {
			k.downData(&c.work, f.Payload, n, end)
			return nil
		}
	}
	if !c.opened(f.ID) {
		return frames.Fault(http2.ErrCodeProtocol, "DATA on an idle stream")
	}
	return nil // the backend may not have read yet that the stream was reset
}

func (c *backendConn) onWindowUpdate(f frames.Frame) error {
	n, err := frames.ParseWindowUpdate(f)
	if err != nil {
		return err
	}
	if f.ID == 0 {
		c.mu.Lock()
		ok := c.sendWindow.Widen(n)
		c.uplink.Widened()
		c.mu.Unlock()
		if !ok {
			return errWindow
		}
		c.Resume(&c.work)
		return nil
	}
	c.mu.Lock()
	k := c.calls.Get(f.ID)
	if k != nil && c.uplink.HasRead(&k.up.sender, n) {
		c.touch(&c.work)
	}
	c.mu.Unlock()
	switch {
	case k != nil:
		c.widenStream(k, f.ID, n)
	case !c.opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case n == 0:
		c.reset(&c.work, f.ID, http2.ErrCodeProtocol)
	}
	return nil
}

func (c *backendConn) onReset(f frames.Frame) error {
	code, err := frames.ParseReset(f)
	switch {
	case err != nil:
		return err
	case !c.opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	k := c.callOf(f.ID)
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.backend == c && k.backendID == f.ID {
		k.backendReset(&c.work, code)
	}
	return nil
}

func (c *backendConn) onGoAway(f frames.Frame) error {
	last, err := frames.ParseGoAway(f)
	if err != nil {
		return err
	}
	c.pool.remove(c)
	c.mu.Lock()
	c.drain = draining
	calls := c.calls.All()
	c.mu.Unlock()
	for _, s := range calls {
		if s.ID > last {
			c.lost(s, true, goneReason)
		}
	}
	c.retire(&c.work)
	c.work.Wake(c.pool)
	return nil
}

// sent records that data has been appended to the output. c.mu is held.
func (c *backendConn) sent(int) { c.ask() }

// violated ends the call because the backend has violated HTTP/2.
func (c *backendConn) violated(k *call, w *deferred.Work, code http2.ErrCode) {
	k.garbage(w, code, brokenRules)
}

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
	if !c.begin(w) {
		return
	}
	c.out.Pending.Drop()
	c.out.Pending.AppendGoAway(0, code, reason)
	c.out.End()
	c.mu.Unlock()
}

// loseCalls tells all calls of the connection that they have lost it. Nothing more is written to the connection,
// except for a write that has begun.
func (c *backendConn) loseCalls(reason string) {
	c.mu.Lock()
	calls, seen := c.calls.All(), c.out.Marks.Unseen()
	c.mu.Unlock()
	for _, s := range calls {
		c.lost(s, s.ID >= seen, reason)
	}
}

// lost tells the call of a stream that it has lost its backend.
func (c *backendConn) lost(s streams.Stream[*call], unseen bool, reason string) {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.backend == c && k.backendID == s.ID {
		k.backendLost(&c.work, unseen, c.hasAnswered(), reason)
	}
}
