// Package fair divides places among clients: places for calls in flight, for waiting calls, and for connections.
//
// A client has two levels: a peer, and any number of connections of that peer, which share its places.
package fair

import (
	"context"
	"maps"
	"sync/atomic"
)

// A peer may hold up to peerShare places for each place that it leaves free, and a connection up to connShare for
// each place that its peer may still take. So peerShare bounds the places left for other peers, and connShare
// those left for other connections of the same peer. If there are no more places than that, one client may hold all
// of them.
const (
	peerShare = 32
	connShare = 16
)

// Client identifies a connection and its peer by comparable values, such as pointers. The zero value is a valid
// client.
type Client struct{ Peer, Conn any }

type clientKey struct{}

// NewContext returns a context for a call of the client.
func NewContext(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// FromContext returns the client of the context, or the zero value.
func FromContext(ctx context.Context) Client {
	c, _ := ctx.Value(clientKey{}).(Client)
	return c
}

// Held is the number of places that a client holds.
type Held struct{ Peer, Conn int }

// Verdict is the answer to a request for a place.
type Verdict uint8

const (
	Granted    Verdict = iota
	ConnDenied         // the connection has used up its share
	PeerDenied         // the peer has used up its share
)

// May reports whether a client that holds h may take one more place if free places are left. A peer never holds
// more than most places.
func (h Held) May(free, most int) Verdict {
	left := min(rest(peerShare, free, h.Peer), most-h.Peer)
	switch {
	case left <= 0:
		return PeerDenied
	case rest(connShare, left, h.Conn) <= 0:
		return ConnDenied
	}
	return Granted
}

// rest returns how many of the free places the holder of held places may still take, if it may hold n for each
// place that it leaves free.
func rest(n, free, held int) int { return (n*free - held + n) / (n + 1) }

// Shares counts the places that clients hold. The zero value is empty. Its owner guards it with a lock; the
// methods of a [Share] need no lock unless they say so.
type Shares struct {
	peers, conns map[any]*Share
	sweepAt      int
}

// Share counts the places of one connection.
type Share struct {
	held atomic.Int64
	peer *Share // nil for the share of a peer
}

// leastSweep is the number of shares below which unused ones are not removed.
const leastSweep = 64

// Of returns the share of a client. The share is valid while the lock is held or a place is taken.
func (s *Shares) Of(c Client) *Share {
	if conn := s.conns[c.Conn]; conn != nil && s.peers[c.Peer] == conn.peer {
		return conn
	}
	if len(s.conns) >= s.sweepAt {
		s.sweep()
	}
	peer := s.peers[c.Peer]
	if peer == nil {
		peer = &Share{}
		s.peers[c.Peer] = peer
	}
	conn := &Share{peer: peer}
	s.conns[c.Conn] = conn
	return conn
}

// sweep removes the shares of clients that hold nothing.
func (s *Shares) sweep() {
	if s.conns == nil {
		s.peers, s.conns = make(map[any]*Share), make(map[any]*Share)
	}
	unused := func(_ any, share *Share) bool { return share.held.Load() == 0 }
	// A peer without places has no connection with places, so this order leaves no connection without its peer.
	maps.DeleteFunc(s.peers, unused)
	maps.DeleteFunc(s.conns, unused)
	s.sweepAt = max(leastSweep, 2*len(s.conns))
}

// All returns how many places all clients hold.
func (s *Shares) All() (n int) {
	for _, peer := range s.peers {
		n += int(peer.held.Load())
	}
	return n
}

// Held returns how many places the connection and its peer hold.
func (s *Share) Held() Held { return Held{Peer: int(s.peer.held.Load()), Conn: int(s.held.Load())} }

// Take takes a place. The caller holds the lock of the [Shares].
func (s *Share) Take() {
	s.peer.held.Add(1)
	s.held.Add(1)
}

// Release returns a place. It needs no lock.
func (s *Share) Release() {
	s.held.Add(-1) // before the peer's: see sweep
	s.peer.held.Add(-1)
}
