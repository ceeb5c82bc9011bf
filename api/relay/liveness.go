package relay

import (
	"sync/atomic"
	"time"
)

const (
	// suspectAfter is the age of an unanswered PING from which the connection gets no further calls.
	suspectAfter = time.Second
	// mostEarlyPings bounds the PINGs for silence between two answers. gRPC servers allow two PINGs less than 5
	// minutes apart between two of their own frames with headers or data, and end the connection at the next.
	mostEarlyPings = 2
)

// ourPing is the payload of the relay's PINGs.
var ourPing = [8]byte{'h', 's', 'u', 'a', 'l', 'i', 'v', 'e'}

// liveness records the signs that the peer of a connection still answers. conn.mu guards all fields but heard.
type liveness struct {
	heard    atomic.Int64  // when bytes arrived last, on the relay's clock
	asked    time.Duration // when something of a call was first sent after heard; meaningless if before heard
	pinged   time.Duration // when the last PING was sent
	early    int           // PINGs for silence since the last answer
	answered bool          // a call has been answered, at least in part
}

func (l *liveness) lastHeard() time.Duration { return time.Duration(l.heard.Load()) }

// asks reports whether a call has sent something since the peer was last heard.
func (l *liveness) asks() bool { return l.asked > l.lastHeard() }

// ask records that a call sends something at now, the first since the peer was last heard.
func (l *liveness) ask(now time.Duration) { l.asked = max(now, l.lastHeard()+1) }

// answer records that headers or data of a call have arrived.
func (l *liveness) answer() { l.early, l.answered = 0, true }

// unanswered returns how long a PING has been unanswered; 0 if none is.
func (l *liveness) unanswered(now time.Duration) time.Duration {
	if l.pinged <= l.lastHeard() {
		return 0
	}
	return now - l.pinged
}

// pinging reports whether a PING is unanswered.
func (l *liveness) pinging() bool { return l.pinged > l.lastHeard() }

// suspect reports whether a PING has been unanswered for so long that further calls should be sent elsewhere.
func (l *liveness) suspect(now time.Duration) bool { return l.unanswered(now) > suspectAfter }

// pingDue reports whether a PING must be sent now, and records that. A PING is due after a silence of regular, or
// of quick if calls have sent something since the peer was last heard.
func (l *liveness) pingDue(now, regular, quick time.Duration) bool {
	heard := l.lastHeard()
	switch {
	case now-heard > regular:
	case l.asked > heard && now-l.asked > quick && l.early < mostEarlyPings:
		l.early++
	default:
		return false
	}
	l.pinged = now
	return true
}
