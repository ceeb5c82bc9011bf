package relay

import (
	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/frames"
	"github.com/core-tools/hsu-master/api/relay/headers"
	"github.com/core-tools/hsu-master/api/relay/kept"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/api/relay/protocol"
	"github.com/core-tools/hsu-master/api/relay/window"
)

const (
	// mostWindow is the largest window of a stream, to which the window grows if the data moves freely.
	mostWindow = 1 << 20
	// mostKept bounds the part of a request that is kept for a second attempt, if the call may need one.
	mostKept = 64 << 10
	// budgetHeaders bounds the headers that are kept for those calls of a client that no backend has answered yet.
	// Calls that exceed it end. It is separate from budgetUp, since headers are freed only by an answer, for which the
	// backend may need the data that a stopped client cannot send.
	budgetHeaders = 4 << 20
)

// flow is one direction of a call: the data, the windows on both sides, and the end. call.mu guards it, except for
// sender, which the sink's conn.mu guards.
type flow struct {
	call *call
	q    kept.Queue
	msg  protocol.Messages

	sendLeft int   // bytes that the sink's stream accepts
	recvLeft int   // bytes that the source may still send
	window   int   // the size to which credit restores recvLeft
	credit   int   // bytes that have been sent on, and not been given back to the source yet
	replay   int   // queued bytes for which credit was given already
	counted  int   // bytes of the queue that the client is counted for
	grown    int   // growth of window, taken from budgetGrown
	declared int64 // bytes of the content-length that have not arrived; -1 if it is not declared

	ended    bool      // END_STREAM has arrived
	endSent  bool      // END_STREAM has been sent
	stalled  bool      // data was queued since credit was last given
	trailers kept.List // the headers that end the flow

	sender window.Sender[*flow] // of the sink's connection
}

func (f *flow) init(k *call) { f.call, f.sender.Flow = k, f }

func (f *flow) empty() {
	f.q.Clear()
	k := f.call
	*f = flow{}
	f.init(k)
}

func (f *flow) upward() bool { return f == &f.call.up }

// sink returns the stream to which the flow goes, or nil if there is none.
func (f *flow) sink() (*conn, uint32) {
	if f.upward() {
		return f.call.backend.stream()
	}
	return f.call.client.stream()
}

// source returns the stream from which the flow comes, or nil if that accepts no more credit.
func (f *flow) source() (*conn, uint32) {
	if f.ended {
		return nil, 0
	}
	if f.upward() {
		return f.call.client.stream()
	}
	return f.call.backend.stream()
}

// data handles the data p of a frame that takes n bytes of the window, and sends as much as can be sent.
func (f *flow) data(w *deferred.Work, p []byte, n int, end bool) {
	f.recvLeft -= n
	if pad := n - len(p); pad > 0 {
		f.give(w, pad)
	}
	f.ended = end
	sent := 0
	if f.q.Unsent == 0 && len(p) > 0 {
		if c, id := f.sink(); c != nil {
			last := end && !f.trailers.Kept()
			sent = c.sendData(w, f, id, p, last)
			f.endSent = last && sent == len(p)
		}
	}
	if f.q.Keep {
		f.q.Push(p)
		f.q.Advance(sent)
		f.boundKept()
	} else if sent < len(p) {
		f.q.Push(p[sent:])
	}
	if f.q.Unsent > 0 {
		f.stalled = true
	}
	f.account(w)
	f.give(w, sent)
	if f.ended && !f.endSent && f.q.Unsent == 0 {
		f.sendEnd(w)
	}
}

// declare checks the arriving data against the content-length, if there was one.
func (f *flow) declare(n int, end bool) bool {
	if f.declared < 0 {
		return true
	}
	f.declared -= int64(n)
	return f.declared >= 0 && (!end || f.declared == 0)
}

// boundKept gives up a second attempt if too much of the request would have to be kept for it. A request of which
// nothing has been sent is not affected, since all of it is queued anyway.
func (f *flow) boundKept() {
	if f.q.Keep && f.q.Kept > 0 && (f.q.Kept+f.q.Unsent > mostKept || f.call.client.conn.backlog.dropReplay()) {
		f.q.Release()
	}
}

// pump sends queued data, as much as the windows and the room allow.
func (f *flow) pump(w *deferred.Work) {
	c, id := f.sink()
	if c == nil || f.endSent {
		return
	}
	for f.q.Unsent > 0 {
		p := f.q.Peek()
		last := f.ended && !f.trailers.Kept() && len(p) == f.q.Unsent
		n := c.sendData(w, f, id, p, last)
		f.q.Advance(n)
		f.boundKept()
		f.account(w)
		again := min(n, f.replay)
		f.replay -= again
		f.give(w, n-again)
		if n < len(p) {
			return
		}
		f.endSent = last
	}
	if f.ended && !f.endSent {
		f.sendEnd(w)
	}
}

// sendEnd ends the flow at its sink, after all data.
func (f *flow) sendEnd(w *deferred.Work) {
	c, id := f.sink()
	if c == nil || f.call.count == beingCounted && !f.upward() {
		return
	}
	f.endSent = true
	if !f.trailers.Kept() {
		c.sendEnd(w, id)
		return
	}
	f.call.client.sendHeaders(w, f.trailers.Bytes(), true)
	f.trailers.Drop()
}

// give returns credit for n bytes to the source, once half of a window has collected. A window through which data
// moves without waiting doubles.
func (f *flow) give(w *deferred.Work, n int) {
	f.credit += n
	if f.credit < f.window/2 {
		return
	}
	c, id := f.source()
	if c == nil {
		return
	}
	grant := f.credit
	if !f.stalled && f.window < mostWindow && f.mayGrow() {
		f.grown += f.window
		grant += f.window
		f.window *= 2
	}
	f.stalled = f.q.Unsent > 0
	f.credit = 0
	f.recvLeft += grant
	c.giveBack(w, id, grant)
}

// mayGrow reports whether the window of the source's stream may double, and takes the growth from the client's budget.
func (f *flow) mayGrow() bool {
	c := f.call.client.conn
	if c == nil || f.upward() && c.backlog.queued() >= budgetUp/2 {
		return false
	}
	return c.backlog.grow(f.window)
}

// account updates the bytes that the client is counted for, and continues a client that was stopped because of
// them.
func (f *flow) account(w *deferred.Work) {
	n := f.q.Unsent + f.q.Kept
	more := n - f.counted
	c := f.call.client.conn
	if more == 0 || c == nil {
		return
	}
	f.counted = n
	c.account.Keep(peers.Data, more)
	c.goOn(w)
}

// releaseKept frees the data that is kept for a second attempt.
func (f *flow) releaseKept(w *deferred.Work) {
	if f.q.Kept > 0 {
		f.q.Release()
		f.account(w)
	}
}

// keepTrailers keeps the trailers that end the flow, unless the client is gone.
func (f *flow) keepTrailers(l *headers.List) {
	f.trailers.Drop()
	if c := f.call.client.conn; c != nil {
		f.trailers.Keep(c.account, peers.Trailers, l)
	}
}

// widen adds n to the sink's window. It returns false if the window becomes larger than a window may be.
func (f *flow) widen(w *deferred.Work, n int) bool {
	if f.sendLeft+n > frames.MaxWindow {
		return false
	}
	f.sendLeft += n
	if f.sendLeft > 0 && f.q.Unsent > 0 {
		f.pump(w)
	}
	return true
}

// flowTo returns the flow whose sink is that stream, or nil.
func (k *call) flowTo(c *conn, id uint32) *flow {
	for _, f := range [...]*flow{&k.up, &k.down} {
		if sink, sinkID := f.sink(); sink == c && sinkID == id {
			return f
		}
	}
	return nil
}
