package relay

import "golang.org/x/net/http2"

const (
	// mostWindow is how far the window of a stream grows whose data moves freely.
	mostWindow = 1 << 20
	// budgetGrown is how far the windows of all answers to a client grow together, beyond the firstWindow of each. It may
	// stop to read at any time, and then as much waits for it: what was granted is not too much afterwards.
	budgetGrown = 8 << 20
	// shares of what may be queued for all are what a client has where half of it is taken.
	shares = 32
	// mostKept of a request is kept for a second attempt, if the call may need one.
	mostKept = 64 << 10
	// budgetUp of what is queued for a client's calls stops the client. The others are not touched. Where there is more
	// than budgetKept, or a quarter of what may be queued for all, nothing is kept for a second attempt: that leaves with
	// an answer only, for which the backend may need what the client is stopped from sending.
	budgetUp   = 4 << 20
	budgetKept = budgetUp / 4
	// budgetHeaders of what is kept for the calls of a client that no backend has answered yet ends those that bring
	// more. It is apart from budgetUp, for the same reason.
	budgetHeaders = 4 << 20
)

// flow is one direction of a call: the bytes, the windows on both sides and the end. call.mu guards it, but for its
// place in a list, which the sink's conn.mu guards.
type flow struct {
	call *call
	q    queue
	msg  messages

	send     int // what the sink's stream takes
	recv     int // what the source may still send
	window   int // what recv is brought up to
	credit   int // moved on, and not given back to the source yet
	replay   int // of what is queued, how much has been given credit for already
	counted  int // of the queue in the budget
	grown    int // what the window has taken of budgetGrown
	declared int64

	ended    bool   // END_STREAM has arrived
	endSent  bool   // END_STREAM has been sent
	stalled  bool   // something was queued since credit was last given
	trailers *chunk // the headers that end the flow

	next, prev *flow
	listed     bool
}

// flows is a list of flows.
type flows struct{ first, last *flow }

func (l *flows) push(f *flow) {
	if f.listed {
		return
	}
	f.listed = true
	f.prev, f.next = l.last, nil
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
}

func (l *flows) pop() *flow {
	f := l.first
	l.remove(f)
	return f
}

func (l *flows) remove(f *flow) {
	if !f.listed {
		return
	}
	if f.prev == nil {
		l.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.next, f.prev, f.listed = nil, nil, false
}

func (f *flow) upward() bool { return f == &f.call.up }

// sink is where the flow goes, nil where nowhere.
func (f *flow) sink() (*conn, uint32) {
	if f.upward() {
		return f.call.backend, f.call.backendID
	}
	return f.call.client, f.call.clientID
}

// source is where it comes from, nil where the source takes no credit any more.
func (f *flow) source() (*conn, uint32) {
	if f.ended {
		return nil, 0
	}
	if f.upward() {
		return f.call.client, f.call.clientID
	}
	return f.call.backend, f.call.backendID
}

// data takes in what has arrived, p, of a frame of n bytes of the window, and sends what can be sent.
func (f *flow) data(b *batch, p []byte, n int, end bool) {
	f.recv -= n
	if pad := n - len(p); pad > 0 {
		f.give(b, pad)
	}
	f.ended = end
	sent := 0
	if f.q.unsent == 0 && len(p) > 0 {
		if c, id := f.sink(); c != nil {
			last := end && f.trailers == nil
			sent = c.sendData(b, f, id, p, last)
			f.endSent = last && sent == len(p)
		}
	}
	if f.q.keep {
		f.q.push(p)
		f.q.advance(sent)
		f.boundKept()
	} else if sent < len(p) {
		f.q.push(p[sent:])
	}
	if f.q.unsent > 0 {
		f.stalled = true
	}
	f.account(b)
	f.give(b, sent)
	if f.ended && !f.endSent && f.q.unsent == 0 {
		f.sendEnd(b)
	}
}

// boundKept gives up a second attempt whose request would be too much to keep. What has not been sent is not given up:
// it is there anyway.
func (f *flow) boundKept() {
	if f.q.keep && f.q.kept > 0 && (f.q.kept+f.q.unsent > mostKept || f.call.client.keepsNothing()) {
		f.q.release()
	}
}

// keepsNothing tells that a client's calls are to give up second attempts, so that it need not be stopped.
func (c *conn) keepsNothing() bool {
	return c != nil && (c.queued() > budgetKept || c.guard.withheld.Load() || c.relay.queued.Load() > int64(c.relay.opts.MaxBuffered)/4)
}

// pump sends what is queued, as far as it goes.
func (f *flow) pump(b *batch) {
	c, id := f.sink()
	if c == nil || f.endSent {
		return
	}
	for f.q.unsent > 0 {
		p := f.q.peek()
		last := f.ended && f.trailers == nil && len(p) == f.q.unsent
		n := c.sendData(b, f, id, p, last)
		f.q.advance(n)
		f.boundKept()
		f.account(b)
		again := min(n, f.replay)
		f.replay -= again
		f.give(b, n-again)
		if n < len(p) {
			return
		}
		f.endSent = last
	}
	if f.ended && !f.endSent {
		f.sendEnd(b)
	}
}

// sendEnd ends the flow at its sink, behind all data.
func (f *flow) sendEnd(b *batch) {
	c, id := f.sink()
	if c == nil || f.call.holding && !f.upward() {
		return
	}
	f.endSent = true
	if f.trailers == nil {
		if c.begin(b) {
			c.out.b = appendFrameHeader(c.out.b, 0, http2.FrameData, http2.FlagDataEndStream, id)
			c.end()
		}
		return
	}
	c.sendHeaders(b, id, f.trailers.b, true)
	f.trailers.free()
	f.trailers = nil
}

// give returns credit for n bytes to the source, when enough has come together. A window that data moves through
// without waiting grows.
func (f *flow) give(b *batch, n int) {
	f.credit += n
	if f.credit < f.window/2 {
		return
	}
	c, id := f.source()
	if c == nil {
		return
	}
	grant := f.credit
	if !f.stalled && f.window < mostWindow && f.takeGrowth(f.window) {
		grant += f.window
		f.window *= 2
	}
	f.stalled = f.q.unsent > 0
	f.credit = 0
	f.recv += grant
	if c.begin(b) {
		c.out.b = appendWindowUpdate(c.out.b, id, grant)
		c.end()
	}
}

// takeGrowth takes n out of what the windows of the client's answers may grow, where it is there. What the client sends is
// bounded by the window of its connection.
func (f *flow) takeGrowth(n int) bool {
	client := f.call.client
	if client == nil {
		return false
	}
	if f.upward() {
		return client.queued() < budgetUp/2
	}
	if client.guard.grown.Add(int64(n)) > budgetGrown {
		client.guard.grown.Add(int64(-n))
		return false
	}
	f.grown += n
	return true
}

// account keeps the client's budget, and lets a client go on that was stopped for it.
func (f *flow) account(b *batch) {
	n := f.q.unsent + f.q.kept
	client := f.call.client
	if n == f.counted || client == nil {
		return
	}
	client.guard.queued.Add(int64(n - f.counted))
	f.call.relay.queued.Add(int64(n - f.counted))
	f.counted = n
	if client.guard.withheld.Load() && !client.stopped(budgetUp/2) && client.guard.withheld.CompareAndSwap(true, false) {
		client.grant(b)
	}
}

// widen adds to the sink's window; false where that is more than a window can be.
func (f *flow) widen(b *batch, n int) bool {
	if f.send+n > maxWindow {
		return false
	}
	f.send += n
	if f.send > 0 && f.q.unsent > 0 {
		f.pump(b)
	}
	return true
}

// sendData sends as much of p as the windows and the room allow, and returns how much. Where it is not the stream's
// window that bounds it, the flow goes on when the connection can.
func (c *conn) sendData(b *batch, f *flow, id uint32, p []byte, end bool) (sent int) {
	if !c.begin(b) {
		return 0
	}
	space := c.space()
	for sent < len(p) {
		n := min(len(p)-sent, maxFrame, f.send, c.send, space)
		if n <= 0 {
			break
		}
		var flags http2.Flags
		if end && sent+n == len(p) {
			flags = http2.FlagDataEndStream
		}
		c.out.b = appendFrameHeader(c.out.b, n, http2.FrameData, flags, id)
		c.out.b = append(c.out.b, p[sent:sent+n]...)
		sent += n
		f.send -= n
		c.send -= n
		space -= n
	}
	if sent > 0 {
		c.useful = true
	}
	if sent < len(p) && f.send > 0 {
		c.blocked.push(f)
	}
	c.end()
	return sent
}
