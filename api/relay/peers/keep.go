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

// keeping counts the bytes that are kept for a connection, by kind.
type keeping [Kinds]atomic.Int64

// Keep adds n bytes, which may be negative, to those kept for the connection, for its peer and for all peers.
func (m *Account) Keep(k Kind, n int) {
	m.kept[k].Add(int64(n))
	m.Peer().kept.Add(int64(n))
	m.table.kept.Add(int64(n))
	if k == Calls {
		m.table.calls.Add(int64(n))
	}
}

// KeptOf returns the bytes of one kind that are kept for the connection.
func (m *Account) KeptOf(k Kind) int { return int(m.kept[k].Load()) }

// Kept returns the bytes that are kept for the connection.
func (m *Account) Kept() (n int64) {
	for k := range m.kept {
		n += m.kept[k].Load()
	}
	return n
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
