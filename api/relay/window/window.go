// Package window is the flow control of whole connections: the window that the relay grants a peer ([Recv]), the
// window that a peer grants the relay together with the flows that wait for it ([Send]), and how the clients share
// that of a backend ([Uplink]). The windows of streams belong to their flows. The connection's lock guards all of it.
package window

import (
	"github.com/core-tools/hsu-master/api/relay/frames"
)

// Recv is the window of a whole connection that the relay grants its peer: bytes of DATA that may still
// arrive. left and used together are the size of the window.
type Recv struct {
	size int
	left int // bytes that may still arrive
	used int // bytes that have arrived since credit was given
}

// NewRecv returns a window of that size.
func NewRecv(size int) Recv { return Recv{size: size, left: size} }

// Take deducts n bytes that have arrived. It reports whether the window had as many, and whether credit is due.
func (w *Recv) Take(n int) (ok, due bool) {
	w.left -= n
	w.used += n
	return w.left >= 0, w.used >= w.size/2
}

// Restore opens the window to its full size, and returns the credit that the peer must be given.
func (w *Recv) Restore() (credit int) {
	credit = w.used
	w.left += credit
	w.used = 0
	return credit
}

// Divider divides a connection's window for sending among the flows that use it. The connection's lock is held.
type Divider[F any] interface {
	// Free returns how much of the window a flow may use.
	Free(s *Sender[F]) int
	// Sent records that a flow has used n bytes of the window.
	Sent(s *Sender[F], n int)
	// KeepBack sets aside a flow that has more to send, and a window of its own. left is the result of Free, less
	// the bytes that the flow has sent since.
	KeepBack(s *Sender[F], left int)
}

// Send is the window of a whole connection that the peer grants the relay, together with the flows that wait
// for it. A flow waits if it has data and a window of its own, and the connection's window or output has no room.
type Send[F any] struct {
	size    int
	blocked senders[F]
}

// NewSend returns a window of that size.
func NewSend[F any](size int) Send[F] { return Send[F]{size: size} }

// Widen adds n bytes of credit. It returns false if the window becomes larger than a window may be.
func (w *Send[F]) Widen(n int) bool {
	w.size += n
	return w.size <= frames.MaxWindow
}

// Free returns how much of the window a flow may use: all that is left. See Uplink for connections to backends.
func (w *Send[F]) Free(*Sender[F]) int { return w.size }

// Sent records that n bytes of the window have been used.
func (w *Send[F]) Sent(_ *Sender[F], n int) { w.size -= n }

// KeepBack sets aside a flow that has more to send, until the connection has a window and room.
func (w *Send[F]) KeepBack(s *Sender[F], _ int) { w.blocked.push(s) }

// Forget removes a flow from the flows that wait.
func (w *Send[F]) Forget(s *Sender[F]) { w.blocked.remove(s) }

// Next removes the flow whose turn it is from those that wait. ok is false if none waits, or if the window is used
// up.
func (w *Send[F]) Next() (f F, ok bool) {
	if w.blocked.first == nil || w.size <= 0 {
		return f, false
	}
	return w.blocked.pop().Flow, true
}
