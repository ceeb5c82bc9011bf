// Package peers identifies the peers of a server and tracks what each of them may still do.
//
// A peer is a certificate that the server has verified, or else an address; on a loopback address, which all local
// users share, it is the address and the uid of the peer's socket. A peer has any number of connections, and each
// of them is an [Account]. The package remembers the spending of a peer for as long as it matters, even after its last
// connection has ended, so that a client gains nothing by connecting again.
//
// Methods take the time on a clock of the caller's choice, which must be the same for all calls on a table.
package peers

import (
	"sync"
	"sync/atomic"
	"time"
)

// mostDebtors bounds the peers without a connection whose spending a table remembers.
const mostDebtors = 4096

// Table holds the peers of a server. The zero value is empty and ready to use.
type Table struct {
	mu      sync.Mutex
	kept    atomic.Int64
	calls   atomic.Int64 // the part of kept that is of kind Calls
	peers   map[ID]*Peer
	debtors map[ID]*Peer // the peers without a connection
}

// Peer is one of a server's peers. Its pointer identifies it for as long as it has a connection.
type Peer struct {
	id     ID
	conns  int    // guarded by Table.mu
	resets bucket // limited by peerResets
	turns  turns  // of its connections, while resets is overdrawn
	kept   atomic.Int64
	work   bucket       // unpaid work of connections that have ended
	quiet  atomic.Int64 // nothing is reported until then
}

// reportEvery is the least time between two log lines about limits that act on one peer.
const reportEvery = 10 * time.Second

// Report reports whether an action against the peer should be logged now: the first time, and then once per
// reportEvery.
func (p *Peer) Report(now time.Duration) bool {
	quiet := p.quiet.Load()
	return int64(now) >= quiet && p.quiet.CompareAndSwap(quiet, int64(now+reportEvery))
}

// ID returns the peer's ID.
func (p *Peer) ID() ID { return p.id }

// enter adds a connection to the peer with that ID. t.mu is held.
func (t *Table) enter(id ID) *Peer {
	p := t.peers[id]
	if p == nil {
		if t.peers == nil {
			t.peers, t.debtors = make(map[ID]*Peer), make(map[ID]*Peer)
		}
		p = &Peer{id: id}
		t.peers[id] = p
	}
	delete(t.debtors, id)
	p.conns++
	return p
}

// exit takes a connection from its peer. t.mu is held.
func (t *Table) exit(p *Peer) {
	p.conns--
	if p.conns > 0 {
		return
	}
	for id := range t.debtors {
		if len(t.debtors) < mostDebtors {
			break
		}
		t.forget(id)
	}
	t.debtors[p.id] = p
}

// forget removes a peer without connections. t.mu is held.
func (t *Table) forget(id ID) {
	delete(t.debtors, id)
	delete(t.peers, id)
}

// Sweep forgets the peers without a connection that owe nothing.
func (t *Table) Sweep(now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.debtors {
		if p.work.full(now) && p.resets.full(now) {
			t.forget(id)
		}
	}
}

// MostConnected returns the peer with the most connections, and how many more it has than p. A nil p counts as a peer
// without connections. The result is nil if there are no connections.
func (t *Table) MostConnected(p *Peer) (peer *Peer, more int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	most, own := 0, 0
	if p != nil {
		peer, most, own = p, p.conns, p.conns
	}
	for _, q := range t.peers {
		if q.conns > most {
			peer, most = q, q.conns
		}
	}
	return peer, most - own
}

// Kept returns the bytes that are kept for all connections of the peer.
func (p *Peer) Kept() int64 { return p.kept.Load() }

// Kept returns the bytes that are kept for all peers.
func (t *Table) Kept() int64 { return t.kept.Load() }

// Queued returns the bytes that are kept for all peers, except those of kind Calls.
func (t *Table) Queued() int64 { return t.kept.Load() - t.calls.Load() }

// Largest returns the peer for which the most bytes are kept; nil if none are kept.
func (t *Table) Largest() (largest *Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	most := int64(0)
	for _, p := range t.peers {
		if n := p.Kept(); n > most {
			largest, most = p, n
		}
	}
	return largest
}
