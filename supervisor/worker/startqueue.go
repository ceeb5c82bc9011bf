package worker

import (
	"runtime"
	"sync/atomic"
	"time"
)

// StartQueue limits the number of starts that are prepared at the same time. Otherwise the starts of many workers
// proceed in step: the scheduler runs all preparations before the first fork, and then nothing is left to do beside
// the forks, which come one after the other.
//
// A start does not depend on the others: if none of them has left the queue for a while, it is prepared beside them.
type StartQueue struct {
	places chan struct{} // holds an element for each start that is being prepared
	began  time.Time
	left   atomic.Int64 // when a start has left last, in nanoseconds since began
}

// stalledAfter is the time after which the starts in the queue count as blocked, for example by a file server.
const stalledAfter = 100 * time.Millisecond

// NewStartQueue returns a queue with a place for each goroutine that can run now.
func NewStartQueue() *StartQueue {
	return &StartQueue{places: make(chan struct{}, runtime.GOMAXPROCS(0)), began: time.Now()}
}

// enter waits for a place. The caller calls leave when the start is prepared.
func (q *StartQueue) enter() (leave func()) {
	select {
	case q.places <- struct{}{}:
		return q.leave
	default:
	}
	timer := time.NewTicker(stalledAfter)
	defer timer.Stop()
	for {
		select {
		case q.places <- struct{}{}:
			return q.leave
		case <-timer.C:
			if time.Since(q.began)-time.Duration(q.left.Load()) >= stalledAfter {
				return func() {}
			}
		}
	}
}

func (q *StartQueue) leave() {
	q.left.Store(int64(time.Since(q.began)))
	<-q.places
}
