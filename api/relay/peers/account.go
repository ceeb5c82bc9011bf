package peers

import (
	"sync/atomic"
	"time"
)

// Account is the account of one connection of a peer: the memory and the work that it is charged for.
type Account struct {
	table  *Table
	peer   atomic.Pointer[Peer]
	trust  atomic.Int64 // calls that it may begin without waiting while its peer is overdrawn
	resets bucket       // limited by connResets while its peer is overdrawn
	turn   turn
	work   bucket // limited by connWork
	kept   keeping
}

// Join adds a connection to the peer with that ID. The caller must call [Account.Leave] when the connection ends.
func (t *Table) Join(now time.Duration, id ID) *Account {
	m := &Account{table: t, turn: newTurn()}
	t.mu.Lock()
	defer t.mu.Unlock()
	m.enter(id, now)
	return m
}

// Peer returns the peer of the connection. It does not change once the connection's handshake is over.
func (m *Account) Peer() *Peer { return m.peer.Load() }

// Become moves the connection to another peer, if a certificate identifies the client better than its address does.
// It must be called before anything is charged to the connection.
func (m *Account) Become(now time.Duration, id ID) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	m.exit()
	m.enter(id, now)
}

// Leave takes the account from its peer, since the connection has ended. It must be called only once.
func (m *Account) Leave() {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	m.exit()
}

// enter adds the connection to a peer, and charges it for the work that earlier connections of the peer have left
// unpaid. The table's lock is held.
func (m *Account) enter(id ID, now time.Duration) {
	p := m.table.enter(id)
	m.peer.Store(p)
	m.work.fullAt.Store(inherited(&p.work, now))
}

// exit takes the connection from its peer, which owes the work that the connection leaves unpaid. The table's lock is
// held.
func (m *Account) exit() {
	p := m.Peer()
	p.work.fullAt.Store(max(p.work.fullAt.Load(), m.work.fullAt.Load()))
	m.table.exit(p)
}

// Work charges units of work to the connection. It returns false if the connection has exceeded its budget.
func (m *Account) Work(now time.Duration, units int) bool {
	m.work.take(now, units, connWork, connWork.every)
	return !m.work.overdrawn(now, connWork)
}

// Earn pays back units of work.
func (m *Account) Earn(now time.Duration, units int) { m.work.give(now, units, connWork) }

// Keep adds n bytes, which may be negative, to those kept for the connection, for its peer and for all peers.
func (m *Account) Keep(k Kind, n int) {
	m.table.kept.Add(int64(n))
	m.add(k, n)
}

// Reserve is like Keep, unless more than most bytes would be kept for all peers then. In that case it keeps nothing
// and returns false.
func (m *Account) Reserve(k Kind, n int, most int64) bool {
	for {
		kept := m.table.kept.Load()
		if kept+int64(n) > most {
			return false
		}
		if m.table.kept.CompareAndSwap(kept, kept+int64(n)) {
			m.add(k, n)
			return true
		}
	}
}

// add adds n bytes to those kept for the connection and for its peer.
func (m *Account) add(k Kind, n int) {
	m.kept[k].Add(int64(n))
	m.Peer().kept.Add(int64(n))
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
