package services

// Wait has ready called, once and from another goroutine, when [Service.Lease] may succeed or has become hopeless.
// cancel takes that back: ready is not called after it has returned true. It fails with [ErrBusy] where as many wait
// as may. Who is called first has waited longest.
//
// ready must not block: it holds up those who came later. Who was given endpoints already and will not take those again
// does not wait: it would be called at once, for one of these.
func (s *Service) Wait(ready func()) (cancel func() bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := maxWaiting
	if limit := s.policy.MaxInFlight; limit > 0 {
		most = min(most, limit-s.inFlight) // each is to find room when it is called
	}
	if s.waiting.Len() >= most {
		return nil, ErrBusy
	}
	place := s.waiting.PushBack(ready)
	// What was not so when Lease failed may be so now.
	s.release()
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if place.Value == nil {
			return false
		}
		s.waiting.Remove(place)
		place.Value = nil
		return true
	}, nil
}

// Paused says that n calls more, or fewer, wait elsewhere: for a moment, after which they try all endpoints again.
func (s *Service) Paused(n int) { s.paused.Add(int64(n)) }

// release has those called who wait, where that may be of use. It is called with s.mu held.
func (s *Service) release() {
	if s.waiting.Len() == 0 {
		return
	}
	s.again = true
	if !s.releasing {
		s.releasing = true
		go s.call()
	}
}

// call calls those who wait, one by one, for as long as there is an endpoint and room for them, or there is no hope.
func (s *Service) call() {
	for {
		s.mu.Lock()
		s.again = false
		ready := s.nextWaiting(s.leasable())
		s.mu.Unlock()
		if ready == nil {
			hopeless := s.hopeless() != nil
			s.mu.Lock()
			if ready = s.nextWaiting(hopeless); ready == nil && !s.again {
				s.releasing = false
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
		}
		if ready != nil {
			ready()
		}
	}
}

// leasable tells that Lease would succeed.
func (s *Service) leasable() bool { return len(s.ready) > 0 && !s.full() }

// nextWaiting takes the first out of the queue, where it may go.
func (s *Service) nextWaiting(may bool) func() {
	first := s.waiting.Front()
	if !may || first == nil {
		return nil
	}
	ready, _ := first.Value.(func())
	s.waiting.Remove(first)
	first.Value = nil
	return ready
}
