package relay

import (
	"sync/atomic"

	"github.com/core-tools/hsu-master/api/relay/peers"
)

const (
	// If more than budgetUp is queued for a client's calls, and half of the limit for all clients is in use, the
	// client is stopped. While there is more room, uploads that wait for one backend delay none of the client's
	// calls to others: each upload has its window at most. If more than budgetKept is queued, or a quarter of the
	// limit for all is in use, nothing is kept for second attempts: kept data is freed only by an answer, for which
	// the backend may need the data that the client is stopped from sending.
	budgetUp   = 4 << 20
	budgetKept = budgetUp / 4
	// budgetGrown bounds how far the windows of all streams of a client grow together, beyond the first window
	// of each. The client or a backend may stop reading at any time, and then as much data waits: granted windows
	// cannot be taken back.
	budgetGrown = 8 << 20
)

// backlog bounds the data that is queued or kept for the calls of one client. While the client is stopped, the
// window of its connection is not given back. Its methods may be called from any goroutine.
type backlog struct {
	account  *peers.Account
	all      *peers.Table
	most     int64        // bytes for all clients
	withheld atomic.Bool  // the connection's window was not given back
	grown    atomic.Int64 // bytes by which the windows of the client's calls have grown
}

// queued returns the bytes of data that are queued or kept for the client's calls.
func (l *backlog) queued() int { return l.account.KeptOf(peers.Data) }

// stopped reports whether the client must be stopped: its calls hold more than most bytes of data while half of the
// limit for all clients is in use, or any data while all of it is in use.
func (l *backlog) stopped(most int) bool {
	q := l.queued()
	return q > most && l.all.Kept() > l.most/2 || q > 0 && l.all.Kept() > l.most
}

// withhold reports whether the window must not be given back now, and records that.
func (l *backlog) withhold() bool {
	stop := l.stopped(budgetUp)
	if stop {
		l.withheld.Store(true)
	}
	return stop
}

// relent reports, once, that a window that was not given back must be given back now.
func (l *backlog) relent() bool {
	return l.withheld.Load() && !l.stopped(budgetUp/2) && l.withheld.CompareAndSwap(true, false)
}

// dropReplay reports whether the client's calls must give up second attempts, so that the client need not be
// stopped.
func (l *backlog) dropReplay() bool {
	return l.queued() > budgetKept || l.withheld.Load() || l.all.Kept() > l.most/4
}

// grow takes n bytes from the budget by which the windows of the client's streams may grow, if there are as many.
func (l *backlog) grow(n int) bool {
	if l.grown.Add(int64(n)) > budgetGrown {
		l.grown.Add(int64(-n))
		return false
	}
	return true
}

// shrink gives n bytes back to that budget.
func (l *backlog) shrink(n int) { l.grown.Add(int64(-n)) }
