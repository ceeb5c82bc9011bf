package relay

import (
	"errors"
	"io"
	"net"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
)

// clientReader is the reader goroutine of a client's connection: it begins the client's calls, and charges the client
// for its frames.
type clientReader struct {
	reader
	client  *clientConn
	preface bool      // the preface has arrived
	old     bool      // TLS has not negotiated HTTP/2
	fresh   []callUse // calls that the current read has begun, see startCalls
}

func newClientReader(c *clientConn) *clientReader {
	return &clientReader{reader: newReader(&c.conn, maxHeaderList), client: c}
}

// serve reads until the connection ends.
func (r *clientReader) serve() {
	nc := r.client.socket.Conn
	defer r.client.account.Leave()
	err := r.greet()
	if err == nil {
		err = r.in.Read(&r.client.socket, r.arrived)
	}
	err = r.client.finish(err)
	if !errors.Is(err, io.EOF) && !errors.Is(err, errClosing) &&
		!errors.Is(err, errIdlest) && !errors.Is(err, net.ErrClosed) {
		r.client.env.opts.Log.Debug("client connection ended", "client_address", r.client.address(), "error", err)
	}
	if errors.Is(err, errHead) || errors.Is(err, errSlow) || errors.Is(err, errMemory) {
		r.client.env.log.Limited(err.Error(), r.client.account.Peer())
	}
	r.loseAll()
	r.work.Do()
	r.in.Drop()
	r.keepInput() // none
	r.client.out.Stop()
	_ = nc.Close() // not TLS, whose Close would wait for a client that does not read
}

// arrived handles the bytes that have been read, and writes the results.
func (r *clientReader) arrived() error {
	r.client.hear()
	err := r.handle()
	if err != nil {
		r.in.Discard()
		err = r.fault(err)
	}
	r.in.Compact()
	r.keepInput()
	r.startCalls()
	r.client.env.shed(&r.work, false)
	r.work.Do()
	r.client.out.Pause()
	r.client.guard.noteHead(r.in.Head(), r.client.live.lastHeard())
	if err == nil {
		err = r.client.err()
	}
	return err
}

// keepInput counts the input that waits for more. If there is no memory for it, the connection ends.
func (r *clientReader) keepInput() {
	n, e := r.in.Kept(), r.client.env
	if n == r.client.guard.input {
		return
	}
	p := r.client.account.Peer()
	if r.client.guard.keepInput(n, e.mostWithInput(p)) {
		return
	}
	e.shed(&r.work, true)
	if !r.client.guard.keepInput(n, e.mostWithInput(p)) {
		r.client.kill(errMemory)
	}
}

// fault reports a violation of the protocol to the client and ends its calls. It returns nil if the reader must go
// on for a moment, without handling further input. It returns other errors unchanged.
func (r *clientReader) fault(err error) error {
	fault, ok := err.(frames.ConnError) //nolint:errorlint // a ConnError is never wrapped
	if !ok {
		return err
	}
	r.client.env.log.ClientViolated(r.client.address(), fault)
	r.client.goAway(&r.work, fault.Code, fault.Reason)
	r.loseAll()
	return nil
}

// handle handles the frames that are whole.
func (r *clientReader) handle() error {
	if r.client.isOver() {
		r.in.Discard()
		return nil
	}
	if !r.preface {
		if err := r.readPreface(r.in.Bytes()); err != nil || !r.preface {
			return err
		}
	}
	for {
		f, ok, err := r.in.Next()
		if err != nil || !ok {
			return err
		}
		if !r.mayBegin(&f) && r.client.isOver() {
			r.in.Discard()
			return nil
		}
		if err := r.frame(f); err != nil {
			return err
		}
		if r.client.guard.resetOut {
			return errResets
		}
	}
}

// mayBegin returns true at once unless a frame begins a call and the client's peer has reset too many streams. In
// that case it waits for the connection's turn and returns false. Nothing is read from the client meanwhile.
func (r *clientReader) mayBegin(f *frames.Frame) bool {
	if f.Kind != http2.FrameHeaders || f.ID <= r.client.ids.Newest {
		return true
	}
	if r.client.account.MayBegin(r.client.live.lastHeard()) {
		return true
	}
	r.keepInput()
	r.startCalls()
	r.work.Do()
	r.client.guard.head.Store(0) // the delay is not the client's
	r.client.env.log.Limited("resets and refused calls: calls are started one by one", r.client.account.Peer())
	r.client.account.Wait()
	r.client.hear()
	return false
}

// frame handles one frame.
func (r *clientReader) frame(f frames.Frame) error {
	if err := r.in.Check(&f); err != nil {
		return err
	}
	if err := r.charge(&f); err != nil {
		return err
	}
	switch f.Kind {
	case http2.FrameHeaders:
		return r.onHeaders(r.in.Headers(f))
	case http2.FrameContinuation:
		return r.onHeaders(r.in.Continuation(f))
	case http2.FrameData:
		return r.onData(f)
	case http2.FrameWindowUpdate:
		return r.onWindowUpdate(f)
	case http2.FrameRSTStream:
		return r.onReset(f)
	case http2.FrameSettings:
		_, _, err := r.onSettings(f)
		return err
	case http2.FramePing:
		return r.onPing(f)
	case http2.FrameGoAway:
		// The GOAWAY forbids us streams, which we never open, and announces that the client is about to leave.
		// Streams that the client still opens, as gRPC clients may, are served.
		_, err := frames.ParseGoAway(f)
		if err == nil {
			r.client.warn(&r.work)
		}
		return err
	default:
		return frames.CheckOther(f)
	}
}

// charge charges a client for a frame. Frames that carry something of a call pay for those that do not.
func (r *clientReader) charge(f *frames.Frame) error {
	cost := frameCost(f, f.ID > r.client.ids.Newest)
	switch {
	case f.Kind == http2.FrameWindowUpdate:
		r.client.mu.Lock()
		cost -= r.client.guard.takePaid()
		r.client.mu.Unlock()
	case f.Kind == http2.FrameSettings && frames.ChangesWindow(f.Payload):
		r.client.mu.Lock()
		cost += r.client.calls.Len() / streamsPerUnit
		r.client.mu.Unlock()
	}
	now := r.client.live.lastHeard()
	if cost < 0 {
		r.client.account.Earn(now, -cost)
	} else if cost > 0 && !r.client.account.Work(now, cost) {
		return errIdleFrames
	}
	return nil
}

// stray resets a closed stream for a frame on it, and charges the client for the frame, which was credited as a frame
// that carries something of a call.
func (r *clientReader) stray(id uint32, code http2.ErrCode) error {
	r.client.streamError(&r.work, id, code)
	if !r.client.account.Work(r.client.live.lastHeard(), 2*peers.Frame) {
		return errIdleFrames
	}
	return nil
}

// onHeaders handles a header block, unless it is not whole yet: a new call, or the trailers of a request.
func (r *clientReader) onHeaders(id uint32, end bool, err error) error {
	switch {
	case err != nil || id == 0:
		return err
	case id&1 == 0:
		return frames.Fault(http2.ErrCodeProtocol, "a client's stream with an even id")
	case id <= r.client.ids.Newest:
		return r.trailers(id, &r.in.List, end)
	}
	r.request(id, &r.in.List, end)
	return nil
}

// request handles the headers of a new call, which startCalls starts.
func (r *clientReader) request(id uint32, l *headers.List, end bool) {
	k := calls.Get().(*call)
	k.mu.Lock()
	defer k.unlock(&r.work)
	window, ok := r.admit(id, k, end)
	if !ok {
		return
	}
	k.attach(r.client, id, window, end)
	if k.begin(&r.work, l, &r.passed, end) {
		r.fresh = append(r.fresh, callUse{k, k.gen})
	}
}

// mostFresh bounds the capacity of the list of calls that a connection keeps for its next read.
const mostFresh = 64

// startCalls dispatches the calls that the current read has begun. It runs after all frames of that read have been
// handled, so that no endpoint sees a call that the same read has ended.
func (r *clientReader) startCalls() {
	for _, u := range r.fresh {
		u.start(&r.work)
	}
	if cap(r.fresh) > mostFresh {
		r.fresh = nil
	}
	r.fresh = r.fresh[:0]
}

// admit gives a new stream to a call. It returns the initial window of the stream, or false if the stream was
// refused.
func (r *clientReader) admit(id uint32, k *call, end bool) (window int, ok bool) {
	r.client.ids.Newest = id
	r.client.mu.Lock()
	if r.client.drain == draining {
		// The GOAWAY that the client has not read yet names this stream as not seen. Not all clients check that.
		r.client.mu.Unlock()
		r.client.reset(&r.work, id, http2.ErrCodeRefusedStream)
		return 0, false
	}
	r.client.ids.Served = id
	if r.client.calls.Len() >= maxStreams {
		if !end {
			r.client.ids.Cut.Add(id, frames.FirstWindow)
		}
		r.client.mu.Unlock()
		r.client.streamError(&r.work, id, http2.ErrCodeRefusedStream)
		return 0, false
	}
	r.client.calls.Put(id, k)
	window = r.client.theirs.Window
	r.client.mu.Unlock()
	return window, true
}

// trailers handles headers on a stream that is not new.
func (r *clientReader) trailers(id uint32, l *headers.List, end bool) error {
	k := r.client.callOf(id)
	if k == nil {
		return r.lateHeaders(id, l, end)
	}
	k.mu.Lock()
	defer k.unlock(&r.work)
	if !k.client.on(r.client, id) {
		return r.lateHeaders(id, l, end)
	}
	k.upTrailers(&r.work, l, end)
	return nil
}

// lateHeaders handles headers on a stream that is closed, or that was never opened although later ones were.
func (r *clientReader) lateHeaders(id uint32, l *headers.List, end bool) error {
	if r.client.ids.Ignored(id) {
		return nil
	}
	if _, call := l.Get(":path"); call {
		return frames.Fault(http2.ErrCodeProtocol, "a call on a stream that is not newer than those before")
	}
	if !end || l.Truncated || !protocol.AreTrailers(l) {
		return r.stray(id, http2.ErrCodeProtocol)
	}
	return r.onClosed(id, cutTrailers, end)
}

func (r *clientReader) onData(f frames.Frame) error {
	n, end := len(f.Payload), f.Flags&http2.FlagDataEndStream != 0
	k, due, err := r.takeData(&f)
	if err != nil {
		return err
	}
	if due {
		r.credit()
	}
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&r.work)
		if k.client.on(r.client, f.ID) {
			k.upData(&r.work, f.Payload, n, end)
			return nil
		}
	}
	if !r.client.ids.Opened(f.ID) {
		return frames.Fault(http2.ErrCodeProtocol, "DATA on an idle stream")
	}
	return r.onClosed(f.ID, n, end)
}

// onClosed handles a frame of n bytes on a closed stream. end means that the frame ends the stream.
func (r *clientReader) onClosed(id uint32, n int, end bool) error {
	if r.client.ids.Ignored(id) {
		return nil
	}
	r.client.mu.Lock()
	may := r.client.ids.Cut.Take(id, n)
	if end {
		r.client.ids.Cut.End(id)
	}
	r.client.mu.Unlock()
	if may {
		return nil
	}
	return r.stray(id, http2.ErrCodeStreamClosed)
}

func (r *clientReader) onWindowUpdate(f frames.Frame) error {
	n, err := frames.ParseWindowUpdate(f)
	if err != nil {
		return err
	}
	if f.ID == 0 {
		r.client.mu.Lock()
		ok := r.client.sendWindow.Widen(n)
		r.client.mu.Unlock()
		if !ok {
			return errWindow
		}
		r.client.Resume(&r.work)
		return nil
	}
	k := r.client.callOf(f.ID)
	switch {
	case k != nil:
		r.widenStream(k, f.ID, n)
	case !r.client.ids.Opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case n == 0 && !r.client.ids.Ignored(f.ID):
		r.client.streamError(&r.work, f.ID, http2.ErrCodeProtocol)
	}
	return nil
}

func (r *clientReader) onReset(f frames.Frame) error {
	code, err := frames.ParseReset(f)
	switch {
	case err != nil:
		return err
	case !r.client.ids.Opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	r.client.mu.Lock()
	k := r.client.calls.Get(f.ID)
	if k == nil {
		r.client.ids.Cut.End(f.ID)
	}
	r.client.mu.Unlock()
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&r.work)
	if k.client.on(r.client, f.ID) {
		r.client.blame(r.client.env.now() - k.request.began)
		k.clientReset(&r.work, code)
	}
	return nil
}

func (r *clientReader) onPing(f frames.Frame) error {
	data, ack, err := frames.ParsePing(f)
	switch {
	case err != nil:
		return err
	case ack:
		if data == lastPing {
			r.client.leave(&r.work)
		}
		return nil
	}
	r.client.mu.Lock()
	useful := r.client.guard.takeUseful()
	r.client.mu.Unlock()
	r.answerPing(data)
	if !r.client.guard.ping(r.client.env.now(), useful, r.client.env.opts.MinPing) {
		return frames.Fault(http2.ErrCodeEnhanceYourCalm, "too_many_pings")
	}
	return nil
}

// credit gives the connection's window back, unless the client's calls hold too much. No lock is held.
func (r *clientReader) credit() {
	if r.client.backlog.withhold() {
		// Data that is only kept for a retry would not move on by itself, so nothing would give the window back.
		r.dropReplay()
		r.client.goOn(&r.work) // nor would anything if the queued data has gone meanwhile
		return
	}
	r.client.grant(&r.work)
}

// dropReplay frees the data that the client's calls keep for retries.
func (r *clientReader) dropReplay() {
	for _, s := range r.client.streams() {
		k := s.Call
		k.mu.Lock()
		if k.client.on(r.client, s.ID) {
			k.up.releaseKept(&r.work)
		}
		k.unlock(&r.work)
	}
}

// loseAll ends the calls of a connection that is over.
func (r *clientReader) loseAll() {
	for _, s := range r.client.streams() {
		k := s.Call
		k.mu.Lock()
		if k.client.on(r.client, s.ID) {
			r.client.blame(r.client.env.now() - k.request.began)
			k.clientReset(&r.work, http2.ErrCodeCancel)
		}
		k.unlock(&r.work)
	}
}
