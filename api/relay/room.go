package relay

import (
	"errors"
	"time"

	"golang.org/x/net/http2"

	"github.com/core-tools/hsu-master/api/relay/deferred"
	"github.com/core-tools/hsu-master/api/relay/peers"
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

var errIdlest = errors.New("connections are short, and this one was not in use")

// reserve returns how many descriptors are reserved if the process may open limit descriptors.
func reserve(limit int) int { return min(max(limit/reservedPart, leastReserved), mostReserved) }

// excess returns by how many descriptors a process that has n open exceeds the number to which clients may bring
// it, and whether that is so much that a new client must wait until others have gone.
func excess(n, limit int) (over int, full bool) {
	reserved := reserve(limit)
	return max(0, n-(limit-reserved)), n > limit-reserved/2
}

// countOthers counts the open descriptors that are not those of clients.
func (r *Relay) countOthers() {
	clients, _ := r.crowd()
	r.others.Store(int64(max(0, descriptorsInUse()-clients)))
}

// makeRoom reports whether a new connection may stay, and closes others if that is needed. It may have to wait
// until these are closed; no further connection is accepted meanwhile.
func (r *Relay) makeRoom(c *clientConn) bool {
	p := c.member.Peer()
	clients, leaving := r.crowd()
	over, full := excess(int(r.others.Load())+clients+1, descriptorLimit())
	over = max(over, clients+1-r.opts.MaxConns)
	room := true
	// Two at most: each new client does a part of the work that is left.
	for range min(2, over-leaving) {
		if !r.evictFor(p) {
			room = leaving > 0
			break
		}
		leaving++
	}
	if room && full {
		room = leaving > 0 && r.awaitLeaving()
	}
	if !room {
		r.log.Limited("connections: a new one was refused", p)
	}
	return room
}

// awaitLeaving waits for the connections that are being closed to make room, and reports whether all of them are
// closed.
func (r *Relay) awaitLeaving() bool {
	late := time.After(patientFor)
	for {
		if _, leaving := r.crowd(); leaving == 0 {
			return true
		}
		select {
		case <-r.left:
		case <-late:
			return false
		case <-r.ctx.Done():
			return false
		}
	}
}

// crowd returns how many clients are connected, and how many of these connections are being closed to make room.
func (r *Relay) crowd() (clients, leaving int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.clients), r.evicted
}

// evictFor closes a connection to make room for a new one of that peer, which is nil if it is not known. It returns
// false if no connection may be closed.
func (r *Relay) evictFor(newcomer *peers.Peer) bool {
	crowd, more := r.peers.Crowd(newcomer)
	if crowd == nil {
		return false
	}
	victim := r.idlest(crowd, more > 1)
	if victim == nil {
		return false
	}
	r.mu.Lock()
	victim.evicted = true
	r.evicted++
	r.mu.Unlock()
	r.log.Limited("connections: one that was not in use was closed", crowd)
	var w deferred.Work
	victim.goAway(&w, http2.ErrCodeNo, errIdlest.Error())
	w.Do()
	victim.kill(errIdlest)
	return true
}

// idlest returns the connection of a peer that has been idle for longest. If none is idle, it returns the newest
// connection if busy is true, and nil otherwise.
func (r *Relay) idlest(p *peers.Peer, busy bool) (idlest *clientConn) {
	var newest *clientConn
	var since time.Duration
	for _, c := range r.allClients() {
		if c.member.Peer() != p {
			continue
		}
		c.mu.Lock()
		idle, at, over := c.calls.Len() == 0, c.idle, c.out.Dead()
		c.mu.Unlock()
		switch {
		case over:
		case idle && (idlest == nil || at < since):
			idlest, since = c, at
		case newest == nil || c.began > newest.began:
			newest = c
		}
	}
	if idlest == nil && busy {
		return newest
	}
	return idlest
}
