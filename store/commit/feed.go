package commit

import "sync"

// feed has the number of the newest event that is durable, and announces each growth. The committer publishes, any
// goroutine may read.
type feed struct {
	mu    sync.Mutex
	last  uint64
	grown chan struct{} // closed at the next growth; nil if no reader waits
}

// publish makes last the number of the newest event. It blocks for no reader.
func (f *feed) publish(last uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if last == f.last {
		return
	}
	f.last = last
	if f.grown != nil {
		close(f.grown)
		f.grown = nil
	}
}

// read returns the number of the newest event, and a channel that is closed when there is a newer one.
func (f *feed) read() (last uint64, grown <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.grown == nil {
		f.grown = make(chan struct{})
	}
	return f.last, f.grown
}
