package worker

import (
	"sync"
	"time"
)

// After a recovery, each adopted worker is asked its first question, and has its program compared. A hundred at once
// would take the processor away from the first calls, and one by one each would cost a commit.
const (
	turnSize  = 10
	turnEvery = 20 * time.Millisecond
)

// Turns spreads the work that adopted workers leave until the master serves. Its zero value can be used. The first turn
// begins at once, and has one place: the first calls come then.
//
// Invariant: at most turnSize turns begin at the same time, and two such times are at least turnEvery apart.
type Turns struct {
	mu    sync.Mutex
	at    time.Time // of the last turn that was taken
	taken int       // turns at that time
}

// Take returns the time until the next turn that is free.
func (t *Turns) Take() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	switch {
	case t.at.Add(turnEvery).Before(now):
		t.at, t.taken = now, turnSize-1
	case t.taken == turnSize:
		t.at, t.taken = t.at.Add(turnEvery), 0
	}
	t.taken++
	return max(0, t.at.Sub(now))
}
