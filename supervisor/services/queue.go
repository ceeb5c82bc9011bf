package services

import "github.com/core-tools/hsu-master/internal/fair"

// Wait queues a call. It has ready called once, from another goroutine: with nil when [Service.Pick] may succeed
// or waiting has become hopeless, or with [ErrBusy] when the call has lost its place in the queue to a client with
// fewer calls. If cancel returns true, ready is not called.
//
// Wait returns [ErrBusy] if the queue is full and no client has more calls in it than this one, or if the policy's
// limit leaves no place for another call of this client. Clients take turns; the calls of one client are served in
// order.
//
// ready must not block, because it delays the calls behind it. A call that has already tried endpoints must not
// wait: ready would be called at once, for an endpoint already tried.
func (s *Service) Wait(client fair.Client, ready func(error)) (cancel func() bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := maxWaiting
	if limit := s.policy.MaxInFlight; limit > 0 {
		most = min(most, limit-s.inFlight) // each must find room when it is called
	}
	switch {
	case s.waiting.Len() > most:
		return nil, ErrBusy
	case s.waiting.Len() == most:
		displaced, ok := s.waiting.Displace(client)
		if !ok {
			return nil, ErrBusy
		}
		s.displaced = append(s.displaced, displaced)
	case s.verdict(client, s.waiting.Len(), s.waiting.Held(client)) != fair.Granted:
		return nil, ErrBusy
	}
	place := s.waiting.Push(client, ready)
	// The state may have changed since Pick failed.
	s.release()
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.waiting.Remove(place)
	}, nil
}

// Paused adds n, which may be negative, to the number of calls that wait elsewhere: for a moment, after which they
// try all endpoints again.
func (s *Service) Paused(n int) { s.paused.Add(int64(n)) }

// release starts the goroutine that calls waiters, unless there are none. The caller holds s.mu.
func (s *Service) release() {
	if s.waiting.Len() == 0 && len(s.displaced) == 0 {
		return
	}
	s.again = true
	if !s.releasing {
		s.releasing = true
		go s.call()
	}
}

// call calls the waiters one by one while there is an endpoint and room for them, or if waiting is hopeless.
func (s *Service) call() {
	for {
		s.mu.Lock()
		displaced := s.displaced
		s.displaced, s.again = nil, false
		ready := s.nextToPick()
		s.mu.Unlock()
		for _, d := range displaced {
			d(ErrBusy)
		}
		if ready == nil {
			hopeless := s.hopeless() != nil
			s.mu.Lock()
			if hopeless {
				ready = s.nextWaiting()
			}
			if ready == nil && !s.again {
				s.releasing = false
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
		}
		if ready != nil {
			ready(nil)
		}
	}
}

// nextToPick removes the next call for which Pick would succeed from the queue, if there is one.
func (s *Service) nextToPick() func(error) {
	if len(s.ready) == 0 || s.full() {
		return nil
	}
	ready, _ := s.waiting.Next(func(c fair.Client) fair.Verdict { return s.verdict(c, 0, fair.Held{}) })
	return ready
}

// nextWaiting removes the next call from the queue.
func (s *Service) nextWaiting() func(error) {
	ready, _ := s.waiting.Next(func(fair.Client) fair.Verdict { return fair.Granted })
	return ready
}
