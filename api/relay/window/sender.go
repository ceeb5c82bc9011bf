package window

import "github.com/core-tools/hsu-master/api/relay/peers"

// Sender is a flow F as the windows of the connection know it on which it sends. It is part of the flow. The
// connection's lock guards it.
type Sender[F any] struct {
	Flow F

	next, prev *Sender[F] // in the list of those that wait
	listed     bool
	parked     bool // in the uplink's list

	// Only of a flow to a backend.
	by        *peers.Account // the client, while the flow is part of the uplink
	unread    int            // bytes sent that the backend has not read
	nextOfAll *Sender[F]
	prevOfAll *Sender[F]
}

// senders is a list of senders.
type senders[F any] struct{ first, last *Sender[F] }

func (l *senders[F]) push(s *Sender[F]) {
	if s.listed {
		return
	}
	s.listed = true
	s.prev, s.next = l.last, nil
	if l.last == nil {
		l.first = s
	} else {
		l.last.next = s
	}
	l.last = s
}

func (l *senders[F]) pop() *Sender[F] {
	s := l.first
	l.remove(s)
	return s
}

func (l *senders[F]) remove(s *Sender[F]) {
	if !s.listed {
		return
	}
	if s.prev == nil {
		l.first = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		l.last = s.prev
	} else {
		s.next.prev = s.prev
	}
	s.next, s.prev, s.listed = nil, nil, false
}
