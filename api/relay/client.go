package relay

import (
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/streams"
	"github.com/core-tools/hsu-master/api/relay/wire"
	"github.com/core-tools/hsu-master/internal/fair"
)

const (
	// clientWindow is the flow-control window of a client's connection. Credit is given back on arrival, so that a
	// stalled call never stalls another. The window bounds the data that can be in flight before a client that
	// exceeds its budget is stopped.
	clientWindow = 4 << 20
)

const (
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
	name    []byte         // the header list with [Client], constant once reading has begun
	guard   guard
	backlog backlog
	ids     streams.ClientIDs
	fresh   []callUse // calls that the current read has begun, see startCalls; only the reader uses it
	said    bool      // the first SETTINGS have been sent; guarded by conn.mu
	evicted bool      // being closed to make room; guarded by Relay.mu
}

func newClientConn(e *env, p *pools, nc net.Conn, m *peers.Account) *clientConn {
	c := &clientConn{
		pools: p, account: m, guard: guard{account: m}, ids: streams.NewClientIDs(cutTrailers, mostCut),
		backlog: backlog{account: m, all: &e.peers, most: int64(e.opts.MaxBuffered)},
	}
	c.init(e, c, limits{clientOutput, maxHeaderList, clientWindow})
	c.socket.Conn = nc
	return c
}

// asClient identifies the connection to package fair.
func (c *clientConn) asClient() fair.Client {
	return fair.Client{Peer: c.account.Peer(), Conn: c.account}
}

// address returns the client's address.
func (c *clientConn) address() string { return c.socket.Conn.RemoteAddr().String() }

// serve is the reader goroutine.
func (c *clientConn) serve() {
	nc := c.socket.Conn
	defer c.account.Leave()
	err := c.greet()
	if err == nil {
		err = c.in.Read(&c.socket, c.arrived)
	}
	err = c.finish(err)
	if !errors.Is(err, io.EOF) && !errors.Is(err, errClosing) &&
		!errors.Is(err, errIdlest) && !errors.Is(err, net.ErrClosed) {
		c.env.opts.Log.Debug("connection of a client ended", "peer", c.address(), "err", err)
	}
	if errors.Is(err, errHead) || errors.Is(err, errSlow) || errors.Is(err, errMemory) {
		c.env.log.Limited(err.Error(), c.account.Peer())
	}
	c.loseAll()
	c.work.Do()
	c.in.Drop()
	c.guard.keepInput(c.in.Kept())
	c.out.Stop()
	_ = nc.Close() // not TLS, whose Close would wait for a client that does not read
}

// greet completes the TLS handshake, if TLS is configured, and prepares the connection for reading.
func (c *clientConn) greet() error {
	nc := c.socket.Conn
	if c.env.opts.TLS != nil {
		secure, err := c.handshake(nc)
		if err != nil {
			return err
		}
		nc = secure
	}
	c.use(nc, nil)
	var name headers.List
	name.Add(protocol.Client, c.account.Peer().ID().String()+", "+nc.RemoteAddr().String())
	c.name = name.Bytes()
	return nil
}

func (c *clientConn) handshake(nc net.Conn) (net.Conn, error) {
	c.mu.Lock()
	err := c.out.Err()
	if !c.out.Dead() {
		err = nc.SetDeadline(time.Now().Add(c.env.opts.HandshakeTimeout))
	}
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	secure := tls.Server(nc, c.env.opts.TLS)
	if err := secure.Handshake(); err != nil { //nolint:noctx // the deadline bounds it, and Close ends it
		if !errors.Is(err, io.EOF) { // otherwise the client only looked whether the port is open
			c.env.log.Trouble("no TLS with a client", c.address(), err)
		}
		return nil, err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	state := secure.ConnectionState()
	c.guard.old = state.NegotiatedProtocol != http2.NextProtoTLS
	if id, ok := peers.ByCertificate(state); ok {
		c.account.Become(c.env.now(), id)
	}
	return secure, nil
}

// arrived handles the bytes that have been read, and writes the results.
func (c *clientConn) arrived() error {
	c.hear()
	err := c.handle()
	if err != nil {
		c.in.Discard()
		err = c.fault(err)
	}
	c.in.Compact()
	c.startCalls()
	c.env.shed(&c.work)
	c.work.Do()
	c.out.Pause()
	c.guard.keepInput(c.in.Kept())
	c.guard.noteHead(c.in.Head(), c.lastHeard())
	if err == nil {
		err = c.over()
	}
	return err
}

// fault reports a violation of the protocol to the client and ends its calls. It returns nil if the reader must go
// on for a moment, without handling further input. It returns other errors unchanged.
func (c *clientConn) fault(err error) error {
	fault, ok := err.(frames.ConnError) //nolint:errorlint // a connError is never wrapped
	if !ok {
		return err
	}
	c.env.log.Trouble("connection ended for a fault of its peer", c.address(), fault)
	c.goAway(&c.work, fault.Code, fault.Reason)
	c.loseAll()
	return nil
}

// handle handles the frames that are whole.
func (c *clientConn) handle() error {
	if c.overWith() {
		c.in.Discard()
		return nil
	}
	if !c.guard.preface {
		if err := c.preface(c.in.Bytes()); err != nil || !c.guard.preface {
			return err
		}
	}
	for {
		f, ok, err := c.in.Next()
		if err != nil || !ok {
			return err
		}
		if !c.mayBegin(&f) && c.overWith() {
			c.in.Discard()
			return nil
		}
		if err := c.frame(f); err != nil {
			return err
		}
		if c.guard.resetOut {
			return errResets
		}
	}
}

// preface handles the client's preface, or its beginning. Input that looks like HTTP/1 gets an answer in HTTP/1.
func (c *clientConn) preface(b []byte) error {
	n := min(len(b), len(http2.ClientPreface))
	if !c.guard.old && string(b[:n]) == http2.ClientPreface[:n] {
		if n == len(http2.ClientPreface) {
			c.in.Skip(n)
			c.guard.preface = true
			c.hello()
		}
		return nil
	}
	c.in.Discard()
	if b[0] < 'A' || b[0] > 'Z' || string(b[:min(len(b), 3)]) == "PRI" {
		return frames.Fault(http2.ErrCodeProtocol, "no preface of HTTP/2, or not agreed on by TLS")
	}
	if c.begin(&c.work) {
		c.out.Pending.AppendText(oldHTTP)
		c.out.End()
		c.end()
	}
	return nil
}

// oldHTTP is the answer to a client that speaks HTTP/1.
var oldHTTP = func() string {
	const text = "this port speaks gRPC, over HTTP/2 only\n"
	return "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nConnection: close\r\n" +
		"Content-Length: " + strconv.Itoa(len(text)) + "\r\n\r\n" + text
}()

// hello sends the first SETTINGS. It runs after the client's preface has arrived, since an HTTP/1 client could not
// read them.
func (c *clientConn) hello() {
	if c.begin(&c.work) {
		c.out.Pending.AppendSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList})
		c.out.Pending.AppendWindowUpdate(0, clientWindow-frames.FirstWindow)
		c.said = true
		c.end()
	}
	if c.env.closing.Load() {
		c.warn(&c.work)
	}
}

// mayBegin returns true at once unless a frame begins a call and the client's peer has reset too many streams. In
// that case it waits for the connection's turn and returns false. Nothing is read from the client meanwhile.
func (c *clientConn) mayBegin(f *frames.Frame) bool {
	if f.Kind != http2.FrameHeaders || f.ID <= c.ids.Newest || c.account.MayBegin(c.lastHeard()) {
		return true
	}
	c.startCalls()
	c.work.Do()
	c.guard.head.Store(0) // the delay is not the client's
	c.env.log.Limited("streams reset or calls refused: calls begin one by one", c.account.Peer())
	c.account.Wait()
	c.hear()
	return false
}

// frame handles one frame.
func (c *clientConn) frame(f frames.Frame) error {
	if err := c.in.Check(&f); err != nil {
		return err
	}
	if err := c.charge(&f); err != nil {
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
		_, _, err := c.onSettings(f)
		return err
	case http2.FramePing:
		return c.onPing(f)
	case http2.FrameGoAway:
		// The GOAWAY forbids us streams, which we never open, and announces that the client is about to leave.
		// Streams that the client still opens, as gRPC clients may, are served.
		_, err := frames.ParseGoAway(f)
		if err == nil {
			c.warn(&c.work)
		}
		return err
	default:
		return frames.CheckOther(f)
	}
}

// charge charges a client for a frame. Frames that carry something of a call pay for those that do not.
func (c *clientConn) charge(f *frames.Frame) error {
	cost := frameCost(f, f.ID > c.ids.Newest)
	switch {
	case f.Kind == http2.FrameWindowUpdate:
		c.mu.Lock()
		cost -= c.guard.takePaid()
		c.mu.Unlock()
	case f.Kind == http2.FrameSettings && frames.ChangesWindow(f.Payload):
		c.mu.Lock()
		cost += c.calls.Len() / streamsPerUnit
		c.mu.Unlock()
	}
	now := c.lastHeard()
	if cost < 0 {
		c.account.Earn(now, -cost)
	} else if cost > 0 && !c.account.Work(now, cost) {
		return errIdleFrames
	}
	return nil
}

// stray resets a closed stream for a frame on it, and charges the client for the frame, which was credited as a frame
// that carries something of a call.
func (c *clientConn) stray(id uint32, code http2.ErrCode) error {
	c.streamError(&c.work, id, code)
	if !c.account.Work(c.lastHeard(), 2*peers.Frame) {
		return errIdleFrames
	}
	return nil
}

// onHeaders handles a header block, unless it is not whole yet: a new call, or the trailers of a request.
func (c *clientConn) onHeaders(id uint32, end bool, err error) error {
	switch {
	case err != nil || id == 0:
		return err
	case id&1 == 0:
		return frames.Fault(http2.ErrCodeProtocol, "a client's stream with an even id")
	case id <= c.ids.Newest:
		return c.trailers(id, &c.in.List, end)
	}
	c.request(id, &c.in.List, end)
	return nil
}

// request handles the headers of a new call, which startCalls starts.
func (c *clientConn) request(id uint32, l *headers.List, end bool) {
	k := calls.Get().(*call)
	k.mu.Lock()
	defer k.unlock(&c.work)
	window, ok := c.admit(id, k, end)
	if !ok {
		return
	}
	k.attach(c, id, window, end)
	if k.begin(&c.work, l, end) {
		c.fresh = append(c.fresh, callUse{k, k.gen})
	}
}

// mostFresh bounds the capacity of the list of calls that a connection keeps for its next read.
const mostFresh = 64

// startCalls dispatches the calls that the current read has begun. It runs after all frames of that read have been
// handled, so that no endpoint sees a call that the same read has ended.
func (c *clientConn) startCalls() {
	for _, u := range c.fresh {
		u.start(&c.work)
	}
	if cap(c.fresh) > mostFresh {
		c.fresh = nil
	}
	c.fresh = c.fresh[:0]
}

// trailers handles headers on a stream that is not new.
func (c *clientConn) trailers(id uint32, l *headers.List, end bool) error {
	k := c.callOf(id)
	if k == nil {
		return c.lateHeaders(id, l, end)
	}
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.client != c || k.clientID != id {
		return c.lateHeaders(id, l, end)
	}
	k.upTrailers(&c.work, l, end)
	return nil
}

// lateHeaders handles headers on a stream that is closed, or that was never opened although later ones were.
func (c *clientConn) lateHeaders(id uint32, l *headers.List, end bool) error {
	if c.ids.Ignored(id) {
		return nil
	}
	if _, call := l.Get(":path"); call {
		return frames.Fault(http2.ErrCodeProtocol, "a call on a stream that is not newer than those before")
	}
	if !end || l.Truncated || !protocol.AreTrailers(l) {
		return c.stray(id, http2.ErrCodeProtocol)
	}
	return c.onClosed(id, cutTrailers, end)
}

func (c *clientConn) onData(f frames.Frame) error {
	n, end := len(f.Payload), f.Flags&http2.FlagDataEndStream != 0
	k, due, err := c.takeData(&f)
	if err != nil {
		return err
	}
	if due {
		c.credit(&c.work)
	}
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&c.work)
		if k.client == c && k.clientID == f.ID {
			k.upData(&c.work, f.Payload, n, end)
			return nil
		}
	}
	if !c.ids.Opened(f.ID) {
		return frames.Fault(http2.ErrCodeProtocol, "DATA on an idle stream")
	}
	return c.onClosed(f.ID, n, end)
}

// onClosed handles a frame of n bytes on a closed stream. end means that the frame ends the stream.
func (c *clientConn) onClosed(id uint32, n int, end bool) error {
	if c.ids.Ignored(id) {
		return nil
	}
	c.mu.Lock()
	may := c.ids.Cut.Take(id, n)
	if end {
		c.ids.Cut.End(id)
	}
	c.mu.Unlock()
	if may {
		return nil
	}
	return c.stray(id, http2.ErrCodeStreamClosed)
}

func (c *clientConn) onWindowUpdate(f frames.Frame) error {
	n, err := frames.ParseWindowUpdate(f)
	if err != nil {
		return err
	}
	if f.ID == 0 {
		c.mu.Lock()
		ok := c.sendWindow.Widen(n)
		c.mu.Unlock()
		if !ok {
			return errWindow
		}
		c.Resume(&c.work)
		return nil
	}
	k := c.callOf(f.ID)
	switch {
	case k != nil:
		c.widenStream(k, f.ID, n)
	case !c.ids.Opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case n == 0 && !c.ids.Ignored(f.ID):
		c.streamError(&c.work, f.ID, http2.ErrCodeProtocol)
	}
	return nil
}

func (c *clientConn) onReset(f frames.Frame) error {
	code, err := frames.ParseReset(f)
	switch {
	case err != nil:
		return err
	case !c.ids.Opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	c.mu.Lock()
	k := c.calls.Get(f.ID)
	if k == nil {
		c.ids.Cut.End(f.ID)
	}
	c.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&c.work)
	if k.client == c && k.clientID == f.ID {
		c.blame(c.env.now() - k.began)
		k.clientReset(&c.work, code)
	}
	return nil
}

func (c *clientConn) onPing(f frames.Frame) error {
	data, ack, err := frames.ParsePing(f)
	switch {
	case err != nil:
		return err
	case ack:
		if data == lastPing {
			c.leave(&c.work)
		}
		return nil
	}
	c.mu.Lock()
	useful := c.guard.takeUseful()
	c.mu.Unlock()
	c.answerPing(data)
	if !c.guard.ping(c.env.now(), useful, c.env.opts.MinPing) {
		return frames.Fault(http2.ErrCodeEnhanceYourCalm, "too_many_pings")
	}
	return nil
}

// sendHeaders appends a header block. It does nothing if the connection is over.
func (c *clientConn) sendHeaders(w *deferred.Work, id uint32, list []byte, end bool) {
	if !c.begin(w) {
		return
	}
	c.out.Pending.AppendHeaders(id, end, list)
	c.guard.useful = true
	c.end()
}

// interimRoom is the size of the output up to which interim headers are appended.
const interimRoom = wire.RoomBlocked

// sendInterim appends the headers of an interim response (1xx), unless much output is waiting. These headers have
// no window, and gRPC does not use them. Without this bound, an endpoint could end its caller's connection by
// sending many.
func (c *clientConn) sendInterim(w *deferred.Work, id uint32, list []byte) {
	if !c.begin(w) {
		return
	}
	if c.out.Pending.Len() < interimRoom {
		c.out.Pending.AppendHeaders(id, false, list)
	}
	c.end()
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

// violated ends the call because the client has violated HTTP/2.
func (c *clientConn) violated(k *call, w *deferred.Work, code http2.ErrCode) {
	k.clientViolated(w, code)
}

// credit gives the connection's window back, unless the client's calls hold too much. It is called by the reader,
// which holds no lock.
func (c *clientConn) credit(w *deferred.Work) {
	if c.backlog.withhold() {
		// Data that is only kept for a retry would not move on by itself, so nothing would give the window back.
		c.dropReplay(w)
		c.goOn(w) // nor would anything if the queued data has gone meanwhile
		return
	}
	c.grant(w)
}

// goOn gives back the window of a client that was stopped, as soon as the client need not be stopped any more.
func (c *clientConn) goOn(w *deferred.Work) {
	if c.backlog.relent() {
		c.grant(w)
	}
}

// dropReplay frees the data that the client's calls keep for retries.
func (c *clientConn) dropReplay(w *deferred.Work) {
	for _, s := range c.streams() {
		k := s.Call
		k.mu.Lock()
		if k.client == c && k.clientID == s.ID {
			k.dropReplay(w)
		}
		k.unlock(w)
	}
}

// loseAll ends the calls of a connection that is over.
func (c *clientConn) loseAll() {
	for _, s := range c.streams() {
		k := s.Call
		k.mu.Lock()
		if k.client == c && k.clientID == s.ID {
			c.blame(c.env.now() - k.began)
			k.clientReset(&c.work, http2.ErrCodeCancel)
		}
		k.unlock(&c.work)
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
	if !c.begin(w) {
		return
	}
	c.out.Pending.AppendGoAway(c.ids.Served, code, reason)
	c.out.End()
	c.mu.Unlock()
}

// warn begins the graceful shutdown: the client is told to open no more streams, but streams that it opens before it
// reads that are served.
func (c *clientConn) warn(w *deferred.Work) {
	if !c.begin(w) {
		return
	}
	if c.drain == serving && c.said { // if !c.said, hello does it after the SETTINGS
		c.drain = warned
		c.out.Pending.AppendGoAway(frames.MaxID, http2.ErrCodeNo, "graceful_stop")
		c.out.Pending.AppendPing(false, lastPing)
	}
	c.end()
}

// leave announces the last stream that is served, and closes the connection when that and all earlier ones have
// ended.
func (c *clientConn) leave(w *deferred.Work) {
	if !c.begin(w) {
		return
	}
	if c.drain == warned {
		c.drain = draining
		c.out.Pending.AppendGoAway(c.ids.Served, http2.ErrCodeNo, "graceful_stop")
		c.endIdle(w)
	}
	c.end()
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
	if k.client == c && k.clientID == s.ID {
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

// closeStream removes the stream of a call that leaves the connection, and gives back by how much the windows of the
// call have grown. ended means that the client has ended the stream; otherwise it may still send window bytes.
func (c *clientConn) closeStream(w *deferred.Work, k *call, grown int, ended bool, window int) {
	c.account.Keep(peers.Calls, -k.cost)
	c.backlog.shrink(grown)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget(&k.down)
	c.calls.Remove(k.clientID)
	if !ended {
		c.ids.Cut.Add(k.clientID, window)
	}
	c.idle = c.env.now()
	c.endIdle(w)
}

// kept returns the bytes that are kept for the connection, or 0 if it is over.
func (c *clientConn) kept() int64 {
	if c.over() != nil {
		return 0
	}
	return c.account.Kept()
}

// admit gives a new stream to a call. It returns the initial window of the stream, or false if the stream was
// refused.
func (c *clientConn) admit(id uint32, k *call, end bool) (window int, ok bool) {
	c.ids.Newest = id
	c.mu.Lock()
	if c.drain == draining {
		// The GOAWAY that the client has not read yet names this stream as not seen. Not all clients check that.
		c.mu.Unlock()
		c.reset(&c.work, id, http2.ErrCodeRefusedStream)
		return 0, false
	}
	c.ids.Served = id
	if c.calls.Len() >= maxStreams {
		if !end {
			c.ids.Cut.Add(id, frames.FirstWindow)
		}
		c.mu.Unlock()
		c.streamError(&c.work, id, http2.ErrCodeRefusedStream)
		return 0, false
	}
	c.calls.Put(id, k)
	window = c.theirs.Window
	c.mu.Unlock()
	return window, true
}
