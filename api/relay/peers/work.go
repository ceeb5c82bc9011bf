package peers

import "time"

// Units of work. Frames that carry nothing of a call cost units; frames that carry something of a call earn them
// back.
const (
	// Frame is the cost of a frame that does nothing, and the amount that a frame of a call earns.
	Frame = 4
	// newWork is the minimum budget of a new connection, however much its peer owes.
	newWork = 200 * Frame
)

// connWork allows 2,000 frames that do nothing, and then 200 a second.
var connWork = Rate{Burst: 2000 * Frame, Every: 1250 * time.Microsecond}

// Work charges units of work to the connection. It returns false if the connection has exceeded its budget.
func (m *Account) Work(now time.Duration, units int) bool {
	m.work.take(now, units, connWork, connWork.Every)
	return !m.work.overdrawn(now, connWork)
}

// Earn pays back units of work.
func (m *Account) Earn(now time.Duration, units int) { m.work.give(now, units, connWork) }

// inherit charges a new connection for the work that earlier connections of its peer have left unpaid.
func (m *Account) inherit(p *Peer, now time.Duration) {
	m.work.fullAt.Store(min(p.work.fullAt.Load(), int64(now+connWork.whole()-newWork*connWork.Every)))
}

// bequeath records the unpaid work of the connection at its peer.
func (m *Account) bequeath(p *Peer) {
	p.work.fullAt.Store(max(p.work.fullAt.Load(), m.work.fullAt.Load()))
}
