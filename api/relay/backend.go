package relay

import (
	"context"
	"net"
	"time"

	"golang.org/x/net/http2"
)

const (
	// backendOutput is the pending output beyond which a connection to a backend is closed. All clients together
	// cannot cause it: headers stop at pauseOutput and data at its windows, and each open stream adds at most one
	// end of its data and one reset. So only the backend can.
	backendOutput = clientOutput + unboundedStreams*(frameHeader+frameHeader+4)
	// maxBackendHeaderList bounds a header list from a backend, as HTTP/2 counts it.
	maxBackendHeaderList = 64 << 10
	// backendWindow is the flow-control window of a connection to a backend. Credit is given back on arrival, so
	// that a stalled call never stalls another.
	backendWindow = 16 << 20
)

// backendConn is a connection to a backend, on which the relay opens streams for calls of all clients.
type backendConn struct {
	conn
	pool   *pool
	uplink *uplink[*flow]
	next   uint32 // the id of the next stream; guarded by conn.mu
}

func newBackendConn(r *Relay, p *pool) *backendConn {
	c := &backendConn{pool: p, next: 1}
	c.init(r, c, limits{backendOutput, maxBackendHeaderList, backendWindow})
	c.theirs.streams = p.firstStreams()
	c.out.setMark(c.next)
	c.uplink = newUplink(&c.sendWindow, r.now)
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
		hello := appendSettings([]byte(http2.ClientPreface),
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxBackendHeaderList})
		c.use(nc, appendWindowUpdate(hello, 0, backendWindow-firstWindow))
		c.work.do()
		err = c.in.read(&c.socket, c.arrived)
		reason = "connection to the server lost: "
	}
	c.pool.remove(c)
	err = c.finish(err)
	if !c.isDraining() {
		c.relay.log.trouble("connection to a backend lost", c.address(), err)
	}
	c.loseCalls(reason + errorText(err))
	c.work.wake(c.pool)
	c.work.do()
	c.out.stop()
	if nc != nil {
		_ = nc.Close()
	}
}

func (c *backendConn) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.relay.opts.HandshakeTimeout)
	defer cancel()
	nc, err := c.pool.dial(ctx)
	if err == nil && c.relay.listensAt(nc) {
		_ = nc.Close()
		return nil, errItself
	}
	return nc, err
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
func (c *backendConn) openStream(w *work, k *call, anyway bool) room {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := k.up.ended && k.up.q.unsent == 0
	switch {
	case c.out.over() || c.drain != serving:
		return streamsNever
	case c.next > c.relay.opts.lastStream:
		c.drain = draining
		c.endIdle(w)
		return streamsNever
	case c.out.full():
		// Headers have no window. The backend does not read, or is not connected yet. The headers of one client
		// must neither end a connection that all clients share nor fill the memory.
		c.out.refuse()
		return streamsSoon
	case uint32(c.calls.len()) >= c.theirs.streams:
		if !c.theirs.known && c.theirs.streams == unsettledStreams {
			return streamsSoon
		}
		return streamsFull
	case c.live.suspect(c.relay):
		return streamsFull
	case !anyway && !end && c.uplink.usedUp(k.client.member):
		return streamsUsedUp
	}
	id := c.next
	c.next += 2
	c.out.setMark(c.next)
	c.calls.put(id, k)
	k.backend, k.backendID = c, id
	k.up.sendLeft = c.theirs.window
	c.uplink.join(&k.up.sender, k.client.member)
	c.touch(w)
	var passedBy, name []byte
	if e := c.pool.endpoint; e == nil || e.Worker == "" {
		passedBy = c.relay.passedBy // may be another master, or the local server, which may send the call to one
	}
	if c.pool.endpoint == nil {
		name = k.client.name
	}
	c.out.appendHeaders(id, end, k.timeoutLeft(), passedBy, name)
	c.live.ask(c.relay)
	k.up.endSent = end
	return streamOpened
}

// abandon takes a stream back that was opened on a connection whose goroutines have not been started. k.mu is held.
func (c *backendConn) abandon(k *call) {
	c.calls.remove(k.backendID)
	c.uplink.leave(&k.up.sender)
	k.backend = nil
}

// freeStreams returns how many more streams the connection accepts.
func (c *backendConn) freeStreams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.over() || c.drain != serving {
		return 0
	}
	return max(0, int(c.theirs.streams)-c.calls.len())
}

// closeStream removes the stream of a flow that leaves the connection. It reports whether the backend is suspected
// to be dead.
func (c *backendConn) closeStream(w *work, f *flow, id uint32) (suspect bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	suspect = c.live.suspect(c.relay)
	if c.uplink.leave(&f.sender) {
		c.touch(w)
	}
	c.calls.remove(id)
	if c.calls.len() == 0 {
		c.idle = c.relay.now()
	}
	c.endIdle(w)
	return suspect
}

// arrived handles n bytes that have been read, and flushes the results.
func (c *backendConn) arrived(n int) error {
	c.hear()
	c.in.add(n)
	err := c.handle()
	if err != nil {
		c.in.discard()
		err = c.fault(err)
	}
	c.in.compact()
	c.relay.shed(&c.work)
	c.work.do()
	if err == nil {
		err = c.over()
	}
	return err
}

// fault reports a violation of the protocol to the backend and ends the calls. It returns nil if the reader must go
// on for a moment, without handling further input. It returns other errors unchanged.
func (c *backendConn) fault(err error) error {
	fault, ok := err.(connError) //nolint:errorlint // a connError is never wrapped
	if !ok {
		return err
	}
	c.relay.log.trouble("connection ended for a fault of its peer", c.address(), fault)
	c.goAway(&c.work, fault.code, fault.reason)
	c.loseCalls("the server broke the rules of HTTP/2: " + fault.Error())
	return nil
}

// handle handles the frames that are whole.
func (c *backendConn) handle() error {
	if c.overWith() {
		c.in.discard()
		return nil
	}
	for {
		f, ok, err := c.in.next()
		if err != nil || !ok {
			return err
		}
		if err := c.frame(f); err != nil {
			return err
		}
	}
}

// frame handles one frame.
func (c *backendConn) frame(f frame) error {
	if err := c.in.check(&f); err != nil {
		return err
	}
	switch f.kind {
	case http2.FrameHeaders:
		return c.onHeaders(c.in.headers(f))
	case http2.FrameContinuation:
		return c.onHeaders(c.in.continuation(f))
	case http2.FrameData:
		return c.onData(f)
	case http2.FrameWindowUpdate:
		return c.onWindowUpdate(f)
	case http2.FrameRSTStream:
		return c.onReset(f)
	case http2.FrameSettings:
		s, announced, err := c.onSettings(f)
		if err == nil && announced {
			c.pool.announced.Store(max(s.streams, 1))
			c.work.wake(c.pool)
		}
		return err
	case http2.FramePing:
		data, ack, err := parsePing(f)
		switch {
		case err != nil:
			return err
		case ack:
			c.work.wake(c.pool) // the backend may have been suspected, and calls may wait
		default:
			c.answerPing(data)
		}
		return nil
	case http2.FrameGoAway:
		return c.onGoAway(f)
	default:
		return checkOther(f)
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
	c.mu.Lock()
	c.live.answer()
	k := c.calls.get(id)
	c.mu.Unlock()
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&c.work)
		if k.backend == c && k.backendID == id {
			k.downHeaders(&c.work, &c.in.list, end)
			return nil
		}
	}
	if !c.opened(id) {
		return connError{http2.ErrCodeProtocol, "HEADERS on an idle stream"}
	}
	return nil
}

func (c *backendConn) onData(f frame) error {
	n, end := len(f.payload), f.flags&http2.FlagDataEndStream != 0
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
		if k.backend == c && k.backendID == f.id {
			k.downData(&c.work, f.payload, n, end)
			return nil
		}
	}
	if !c.opened(f.id) {
		return connError{http2.ErrCodeProtocol, "DATA on an idle stream"}
	}
	return nil // the backend may not have read yet that the stream was reset
}

func (c *backendConn) onWindowUpdate(f frame) error {
	n, err := parseWindowUpdate(f)
	if err != nil {
		return err
	}
	if f.id == 0 {
		c.mu.Lock()
		ok := c.sendWindow.widen(n)
		c.uplink.widened()
		c.mu.Unlock()
		if !ok {
			return errWindow
		}
		c.resume(&c.work)
		return nil
	}
	c.mu.Lock()
	k := c.calls.get(f.id)
	if k != nil && c.uplink.hasRead(&k.up.sender, n) {
		c.touch(&c.work)
	}
	c.mu.Unlock()
	switch {
	case k != nil:
		c.widenStream(k, f.id, n)
	case !c.opened(f.id):
		return connError{http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream"}
	case n == 0:
		c.reset(&c.work, f.id, http2.ErrCodeProtocol)
	}
	return nil
}

func (c *backendConn) onReset(f frame) error {
	code, err := parseReset(f)
	switch {
	case err != nil:
		return err
	case !c.opened(f.id):
		return connError{http2.ErrCodeProtocol, "RST_STREAM on an idle stream"}
	}
	k := c.callOf(f.id)
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.backend == c && k.backendID == f.id {
		k.backendReset(&c.work, code)
	}
	return nil
}

func (c *backendConn) onGoAway(f frame) error {
	last, err := parseGoAway(f)
	if err != nil {
		return err
	}
	c.pool.remove(c)
	c.mu.Lock()
	c.drain = draining
	calls := c.calls.all()
	c.mu.Unlock()
	for _, s := range calls {
		if s.id > last {
			c.lost(s, true, goneReason)
		}
	}
	c.retire(&c.work)
	c.work.wake(c.pool)
	return nil
}

// sent records that data has been appended to the output. c.mu is held.
func (c *backendConn) sent(int) { c.live.ask(c.relay) }

// outputChanged does nothing: output to a backend is counted for no client.
func (c *backendConn) outputChanged() {}

// outputRelieved lets the calls go on that wait for room for their headers.
func (c *backendConn) outputRelieved(w *work) { w.wake(c.pool) }

// hasAnswered reports whether the backend has answered a call on this connection.
func (c *backendConn) hasAnswered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.live.answered
}

// look ends the connection if it is unused, or if something that it waits for has not come in time. It sends a PING
// if one is due.
func (c *backendConn) look(w *work, now time.Duration) {
	o := &c.relay.opts
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open() && c.calls.len() == 0 && c.live.unanswered(now) <= 0 {
		if now-c.idle > o.BackendIdle {
			c.drain = draining
			c.endIdle(w)
		}
		return
	}
	c.conn.look(w, now, silence{o.BackendPing, o.BackendSilence, min(o.PingTimeout, backendPatience)})
}

// retire closes the connection once its last stream has ended.
func (c *backendConn) retire(w *work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain = draining
	c.endIdle(w)
}

// endIdle closes a draining connection that has no streams left. c.mu is held.
func (c *backendConn) endIdle(w *work) {
	if c.drained() {
		c.touch(w)
		c.out.appendGoAway(0, http2.ErrCodeNo, "")
		c.out.end()
	}
}

// goAway sends GOAWAY with the reason instead of all pending output, and closes the connection when that is written.
// Streams that the backend has not seen go to another connection: see loseCalls.
func (c *backendConn) goAway(w *work, code http2.ErrCode, reason string) {
	if !c.begin(w) {
		return
	}
	c.out.drop()
	c.out.appendGoAway(0, code, reason)
	c.out.end()
	c.mu.Unlock()
}

// loseCalls tells all calls of the connection that they have lost it. Nothing more is written to the connection,
// except for a write that has begun.
func (c *backendConn) loseCalls(reason string) {
	c.mu.Lock()
	calls, seen := c.calls.all(), c.out.seen()
	c.mu.Unlock()
	for _, s := range calls {
		c.lost(s, s.id >= seen, reason)
	}
}

// lost tells the call of a stream that it has lost its backend.
func (c *backendConn) lost(s stream[*call], unseen bool, reason string) {
	k := s.call
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.backend == c && k.backendID == s.id {
		k.backendLost(&c.work, unseen, reason)
	}
}
