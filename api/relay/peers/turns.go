package peers

import (
	"slices"
	"sync"
	"time"
)

// turnEvery is the interval at which the waiting connections of an overdrawn peer take turns to begin a call.
const turnEvery = 2 * time.Millisecond

// turns is the queue of the connections of a peer that wait. The first of them gets its turn every turnEvery.
type turns struct {
	mu      sync.Mutex
	waiting []turn // each at most once, the longest waiting one first
	timer   *time.Timer
}

// turn receives a token when the wait of a connection is over. It holds at most one.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// give ends the current wait of the connection, or its next one. It does not block.
func (t turn) give() {
	select {
	case t <- struct{}{}:
	default:
	}
}

// await waits for a turn. It returns early if the wait is interrupted.
func (s *turns) await(t turn) {
	s.mu.Lock()
	s.waiting = append(s.waiting, t)
	if len(s.waiting) == 1 {
		s.schedule()
	}
	s.mu.Unlock()
	<-t
	s.mu.Lock()
	s.waiting = slices.DeleteFunc(s.waiting, func(w turn) bool { return w == t }) // if it was interrupted
	s.mu.Unlock()
}

// schedule schedules the turn of the first connection in the queue. s.mu is held.
func (s *turns) schedule() {
	if s.timer == nil {
		s.timer = time.AfterFunc(turnEvery, s.next)
	} else {
		s.timer.Reset(turnEvery)
	}
}

// next gives the first connection in the queue its turn.
func (s *turns) next() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) == 0 {
		return
	}
	s.waiting[0].give()
	s.waiting = slices.Delete(s.waiting, 0, 1)
	if len(s.waiting) > 0 {
		s.schedule()
	}
}
