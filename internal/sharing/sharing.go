// Package sharing lets concurrent callers share one answer.
package sharing

import (
	"context"
	"runtime"
	"sync"
)

// Question is asked once for all concurrent callers. A caller never gets an answer that was begun before its call:
// such an answer may miss things that appeared since.
type Question[T any] struct {
	Ask func() (T, error) // must end by itself

	mu      sync.Mutex
	running bool
	next    *answer[T]
}

type answer[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// Answer returns an answer that was begun after the call, or the cause why ctx is done.
func (q *Question[T]) Answer(ctx context.Context) (T, error) {
	var none T
	if ctx.Err() != nil { // otherwise select could choose an answer that is ready
		return none, context.Cause(ctx)
	}
	q.mu.Lock()
	found := q.next
	if found == nil {
		found = &answer[T]{done: make(chan struct{})}
		q.next = found
	}
	if !q.running {
		q.running = true
		go q.run()
	}
	q.mu.Unlock()
	select {
	case <-found.done:
		return found.value, found.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// run calls Ask until no caller waits for an answer, and then returns.
func (q *Question[T]) run() {
	for {
		// Let callers that are about to ask run first, so that one answer serves more of them.
		runtime.Gosched()
		q.mu.Lock()
		found := q.next
		q.next = nil
		if found == nil {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		found.value, found.err = q.Ask()
		close(found.done)
	}
}
