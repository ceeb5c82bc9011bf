package relay

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

// uplink divides the window of a connection to a backend among the clients that send on it. Servers on net/http,
// Netty and others give the window back only as their handlers read, so the uploads of one client could hold all of
// it. While the window is scarce, a client may use it only as long as it leaves some to others; its flows are parked
// otherwise. The connection's lock guards it.
type uplink struct {
	window  *sendWindow // of the connection
	streams *table      // of the connection
	now     func() time.Duration
	widest  int           // the largest size of the window so far
	since   time.Duration // when a flow was first kept back since half of the window was last free; 0: never
	parked  flows         // flows of clients that have used up their share
	wake    int           // the window at which the parked flows may continue
	poor    *clientConn   // the client that was last found without a share
	poorAt  int           // the window at that time
}

func newUplink(window *sendWindow, streams *table, now func() time.Duration) *uplink {
	return &uplink{window: window, streams: streams, now: now, widest: window.size}
}

// scarce reports whether less than half of the window is free. The window is divided only then.
func (u *uplink) scarce() bool { return u.window.size < u.widest/2 }

// free returns how much of the window a flow may use.
func (u *uplink) free(f *flow) int { return u.freeFor(f.by) }

// freeFor returns how much of the window a client may use.
func (u *uplink) freeFor(client *clientConn) int {
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
func (u *uplink) unreadOf(client *clientConn) (own, all int) {
	peer := client.member.Peer()
	for _, s := range u.streams.slots {
		if s.id == 0 || s.call.up.unread == 0 {
			continue
		}
		up := &s.call.up
		if up.by == client {
			own += up.unread
		}
		if up.by.member.Peer() == peer {
			all += up.unread
		}
	}
	return own, all
}

// keepBack sets aside a flow that has more to send: until the connection has a window and room or, if left is 0,
// until the flow's client has a share of the window again.
func (u *uplink) keepBack(f *flow, left int) {
	if left <= 0 && u.since == 0 {
		u.since = u.now()
	}
	if f.listed || left > 0 || !u.scarce() || u.window.size <= 0 {
		u.window.blocked.push(f)
		return
	}
	wake := min(u.window.size+u.widest/16, u.widest/2)
	if u.parked.first == nil || wake < u.wake {
		u.wake = wake
	}
	f.parked = true
	u.parked.push(f)
}

// forget removes a flow from the flows that are kept back.
func (u *uplink) forget(f *flow) {
	if f.parked {
		f.parked = false
		u.parked.remove(f)
		return
	}
	u.window.blocked.remove(f)
}

// unpark lets the parked flows of that peer, or of all peers if it is nil, try for their share again. It reports
// whether there were any.
func (u *uplink) unpark(peer *peers.Peer) (found bool) {
	for f := u.parked.first; f != nil; {
		next := f.next
		if peer == nil || f.by.member.Peer() == peer {
			u.forget(f)
			u.window.blocked.push(f)
			found = true
		}
		f = next
	}
	return found
}

// widened updates the uplink after the window has become larger.
func (u *uplink) widened() {
	u.widest = max(u.widest, u.window.size)
	if !u.scarce() {
		u.since = 0
	}
	if u.parked.first != nil && u.window.size >= u.wake {
		u.unpark(nil)
	}
}

// hasRead records that the backend has read n bytes of a flow. It reports whether other flows may continue.
func (u *uplink) hasRead(f *flow, n int) bool {
	n = min(n, f.unread)
	f.unread -= n
	if n == 0 || u.poor == nil && u.parked.first == nil {
		return false
	}
	peer := f.by.member.Peer()
	if u.poor != nil && u.poor.member.Peer() == peer {
		u.poor = nil
	}
	return u.unpark(peer)
}

// usedUp reports whether the window has been used up for so long that the client's data should be sent on another
// connection.
func (u *uplink) usedUp(client *clientConn) bool {
	return u.since != 0 && u.now()-u.since > usedUpAfter && u.freeFor(client) < u.widest/16
}
