package process

import (
	"context"
	"runtime"
	"sync"
)

// sharing lets concurrent callers share one answer. A caller never gets an answer that was begun before its call:
// such an answer may miss things that appeared since.
type sharing[T any] struct {
	ask func() (T, error) // must end by itself

	mu      sync.Mutex
	running bool
	next    *sharedAnswer[T]
}

type sharedAnswer[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// get returns an answer that was begun after the call, or the cause why ctx is done.
func (s *sharing[T]) get(ctx context.Context) (T, error) {
	var none T
	if ctx.Err() != nil { // otherwise select could choose an answer that is ready
		return none, context.Cause(ctx)
	}
	s.mu.Lock()
	answer := s.next
	if answer == nil {
		answer = &sharedAnswer[T]{done: make(chan struct{})}
		s.next = answer
	}
	if !s.running {
		s.running = true
		go s.run()
	}
	s.mu.Unlock()
	select {
	case <-answer.done:
		return answer.value, answer.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// run calls ask until no caller waits for an answer, and then returns.
func (s *sharing[T]) run() {
	for {
		// Let callers that are about to ask run first, so that one answer serves more of them.
		runtime.Gosched()
		s.mu.Lock()
		answer := s.next
		s.next = nil
		if answer == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		answer.value, answer.err = s.ask()
		close(answer.done)
	}
}
