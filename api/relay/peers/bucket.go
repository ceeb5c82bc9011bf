package peers

import (
	"sync/atomic"
	"time"
)

// Rate describes how a token bucket refills: one token each Every, up to Burst tokens.
type Rate struct {
	Burst int
	Every time.Duration
}

// whole returns how long an empty bucket takes to fill.
func (r Rate) whole() time.Duration { return time.Duration(r.Burst) * r.Every }

// bucket is a token bucket that several goroutines use without a lock. Its only field is the time at which the
// bucket is full again (the "generic cell rate algorithm"). The zero value is full.
type bucket struct{ fullAt atomic.Int64 }

// take takes n tokens even if the bucket holds fewer. The debt of an empty bucket grows to at most most.
func (b *bucket) take(now time.Duration, n int, r Rate, most time.Duration) {
	for {
		old := b.fullAt.Load()
		next := max(old, int64(now)) + int64(time.Duration(n)*r.Every)
		if b.fullAt.CompareAndSwap(old, min(next, int64(now+r.whole()+most))) {
			return
		}
	}
}

// give puts n tokens back. It does not write to a full bucket, so that it stays cheap for peers that take nothing.
func (b *bucket) give(now time.Duration, n int, r Rate) {
	if b.fullAt.Load() > int64(now) {
		b.fullAt.Add(-int64(time.Duration(n) * r.Every))
	}
}

// overdrawn reports whether more tokens were taken than there are.
func (b *bucket) overdrawn(now time.Duration, r Rate) bool {
	return b.fullAt.Load() > int64(now+r.whole())
}

// full reports whether the bucket is full.
func (b *bucket) full(now time.Duration) bool { return b.fullAt.Load() <= int64(now) }
