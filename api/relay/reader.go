package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/streams"
	"github.com/core-tools/hsu-master/api/relay/wire"
)

// reader is the part that a [clientReader] and a [backendReader] have in common: the state of a connection's reader
// goroutine, and the handling of the frames that mean the same from a client and from a backend. Only that goroutine
// uses it.
type reader struct {
	conn   *conn
	in     wire.Input
	work   deferred.Work
	passed headers.List // the fields of the current header list that are passed on
}

// errWindow ends the connection of a peer that opens the connection's window too far.
var errWindow = frames.Fault(http2.ErrCodeFlowControl, "the connection's window is too large")

// newReader returns the reader of a connection on which header lists have at most list bytes.
func newReader(c *conn, list int) reader { return reader{conn: c, in: wire.NewInput(list)} }

// takeData handles the part of a DATA frame that concerns the connection. It removes the padding from the frame, and
// returns the call that has the stream, or nil. due means that the connection's window must be given back.
func (r *reader) takeData(f *frames.Frame) (k *call, due bool, err error) {
	if f.ID == 0 {
		return nil, false, frames.Fault(http2.ErrCodeProtocol, "DATA on stream 0")
	}
	n := len(f.Payload)
	if err := frames.Unpad(f); err != nil {
		return nil, false, err
	}
	r.conn.mu.Lock()
	ok, due := r.conn.recvWindow.Take(n)
	k = r.conn.calls.Get(f.ID)
	r.conn.live.answer()
	r.conn.mu.Unlock()
	if !ok {
		return nil, false, frames.Fault(http2.ErrCodeFlowControl, "DATA beyond the connection's window")
	}
	return k, due, nil
}

// onSettings applies and acknowledges the peer's SETTINGS, and returns them. announced is false if the frame is an
// acknowledgment.
func (r *reader) onSettings(f frames.Frame) (s frames.Settings, announced bool, err error) {
	ack, err := frames.CheckSettings(f)
	if err != nil || ack {
		return s, false, err
	}
	s = r.conn.theirs // only the reader changes these
	if !s.Known {
		s.Known, s.Streams = true, frames.UnboundedStreams
	}
	if s, err = s.Read(f.Payload); err != nil {
		return s, false, err
	}
	return s, true, r.adopt(s)
}

// adopt applies the peer's settings and acknowledges them. All output after the acknowledgment obeys them, and no
// output before it makes use of larger limits (RFC 9113, section 6.5.3): smaller windows are applied before the
// acknowledgment, larger ones after it.
func (r *reader) adopt(s frames.Settings) error {
	delta := s.Window - r.conn.theirs.Window
	if delta < 0 {
		r.conn.mu.Lock()
		r.conn.theirs.Window = s.Window
		calls := r.conn.calls.All()
		r.conn.mu.Unlock()
		if err := r.widenAll(calls, delta); err != nil {
			return err
		}
	}
	if !r.conn.lockOutput(&r.work) {
		return nil
	}
	r.conn.out.Pending.Acknowledge(s)
	r.conn.theirs = s
	var calls []streams.Stream[*call]
	if delta > 0 {
		calls = r.conn.calls.All()
	}
	r.conn.unlockOutput()
	return r.widenAll(calls, delta)
}

// widenAll changes the windows of the streams by delta.
func (r *reader) widenAll(streams []streams.Stream[*call], delta int) error {
	for _, s := range streams {
		if !r.widen(s, delta) {
			return frames.Fault(http2.ErrCodeFlowControl, "the windows of streams become too large")
		}
	}
	return nil
}

// widen changes the window of a stream by delta. It returns false if the window becomes too large.
func (r *reader) widen(s streams.Stream[*call], delta int) bool {
	k := s.Call
	k.mu.Lock()
	defer k.unlock(&r.work)
	flow := k.flowTo(r.conn, s.ID)
	if flow == nil {
		return true
	}
	ok := flow.widen(&r.work, delta)
	k.closeFinished(&r.work)
	return ok
}

// widenStream changes the window of a stream by n for the peer, which must be allowed to. k has, or had, the stream.
func (r *reader) widenStream(k *call, id uint32, n int) {
	k.mu.Lock()
	defer k.unlock(&r.work)
	flow := k.flowTo(r.conn, id)
	switch {
	case flow == nil:
	case n == 0:
		flow.sinkViolated(&r.work, http2.ErrCodeProtocol)
	case !flow.widen(&r.work, n):
		flow.sinkViolated(&r.work, http2.ErrCodeFlowControl)
	default:
		k.closeFinished(&r.work)
	}
}

// answerPing appends the answer to a PING. The answer is written with the next output, or after ackDelay: gRPC
// clients and servers send a PING with most of the data they receive, to measure their connection, and a write for
// each answer would wake them needlessly while the current call has yet to be passed on.
func (r *reader) answerPing(data [8]byte) {
	r.conn.mu.Lock()
	if r.conn.out.Over() {
		r.conn.mu.Unlock()
		return
	}
	r.conn.out.Pending.AppendPing(true, data)
	r.conn.unlockOutput()
	if !r.conn.late.Swap(true) {
		r.conn.env.acks.Later(r.conn)
	}
}
