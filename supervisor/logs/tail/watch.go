package tail

import (
	"path/filepath"
	"sync"
)

// change is the change of a worker's log.
type change struct {
	worker   string
	replaced bool // another file may have its path
}

// subscription is told of changes of some logs.
type subscription struct {
	wake chan struct{} // has room for one: there is something to take

	mu      sync.Mutex
	wanted  map[string]string // worker of a log, by the file's name
	changed []change          // in the order of the first one of each worker since the last take
	index   map[string]int    // of the workers in changed
}

func newSubscription(sources []Source) *subscription {
	s := &subscription{wake: make(chan struct{}, 1), wanted: map[string]string{}, index: map[string]int{}}
	for _, source := range sources {
		s.wanted[filepath.Base(source.Path)] = source.Worker
	}
	return s
}

// join adds a log.
func (s *subscription) join(source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted[filepath.Base(source.Path)] = source.Worker
}

// take returns the changes since the last call.
func (s *subscription) take() []change {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.changed
	s.changed = nil
	clear(s.index)
	return changed
}

// note notes the change of files.
func (s *subscription) note(names []fileChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range names {
		if worker, wanted := s.wanted[c.name]; wanted {
			s.add(change{worker, c.replaced})
		}
	}
}

// noteAll notes that any file may have changed.
func (s *subscription) noteAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, worker := range s.wanted {
		s.add(change{worker, true})
	}
}

// add adds a change. The caller holds mu.
func (s *subscription) add(c change) {
	if i, known := s.index[c.worker]; known {
		s.changed[i].replaced = s.changed[i].replaced || c.replaced
		return
	}
	s.index[c.worker] = len(s.changed)
	s.changed = append(s.changed, c)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// subscribe returns a subscription to the logs. The first one starts a watcher, which the last one ends.
func (h *Hub) subscribe(sources []Source) (*subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher == nil {
		w, err := watchFolder(h.dir)
		if err != nil {
			return nil, err
		}
		h.watcher = w
	}
	s := newSubscription(sources)
	h.watcher.put(s)
	return s, nil
}

func (h *Hub) unsubscribe(s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watcher.remove(s) == 0 {
		h.watcher.stop()
		h.watcher = nil
	}
}

// subscriptions are those of one watcher.
type subscriptions struct {
	mu  sync.Mutex
	all map[*subscription]bool
}

func (s *subscriptions) put(one *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*subscription]bool{}
	}
	s.all[one] = true
}

// remove returns the number of subscriptions that are left.
func (s *subscriptions) remove(one *subscription) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, one)
	return len(s.all)
}

// fileChange is the change of a file, by its name.
type fileChange struct {
	name     string
	replaced bool
}

// note notes the change of files.
func (s *subscriptions) note(names []fileChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.all {
		one.note(names)
	}
}

// noteAll notes that any file may have changed.
func (s *subscriptions) noteAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.all {
		one.noteAll()
	}
}
