package relay

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/core-tools/hsu-master/api/relay/peers"
	"github.com/core-tools/hsu-master/internal/fair"
)

// Clients share the possible connections: at most Options.MaxConns, and at most as many as leave descriptors free
// for supervision, the store, the admin socket and connections to endpoints. When there are more, the peer with the
// most connections loses those that have been idle for longest.
const (
	// Of the descriptors that the process may open, one in reservedPart is reserved, which no client may use: at
	// least leastReserved and at most mostReserved. A new client that reaches into the second half of the reserve
	// waits until the connections that make room are closed, and is refused after patientFor.
	reservedPart  = 4
	leastReserved = 32
	mostReserved  = 1024
	patientFor    = time.Second
)

// reserve returns how many descriptors are reserved if the process may open limit descriptors.
func reserve(limit int) int { return min(max(limit/reservedPart, leastReserved), mostReserved) }

// excess returns by how many descriptors a process that has n open exceeds the number to which clients may bring
// it, and whether that is so much that a new client must wait until others have gone.
func excess(n, limit int) (over int, full bool) {
	reserved := reserve(limit)
	return max(0, n-(limit-reserved)), n > limit-reserved/2
}

// crowd holds the connections of clients.
type crowd struct {
	env      *env
	done     <-chan struct{} // closed when the relay is closed
	shedding sync.Mutex      // held by the reader that terminates calls to free memory
	others   atomic.Int64    // open descriptors that are not those of clients, as last counted
	left     chan struct{}   // receives a value when an evicted connection is closed

	mu      sync.RWMutex
	closed  bool
	conns   map[*clientConn]struct{}
	evicted int // connections that are being closed to make room
}

func (s *crowd) init(e *env, done <-chan struct{}) {
	s.env, s.done = e, done
	s.conns, s.left = make(map[*clientConn]struct{}), make(chan struct{}, 1)
}

// add adds a connection and calls start. It returns false if no further connection is allowed.
func (s *crowd) add(c *clientConn, start func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns)-s.evicted >= s.env.opts.MaxConns || s.env.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	start()
	return true
}

// remove removes a connection that is closed, and returns how many are left.
func (s *crowd) remove(c *clientConn) (left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if c.evicted {
		s.evicted--
		select {
		case s.left <- struct{}{}:
		default:
		}
	}
	return len(s.conns)
}

// close lets no further connection be added, and returns the current ones.
func (s *crowd) close() []*clientConn {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return s.all()
}

// all returns the current connections.
func (s *crowd) all() []*clientConn {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.AppendSeq(make([]*clientConn, 0, len(s.conns)), maps.Keys(s.conns))
}

// countOthers counts the open descriptors that are not those of clients.
func (s *crowd) countOthers() {
	clients, _ := s.size()
	s.others.Store(int64(max(0, descriptorsInUse()-clients)))
}

// makeRoom reports whether a new connection may stay, and closes others if that is needed. It may have to wait
// until these are closed; no further connection is accepted meanwhile.
func (s *crowd) makeRoom(c *clientConn) bool {
	p := c.account.Peer()
	clients, leaving := s.size()
	over, full := excess(int(s.others.Load())+clients+1, fair.DescriptorLimit())
	over = max(over, clients+1-s.env.opts.MaxConns)
	room := true
	// Two at most: each new client does a part of the work that is left.
	for range min(2, over-leaving) {
		if !s.evictFor(p) {
			room = leaving > 0
			break
		}
		leaving++
	}
	if room && full {
		room = leaving > 0 && s.awaitLeaving()
	}
	if !room {
		s.env.log.Limited("connections: new connection refused", p)
	}
	return room
}

// awaitLeaving waits for the connections that are being closed to make room, and reports whether all of them are
// closed.
func (s *crowd) awaitLeaving() bool {
	late := time.After(patientFor)
	for {
		if _, leaving := s.size(); leaving == 0 {
			return true
		}
		select {
		case <-s.left:
		case <-late:
			return false
		case <-s.done:
			return false
		}
	}
}

// size returns how many clients are connected, and how many of these connections are being closed to make room.
func (s *crowd) size() (clients, leaving int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.conns), s.evicted
}

// evictFor closes a connection to make room for a new one of that peer, which is nil if it is not known. It returns
// false if no connection may be closed.
func (s *crowd) evictFor(newcomer *peers.Peer) bool {
	peer, more := s.env.peers.MostConnected(newcomer)
	if peer == nil {
		return false
	}
	victim := s.idlest(peer, more > 1)
	if victim == nil {
		return false
	}
	s.mu.Lock()
	victim.evicted = true
	s.evicted++
	s.mu.Unlock()
	s.env.log.Limited("connections: idle connection closed", peer)
	victim.evict()
	return true
}

// idlest returns the connection of a peer that has been idle for longest. If none is idle, it returns the newest
// connection if busy is true, and nil otherwise.
func (s *crowd) idlest(p *peers.Peer, busy bool) (idlest *clientConn) {
	var newest *clientConn
	var since time.Duration
	for _, c := range s.all() {
		if c.account.Peer() != p {
			continue
		}
		switch idle, at, over := c.idleSince(); {
		case over:
		case idle && (idlest == nil || at < since):
			idlest, since = c, at
		case newest == nil || c.isNewer(newest):
			newest = c
		}
	}
	if idlest == nil && busy {
		return newest
	}
	return idlest
}
