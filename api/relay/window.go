package relay

// recvWindow is the window of a whole connection that the relay grants its peer: bytes of DATA that may still
// arrive. left and used together are the size of the window.
type recvWindow struct {
	size int
	left int // bytes that may still arrive
	used int // bytes that have arrived since credit was given
}

func newRecvWindow(size int) recvWindow { return recvWindow{size: size, left: size} }

// take deducts n bytes that have arrived. It reports whether the window had as many, and whether credit is due.
func (w *recvWindow) take(n int) (ok, due bool) {
	w.left -= n
	w.used += n
	return w.left >= 0, w.used >= w.size/2
}

// restore opens the window to its full size, and returns the credit that the peer must be given.
func (w *recvWindow) restore() (credit int) {
	credit = w.used
	w.left += credit
	w.used = 0
	return credit
}

// divider divides a connection's window for sending among the flows that use it. The connection's lock is held.
type divider interface {
	// free returns how much of the window a flow may use.
	free(f *flow) int
	// keepBack sets aside a flow that has more to send, and a window of its own. left is the result of free, less
	// the bytes that the flow has sent since.
	keepBack(f *flow, left int)
}

// sendWindow is the window of a whole connection that the peer grants the relay, together with the flows that wait
// for it. A flow waits if it has data and a window of its own, and the connection's window or output has no room.
type sendWindow struct {
	size    int
	blocked flows
}

// widen adds n bytes of credit. It returns false if the window becomes larger than a window may be.
func (w *sendWindow) widen(n int) bool {
	w.size += n
	return w.size <= maxWindow
}

// free returns how much of the window a flow may use: all that is left. See uplink for connections to backends.
func (w *sendWindow) free(*flow) int { return w.size }

// keepBack sets aside a flow that has more to send, until the connection has a window and room.
func (w *sendWindow) keepBack(f *flow, _ int) { w.blocked.push(f) }
