package window

import (
	"time"

	"github.com/core-tools/hsu-master/api/relay/peers"
)

const (
	// The unread data of a client's connection may take up to connShare times as much of a backend's window as it
	// leaves free, and that of all connections of its peer up to peerShare times as much. So some of the window is
	// always free, whatever the number of clients.
	connShare = 3
	peerShare = 8
	// usedUpAfter is how long flows are kept back before another connection to the endpoint is opened.
	usedUpAfter = 20 * time.Millisecond
)

// Uplink divides the window of a connection to a backend among the clients that send on it. Servers on net/http,
// Netty and others give the window back only as their handlers read, so the uploads of one client could hold all of
// it. While the window is scarce, a client may use it only as long as it leaves some to others; its flows are parked
// otherwise. The connection's lock guards it.
type Uplink[F any] struct {
	window  *Send[F]   // of the connection
	senders *Sender[F] // the first of all flows that have a stream of the connection
	now     func() time.Duration
	widest  int            // the largest size of the window so far
	since   time.Duration  // when a flow was first kept back since half of the window was last free; 0: never
	parked  senders[F]     // flows of clients that have used up their share
	wake    int            // the window at which the parked flows may continue
	poor    *peers.Account // the client that was last found without a share
	poorAt  int            // the window at that time
}

// NewUplink returns an uplink that divides a window. now is the relay's clock.
func NewUplink[F any](window *Send[F], now func() time.Duration) *Uplink[F] {
	return &Uplink[F]{window: window, now: now, widest: window.size}
}

// Join adds a flow of that client, which has got a stream of the connection.
func (u *Uplink[F]) Join(s *Sender[F], client *peers.Account) {
	s.by = client
	s.prevOfAll, s.nextOfAll = nil, u.senders
	if u.senders != nil {
		u.senders.prevOfAll = s
	}
	u.senders = s
}

// Leave removes a flow whose stream has ended. It reports whether other flows may continue.
func (u *Uplink[F]) Leave(s *Sender[F]) bool {
	u.forget(s)
	others := u.HasRead(s, s.unread)
	s.by = nil
	if s.nextOfAll != nil {
		s.nextOfAll.prevOfAll = s.prevOfAll
	}
	if s.prevOfAll != nil {
		s.prevOfAll.nextOfAll = s.nextOfAll
	} else {
		u.senders = s.nextOfAll
	}
	s.nextOfAll, s.prevOfAll = nil, nil
	return others
}

// Sent records that a flow has used n bytes of the window.
func (u *Uplink[F]) Sent(s *Sender[F], n int) {
	u.window.size -= n
	s.unread += n
}

// scarce reports whether less than half of the window is free. The window is divided only then.
func (u *Uplink[F]) scarce() bool { return u.window.size < u.widest/2 }

// Free returns how much of the window a flow may use.
func (u *Uplink[F]) Free(s *Sender[F]) int { return u.freeFor(s.by) }

// freeFor returns how much of the window a client may use.
func (u *Uplink[F]) freeFor(client *peers.Account) int {
	left := u.window.size
	switch {
	case !u.scarce() || client == nil:
		return left
	case client == u.poor && left <= u.poorAt:
		return 0
	}
	own, all := u.unreadOf(client)
	used := u.widest - left // some servers give the connection's window back earlier than a stream's
	n := min(share(connShare, left, min(own, used)), share(peerShare, left, min(all, used)))
	if n < u.widest/64 { // many small frames would not help
		u.poor, u.poorAt = client, left
		return 0
	}
	return n
}

// share returns how many of the free bytes a client may take if it already holds some and may hold n times as many
// bytes as it leaves free.
func share(n, free, held int) int { return (n*free - held) / (n + 1) }

// unreadOf returns how many bytes the backend has not read yet: those of a client, and those of all connections of
// the client's peer.
func (u *Uplink[F]) unreadOf(client *peers.Account) (own, all int) {
	peer := client.Peer()
	for s := u.senders; s != nil; s = s.nextOfAll {
		if s.unread == 0 {
			continue
		}
		if s.by == client {
			own += s.unread
		}
		if s.by.Peer() == peer {
			all += s.unread
		}
	}
	return own, all
}

// KeepBack sets aside a flow that has more to send: until the connection has a window and room or, if left is 0,
// until the flow's client has a share of the window again.
func (u *Uplink[F]) KeepBack(s *Sender[F], left int) {
	if left <= 0 && u.since == 0 {
		u.since = u.now()
	}
	if s.listed || left > 0 || !u.scarce() || u.window.size <= 0 {
		u.window.blocked.push(s)
		return
	}
	wake := min(u.window.size+u.widest/16, u.widest/2)
	if u.parked.first == nil || wake < u.wake {
		u.wake = wake
	}
	s.parked = true
	u.parked.push(s)
}

// forget removes a flow from the flows that are kept back.
func (u *Uplink[F]) forget(s *Sender[F]) {
	if s.parked {
		s.parked = false
		u.parked.remove(s)
		return
	}
	u.window.blocked.remove(s)
}

// unpark lets the parked flows of that peer, or of all peers if it is nil, try for their share again. It reports
// whether there were any.
func (u *Uplink[F]) unpark(peer *peers.Peer) (found bool) {
	for s := u.parked.first; s != nil; {
		next := s.next
		if peer == nil || s.by.Peer() == peer {
			u.forget(s)
			u.window.blocked.push(s)
			found = true
		}
		s = next
	}
	return found
}

// Widened updates the uplink after the window has become larger.
func (u *Uplink[F]) Widened() {
	u.widest = max(u.widest, u.window.size)
	if !u.scarce() {
		u.since = 0
	}
	if u.parked.first != nil && u.window.size >= u.wake {
		u.unpark(nil)
	}
}

// HasRead records that the backend has read n bytes of a flow. It reports whether other flows may continue.
func (u *Uplink[F]) HasRead(s *Sender[F], n int) bool {
	n = min(n, s.unread)
	s.unread -= n
	if n == 0 || u.poor == nil && u.parked.first == nil {
		return false
	}
	peer := s.by.Peer()
	if u.poor != nil && u.poor.Peer() == peer {
		u.poor = nil
	}
	return u.unpark(peer)
}

// UsedUp reports whether the window has been used up for so long that the client's data should be sent on another
// connection.
func (u *Uplink[F]) UsedUp(client *peers.Account) bool {
	return u.since != 0 && u.now()-u.since > usedUpAfter && u.freeFor(client) < u.widest/16
}
