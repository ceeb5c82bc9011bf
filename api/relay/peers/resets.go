package peers

import "time"

// Limits on the streams that a peer may reset. A stream that is reset soon after it was opened frees its place on
// the connection while the endpoint still works on it, so a limit on concurrent streams does not limit that work
// (CVE-2023-44487, CVE-2025-8671).
const (
	// resetAge is the age from which resetting a stream is free: the limit on concurrent streams does limit the
	// work on such streams.
	resetAge = 10 * time.Second
	// mostDebt bounds how long a peer stays overdrawn after its last reset.
	mostDebt = 10 * time.Second
	// mostTrust bounds the calls that a connection of an overdrawn peer may begin without waiting, which it has
	// earned by completed calls.
	mostTrust = 100
	// trustPerCall is the number of such calls that a completed call earns. With two, the concurrent calls of a
	// connection can double with each round.
	trustPerCall = 2
)

var (
	// peerResets limits the resets of all connections of a peer together. The burst allows one for each of the
	// 1,024 streams of a connection, as when a client cancels all its calls. After that, 500 a second are allowed.
	peerResets = rate{burst: 1024, every: 2 * time.Millisecond}
	// connResets limits the resets of one connection while its peer is overdrawn. A connection that exceeds it is
	// closed.
	connResets = rate{burst: 128, every: 100 * time.Millisecond}
)

// Reset charges the peer for a stream of that age that it reset, or made the server reset. It returns false if the
// connection must be closed for it.
func (m *Account) Reset(now, age time.Duration) bool {
	if age >= resetAge {
		return true
	}
	p := m.Peer()
	p.resets.take(now, 1, peerResets, mostDebt)
	if !p.resets.overdrawn(now, peerResets) {
		return true
	}
	m.resets.take(now, 1, connResets, connResets.every)
	return !m.resets.overdrawn(now, connResets)
}

// Refused charges the peer for a call that was answered without being sent to an endpoint, because of a fault of
// the peer or because the peer had more calls than others. The call counts like a reset, but is never a reason to
// close a connection.
func (m *Account) Refused(now time.Duration) {
	m.Peer().resets.take(now, 1, peerResets, mostDebt)
}

// Completed records that an endpoint has answered a call of the connection.
func (m *Account) Completed(now time.Duration) {
	if m.trust.Load() < mostTrust {
		m.trust.Add(trustPerCall)
	}
	m.Peer().resets.give(now, 1, peerResets)
}

// MayBegin reports whether the connection may begin a call now. If not, the caller must call [Account.Wait] first.
func (m *Account) MayBegin(now time.Duration) bool {
	if !m.Peer().resets.overdrawn(now, peerResets) {
		return true
	}
	// Only the connection's reader lowers trust, so it is still positive below.
	if m.trust.Load() > 0 {
		m.trust.Add(-1)
		return true
	}
	return false
}

// Wait waits until the connection may begin one call. The connections of a peer take turns. It returns early if the
// wait is interrupted.
func (m *Account) Wait() { m.Peer().turns.await(m.turn) }

// Interrupt ends the connection's current wait, or its next one. It does not block.
func (m *Account) Interrupt() { m.turn.give() }
