package peers

import (
	"sync/atomic"
	"time"
)

// rate describes how a token bucket refills: one token each every, up to burst tokens.
type rate struct {
	burst int
	every time.Duration
}

// whole returns how long an empty bucket takes to fill.
func (r rate) whole() time.Duration { return time.Duration(r.burst) * r.every }

// bucket is a token bucket that several goroutines use without a lock. Its only field is the time at which the
// bucket is full again (the "generic cell rate algorithm"). The zero value is full.
type bucket struct{ fullAt atomic.Int64 }

// take takes n tokens even if the bucket holds fewer. The debt of an empty bucket grows to at most most.
func (b *bucket) take(now time.Duration, n int, r rate, most time.Duration) {
	for {
		old := b.fullAt.Load()
		next := max(old, int64(now)) + int64(time.Duration(n)*r.every)
		if b.fullAt.CompareAndSwap(old, min(next, int64(now+r.whole()+most))) {
			return
		}
	}
}

// give puts n tokens back. It does not write to a full bucket, so that it stays cheap for peers that take nothing.
func (b *bucket) give(now time.Duration, n int, r rate) {
	if b.fullAt.Load() > int64(now) {
		b.fullAt.Add(-int64(time.Duration(n) * r.every))
	}
}

// overdrawn reports whether more tokens were taken than there are.
func (b *bucket) overdrawn(now time.Duration, r rate) bool {
	return b.fullAt.Load() > int64(now+r.whole())
}

// full reports whether the bucket is full.
func (b *bucket) full(now time.Duration) bool { return b.fullAt.Load() <= int64(now) }
