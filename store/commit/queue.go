package commit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
)

// request is the work that one caller requests from the committer.
type request struct {
	count int64
	muts  []records.Mutation
	flush bool // bring the count into state.db
	ping  bool // only wait for an answer
}

// batch collects the requests of all callers that arrive during one commit. The waiting callers share its channel,
// so that hundreds of them are released with one close.
type batch struct {
	done    chan struct{}   // nil if no caller waits
	err     error           // valid once done is closed
	joined  int             // number of requests
	urgent  bool            // has a request that must not wait for others
	counts  []once.Counted  // callbacks for counts without an id
	results []*once.Pending // requests with an id, each with its callback
	request
}

// reset empties a batch with no waiters so that it can be reused.
func (b *batch) reset() *batch {
	clear(b.counts)
	clear(b.results)
	*b = batch{counts: b.counts[:0], results: b.results[:0]}
	return b
}

// queue collects the requests of all callers until the committer takes them as one batch. It also knows why nothing
// can be written: requests that come while the queue is closed or broken are refused, except that a ping is answered
// while it is broken.
//
// Invariant: while the next batch has a request, wake holds a token, or the committer has received it and is about to
// take the batch, or the caller that joined first is about to send it.
type queue struct {
	wake chan struct{} // holds one token: there is work to do

	mu     sync.Mutex
	next   *batch // the batch that callers join
	want   int    // how many requests in it end the wait of the gatherer; 0 if it does not wait
	closed bool
	broken error // why nothing can be made durable, nil if it can
	outage outage
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1), next: new(batch)} }

// do adds r to the batch that is committed next, and waits for the commit.
func (q *queue) do(ctx context.Context, r request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	q.mu.Lock()
	if err := q.refused(); err != nil && (q.closed || !r.ping) {
		q.mu.Unlock()
		return err
	}
	b, kick := q.join(len(r.muts) > 0 || r.flush || r.ping)
	if b.done == nil {
		b.done = make(chan struct{})
	}
	done := b.done
	b.count += r.count
	b.muts = append(b.muts, r.muts...)
	b.flush = b.flush || r.flush
	b.ping = b.ping || r.ping
	q.mu.Unlock()
	if kick {
		q.kick()
	}
	if ctx.Done() == nil {
		<-done
	} else {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the state to be written: %w", ctx.Err())
		}
	}
	if r.ping {
		return nil // the committer has answered, whether the state can be written or not
	}
	return b.err
}

// addCount adds a count of one, of whose outcome done is notified unless addCount returns an error.
func (q *queue) addCount(done once.Counted) error {
	q.mu.Lock()
	if err := q.refused(); err != nil {
		q.mu.Unlock()
		return err
	}
	b, kick := q.join(false)
	b.count++
	b.counts = append(b.counts, done)
	q.mu.Unlock()
	if kick {
		q.kick()
	}
	return nil
}

// addResult adds a request with an id, of whose outcome r.done is notified unless addResult returns an error.
func (q *queue) addResult(r *once.Pending) error {
	q.mu.Lock()
	if err := q.refused(); err != nil {
		q.mu.Unlock()
		return err
	}
	b, kick := q.join(true)
	b.results = append(b.results, r)
	q.mu.Unlock()
	if kick {
		q.kick()
	}
	return nil
}

// join returns the batch to add a request to. If kick is set, the caller must kick after it has released mu. The caller
// must hold mu.
func (q *queue) join(urgent bool) (b *batch, kick bool) {
	b = q.next
	b.joined++
	b.urgent = b.urgent || urgent
	kick = b.joined == 1
	if q.want > 0 && (b.urgent || b.joined >= q.want) {
		q.want, kick = 0, true
	}
	return b, kick
}

// waiting returns the number of requests in the next batch.
func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next.joined
}

// gather reports whether the next batch should wait for more requests. If so, wake gets a token once it has want of
// them, or an urgent one.
func (q *queue) gather(want int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next.joined == 0 || q.next.joined >= want || q.next.urgent || q.closed || q.broken != nil {
		return false
	}
	q.want = want
	return true
}

// kick wakes the committer, or makes it run once more after its current work.
func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the batch that callers have joined so far, nil if none has. The next callers join spare, or a new batch
// if spare is nil.
func (q *queue) take(spare *batch) *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	b := q.next
	if b.joined == 0 {
		return nil
	}
	q.want = 0
	if q.next = spare; spare == nil {
		q.next = new(batch)
	}
	return b
}

// refused returns the reason why nothing can be made durable, or nil. The caller must hold mu.
func (q *queue) refused() error {
	switch {
	case q.closed:
		return ErrClosed
	case q.broken != nil:
		return unavailable(q.broken)
	}
	return nil
}

// refusal returns the error that a request would get now, or nil.
func (q *queue) refusal() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.refused()
}

// fail refuses requests from now on. Only the first cause is recorded; first reports whether this is the first.
func (q *queue) fail(cause error) (first bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broken != nil {
		return false
	}
	q.broken, q.outage = cause, outage{time.Now(), cause}
	return true
}

// outage is a time in which nothing can be made durable.
type outage struct {
	since time.Time // zero: there was none
	cause error     // the first one
}

// takeOutage returns the outage that began last, once.
func (q *queue) takeOutage() outage {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := q.outage
	q.outage = outage{}
	return last
}

// setCause replaces the cause; nil means that requests are accepted again.
func (q *queue) setCause(cause error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = cause
}

// cause returns why nothing can be made durable, nil if it can.
func (q *queue) cause() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.broken
}

// close refuses all requests from now on. Those that have joined are still committed.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
