package peers

import "sync/atomic"

// Kind is a kind of memory that a client can make the server keep.
type Kind uint8

const (
	Data     Kind = iota // messages, in both directions, that wait to be sent on or are kept for another attempt
	Headers              // headers of requests that no endpoint has answered yet
	Trailers             // trailers of responses, which wait behind the data
	Output               // frames that the client's socket has not accepted
	Input                // frames and header blocks that have arrived in part
	Calls                // the calls themselves
	Kinds                // the number of kinds
)

// holding counts the bytes that are kept for a connection, by kind.
type holding [Kinds]atomic.Int64

// Hold adds n bytes, which may be negative, to those kept for the connection, for its peer and for all peers.
func (m *Member) Hold(k Kind, n int) {
	m.held[k].Add(int64(n))
	m.Peer().held.Add(int64(n))
	m.table.held.Add(int64(n))
	if k == Calls {
		m.table.calls.Add(int64(n))
	}
}

// HeldOf returns the bytes of one kind that are kept for the connection.
func (m *Member) HeldOf(k Kind) int { return int(m.held[k].Load()) }

// Held returns the bytes that are kept for the connection.
func (m *Member) Held() (n int64) {
	for k := range m.held {
		n += m.held[k].Load()
	}
	return n
}

// Held returns the bytes that are kept for all connections of the peer.
func (p *Peer) Held() int64 { return p.held.Load() }

// Held returns the bytes that are kept for all peers.
func (t *Table) Held() int64 { return t.held.Load() }

// Queued returns the bytes that are kept for all peers, except those of kind Calls.
func (t *Table) Queued() int64 { return t.held.Load() - t.calls.Load() }

// Largest returns the peer for which the most bytes are kept; nil if none are kept.
func (t *Table) Largest() (largest *Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	most := int64(0)
	for _, p := range t.peers {
		if n := p.Held(); n > most {
			largest, most = p, n
		}
	}
	return largest
}
