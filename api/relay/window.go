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
type divider[F any] interface {
	// free returns how much of the window a flow may use.
	free(s *sender[F]) int
	// sent records that a flow has used n bytes of the window.
	sent(s *sender[F], n int)
	// keepBack sets aside a flow that has more to send, and a window of its own. left is the result of free, less
	// the bytes that the flow has sent since.
	keepBack(s *sender[F], left int)
}

// sendWindow is the window of a whole connection that the peer grants the relay, together with the flows that wait
// for it. A flow waits if it has data and a window of its own, and the connection's window or output has no room.
type sendWindow[F any] struct {
	size    int
	blocked senders[F]
}

func newSendWindow[F any](size int) sendWindow[F] { return sendWindow[F]{size: size} }

// widen adds n bytes of credit. It returns false if the window becomes larger than a window may be.
func (w *sendWindow[F]) widen(n int) bool {
	w.size += n
	return w.size <= maxWindow
}

// free returns how much of the window a flow may use: all that is left. See uplink for connections to backends.
func (w *sendWindow[F]) free(*sender[F]) int { return w.size }

// sent records that n bytes of the window have been used.
func (w *sendWindow[F]) sent(_ *sender[F], n int) { w.size -= n }

// keepBack sets aside a flow that has more to send, until the connection has a window and room.
func (w *sendWindow[F]) keepBack(s *sender[F], _ int) { w.blocked.push(s) }

// forget removes a flow from the flows that wait.
func (w *sendWindow[F]) forget(s *sender[F]) { w.blocked.remove(s) }

// waiting reports whether flows wait.
func (w *sendWindow[F]) waiting() bool { return w.blocked.first != nil }

// next removes the flow whose turn it is from those that wait. ok is false if none waits, or if the window is used
// up.
func (w *sendWindow[F]) next() (f F, ok bool) {
	if !w.waiting() || w.size <= 0 {
		return f, false
	}
	return w.blocked.pop().flow, true
}
