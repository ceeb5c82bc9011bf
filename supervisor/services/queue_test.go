package services

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// line notes in which order those are called who wait.
type line struct {
	mu     sync.Mutex
	called []int
}

func (l *line) wait(t *testing.T, s *Service, who int) (cancel func() bool) {
	t.Helper()
	cancel, err := s.Wait(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.called = append(l.called, who)
	})
	if err != nil {
		t.Fatal(err)
	}
	return cancel
}

func (l *line) want(t *testing.T, want ...int) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.called, want) {
		t.Errorf("called %v, want %v", l.called, want)
	}
}

func TestThoseWhoWaitAreCalledInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry()
		r.Offer("worker-0", echo)
		s := r.Service(echo)
		var l line
		for i := range 3 {
			l.wait(t, s, i)
		}
		cancel := l.wait(t, s, 3)
		l.wait(t, s, 4)
		l.want(t)
		if !cancel() || cancel() {
			t.Error("cancel: want true at first, and false then")
		}
		r.Add(&Endpoint{Address: "127.0.0.1:1"}, echo)
		l.want(t, 0, 1, 2, 4)
		late := l.wait(t, s, 5) // one is ready meanwhile
		l.want(t, 0, 1, 2, 4, 5)
		if late() {
			t.Error("taken back after it was called")
		}
		if n := s.Info().Waiting; n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestThoseWhoWaitAreCalledWhenThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, s, _ := withEndpoints(1, Policy{MaxInFlight: 2})
		one := lease(t, s, "")
		var l line
		l.wait(t, s, 0) // there is room for one
		l.want(t, 0)
		two := lease(t, s, "")
		if _, err := s.Wait(func() {}); !errors.Is(err, ErrBusy) {
			t.Errorf("more wait than there will be room for: %v", err)
		}
		one.End(Outcome{})
		two.End(Outcome{})
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry()
		r.Offer("worker-0", echo)
		s := r.Service(echo)
		var l line
		for i := range maxWaiting {
			l.wait(t, s, i)
		}
		if _, err := s.Wait(func() {}); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v, want ErrBusy", err)
		}
		r.Offer("worker-0") // so that they go
		synctest.Wait()
		if n := s.Info().Waiting; n != 0 {
			t.Errorf("%d still wait for what nobody offers", n)
		}
	})
}

func TestThoseWhoWaitAreCalledWhenThereIsNoHope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var gone error
		reason := errors.New("all workers have failed")
		r := With(Options{Hopeless: func(name string) error {
			mu.Lock()
			defer mu.Unlock()
			if name != echo {
				t.Errorf("asked about %s", name)
			}
			return gone
		}})
		r.Offer("worker-0", echo)
		s := r.Service(echo)
		var l line
		l.wait(t, s, 0)
		l.wait(t, s, 1)
		r.Reconsider()
		l.want(t)
		mu.Lock()
		gone = reason
		mu.Unlock()
		time.Sleep(time.Hour)
		l.want(t) // nobody has said that something changed
		r.Reconsider()
		l.want(t, 0, 1)
		if _, err := s.Lease(""); !errors.Is(err, ErrHopeless) || !errors.Is(err, reason) {
			t.Errorf("Lease = %v, want ErrHopeless and why", err)
		}
		l.wait(t, s, 2)
		l.want(t, 0, 1, 2)
	})
}
