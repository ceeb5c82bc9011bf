package process

import (
	"context"
	"runtime"
	"sync"
)

// sharing lets all who ask at the same time share an answer. One that was begun
// before is too old for who asks now: what the question is about may have come to
// be since, where the answer had gone past it.
type sharing[T any] struct {
	ask func() (T, error) // bounded by itself

	mu      sync.Mutex
	running bool
	next    *sharedAnswer[T]
}

type sharedAnswer[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func (s *sharing[T]) take(ctx context.Context) (T, error) {
	var none T
	if ctx.Err() != nil { // else an answer that is ready at once would win now and then
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

// run asks until nobody waits for an answer. It ends by itself soon after.
func (s *sharing[T]) run() {
	for {
		// Whoever is about to ask comes first, so that fewer answers serve more.
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
