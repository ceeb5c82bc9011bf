package relay

import (
	"context"
	"net"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/report"
	"github.com/core-tools/hsu-master/api/relay/streams"
)

// backendReader is the reader goroutine of a connection to a backend.
type backendReader struct {
	reader
	backend *backendConn
}

func newBackendReader(c *backendConn) *backendReader {
	return &backendReader{reader: newReader(&c.conn, maxBackendHeaderList), backend: c}
}

// serve connects to the backend, and reads until the connection ends.
func (r *backendReader) serve(ctx context.Context) {
	reason := "connect to the server: "
	nc, err := r.connect(ctx)
	if err == nil {
		hello := frames.AppendSettings([]byte(http2.ClientPreface),
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxBackendHeaderList})
		r.backend.use(&r.work, nc, frames.AppendWindowUpdate(hello, 0, backendWindow-frames.FirstWindow))
		r.work.Do()
		err = r.in.Read(&r.backend.socket, r.arrived)
		reason = "connection to the server lost: "
	}
	r.backend.pool.remove(r.backend)
	err = r.backend.finish(err)
	if !r.backend.isDraining() {
		r.backend.env.log.ConnectionLost(r.backend.address(), err)
	}
	r.loseCalls(reason + report.ErrorText(err))
	r.work.Wake(r.backend.pool)
	r.work.Do()
	r.backend.out.Stop()
	if nc != nil {
		_ = nc.Close()
	}
}

func (r *backendReader) connect(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.backend.env.opts.HandshakeTimeout)
	defer cancel()
	return r.backend.pool.dial(ctx)
}

// arrived handles the bytes that have been read, and writes the results.
func (r *backendReader) arrived() error {
	r.backend.hear()
	err := r.handle()
	if err != nil {
		r.in.Discard()
		err = r.fault(err)
	}
	r.in.Compact()
	r.backend.env.shed(&r.work, false)
	r.work.Do()
	if err == nil {
		err = r.backend.err()
	}
	return err
}

// fault reports a violation of the protocol to the backend and ends the calls. It returns nil if the reader must go
// on for a moment, without handling further input. It returns other errors unchanged.
func (r *backendReader) fault(err error) error {
	fault, ok := err.(frames.ConnError) //nolint:errorlint // a ConnError is never wrapped
	if !ok {
		return err
	}
	r.backend.env.log.EndpointViolated(r.backend.address(), fault)
	r.backend.goAway(&r.work, fault.Code, fault.Reason)
	r.loseCalls("the server violated HTTP/2: " + fault.Error())
	return nil
}

// handle handles the frames that are whole.
func (r *backendReader) handle() error {
	if r.backend.isOver() {
		r.in.Discard()
		return nil
	}
	for {
		f, ok, err := r.in.Next()
		if err != nil || !ok {
			return err
		}
		if err := r.frame(f); err != nil {
			return err
		}
	}
}

// frame handles one frame.
func (r *backendReader) frame(f frames.Frame) error {
	if err := r.in.Check(&f); err != nil {
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
		s, announced, err := r.onSettings(f)
		if err == nil && announced {
			r.backend.pool.announced.Store(max(s.Streams, 1))
			r.work.Wake(r.backend.pool)
		}
		return err
	case http2.FramePing:
		data, ack, err := frames.ParsePing(f)
		switch {
		case err != nil:
			return err
		case ack:
			r.work.Wake(r.backend.pool) // the backend may have been suspected, and calls may wait
		default:
			r.answerPing(data)
		}
		return nil
	case http2.FrameGoAway:
		return r.onGoAway(f)
	default:
		return frames.CheckOther(f)
	}
}

// onHeaders handles a header block, unless it is not whole yet.
func (r *backendReader) onHeaders(id uint32, end bool, err error) error {
	if err != nil || id == 0 {
		return err
	}
	if k := r.backend.answeredCall(id); k != nil {
		k.mu.Lock()
		defer k.unlock(&r.work)
		if k.backend.on(r.backend, id) {
			k.downHeaders(&r.work, &r.in.List, &r.passed, end)
			return nil
		}
	}
	if !r.backend.opened(id) {
		return frames.Fault(http2.ErrCodeProtocol, "HEADERS on an idle stream")
	}
	return nil
}

func (r *backendReader) onData(f frames.Frame) error {
	n, end := len(f.Payload), f.Flags&http2.FlagDataEndStream != 0
	k, due, err := r.takeData(&f)
	if err != nil {
		return err
	}
	if due {
		r.backend.grant(&r.work)
	}
	if k != nil {
		k.mu.Lock()
		defer k.unlock(&r.work)
		if k.backend.on(r.backend, f.ID) {
			k.downData(&r.work, f.Payload, n, end)
			return nil
		}
	}
	if !r.backend.opened(f.ID) {
		return frames.Fault(http2.ErrCodeProtocol, "DATA on an idle stream")
	}
	return nil // the backend may not have read yet that the stream was reset
}

func (r *backendReader) onWindowUpdate(f frames.Frame) error {
	n, err := frames.ParseWindowUpdate(f)
	if err != nil {
		return err
	}
	if f.ID == 0 {
		r.backend.mu.Lock()
		ok := r.backend.sendWindow.Widen(n)
		r.backend.uplink.Widened()
		r.backend.mu.Unlock()
		if !ok {
			return errWindow
		}
		r.backend.Resume(&r.work)
		return nil
	}
	r.backend.mu.Lock()
	k := r.backend.calls.Get(f.ID)
	if k != nil && r.backend.uplink.HasRead(&k.up.sender, n) {
		r.backend.touch(&r.work)
	}
	r.backend.mu.Unlock()
	switch {
	case k != nil:
		r.widenStream(k, f.ID, n)
	case !r.backend.opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "WINDOW_UPDATE on an idle stream")
	case n == 0:
		r.backend.reset(&r.work, f.ID, http2.ErrCodeProtocol)
	}
	return nil
}

func (r *backendReader) onReset(f frames.Frame) error {
	code, err := frames.ParseReset(f)
	switch {
	case err != nil:
		return err
	case !r.backend.opened(f.ID):
		return frames.Fault(http2.ErrCodeProtocol, "RST_STREAM on an idle stream")
	}
	k := r.backend.callOf(f.ID)
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.unlock(&r.work)
	if k.backend.on(r.backend, f.ID) {
		k.backendReset(&r.work, code)
	}
	return nil
}

func (r *backendReader) onGoAway(f frames.Frame) error {
	last, err := frames.ParseGoAway(f)
	if err != nil {
		return err
	}
	r.backend.pool.remove(r.backend)
	r.backend.mu.Lock()
	r.backend.drain = draining
	calls := r.backend.calls.All()
	r.backend.mu.Unlock()
	for _, s := range calls {
		if s.ID > last {
			r.lost(s, true, goneReason)
		}
	}
	r.backend.retire(&r.work)
	r.work.Wake(r.backend.pool)
	return nil
}

// loseCalls tells all calls of the connection that they have lost it. Nothing more is written to the connection,
// except for a write that has begun.
func (r *backendReader) loseCalls(reason string) {
	r.backend.mu.Lock()
	calls, seen := r.backend.calls.All(), r.backend.out.Marks.Unseen()
	r.backend.mu.Unlock()
	for _, s := range calls {
		r.lost(s, s.ID >= seen, reason)
	}
}

// lost tells the call of a stream that it has lost its backend.
func (r *backendReader) lost(s streams.Stream[*call], unseen bool, reason string) {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(&r.work)
	if k.backend.on(r.backend, s.ID) {
		k.backendLost(&r.work, unseen, r.backend.hasAnswered(), reason)
	}
}
