package relay

import (
	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/internal/fair"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// clientSide is the side of a call towards its client: a stream of the client's connection, and what the call costs
// the client. The call's lock guards it.
type clientSide struct {
	conn *clientConn // nil if the side is over
	id   uint32
	cost int // bytes that the call itself is counted for
}

// on reports whether the call has that stream of that connection.
func (s *clientSide) on(c *clientConn, id uint32) bool { return s.conn == c && s.id == id }

// stream returns the connection and the stream there, or nil if the side is over.
func (s *clientSide) stream() (*conn, uint32) {
	if s.conn == nil {
		return nil, 0
	}
	return &s.conn.conn, s.id
}

// keep sets the bytes that the call itself is counted for.
func (s *clientSide) keep(cost int) {
	s.conn.account.Keep(peers.Calls, cost-s.cost)
	s.cost = cost
}

// sendHeaders sends a header block to the client.
func (s *clientSide) sendHeaders(w *deferred.Work, list []byte, end bool) {
	s.conn.sendHeaders(w, s.id, list, end)
}

// reset resets the stream. The caller lets the call leave the client.
func (s *clientSide) reset(w *deferred.Work, code http2.ErrCode) { s.conn.reset(w, s.id, code) }

// backendSide is the side of a call towards the backend of its current attempt. It gets a pick first, if the backend is
// an endpoint, then perhaps a place in the queue for a stream, then a stream. The call's lock guards it.
type backendSide struct {
	pick  services.Pick
	pool  *pool                 // of the backend
	place *fair.Waiter[callUse] // in the pool's queue
	share *fair.Share           // of the pool's streams, while the call has one
	conn  *backendConn          // nil if the call has no stream
	id    uint32
}

// on reports whether the call has that stream of that connection.
func (s *backendSide) on(c *backendConn, id uint32) bool { return s.conn == c && s.id == id }

// stream returns the connection and the stream there, or nil if the call has none.
func (s *backendSide) stream() (*conn, uint32) {
	if s.conn == nil {
		return nil, 0
	}
	return &s.conn.conn, s.id
}

// reset resets the stream. The caller lets the call leave the backend.
func (s *backendSide) reset(w *deferred.Work, code http2.ErrCode) { s.conn.reset(w, s.id, code) }

// endPick gives up the pick, if there is one.
func (s *backendSide) endPick(o services.Outcome) {
	s.pick.End(o)
	s.pick = services.Pick{}
}
