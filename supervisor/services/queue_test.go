package services

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/internal/fair"
)

// line records the order in which waiters are called.
type line struct {
	mu     sync.Mutex
	called []int
}

func (l *line) wait(t *testing.T, s *Service, who int) (cancel func() bool) {
	t.Helper()
	cancel, err := s.Wait(fair.Client{}, func(error) {
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
		late := l.wait(t, s, 5) // an endpoint is ready meanwhile
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
		if _, err := s.Wait(fair.Client{}, func(error) {}); !errors.Is(err, ErrBusy) {
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
		if _, err := s.Wait(fair.Client{}, func(error) {}); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v, want ErrBusy", err)
		}
		r.Offer("worker-0") // so that the waiters are called
		synctest.Wait()
		if n := s.Info().Waiting; n != 0 {
			t.Errorf("%d still wait for what nobody offers", n)
		}
	})
}

// A client that has filled the queue gives way to others: they are called in turn with it, and its last call is
// refused.
func TestClientWithMostWaitingGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry()
		r.Offer("worker-0", echo)
		s := r.Service(echo)
		var mu sync.Mutex
		var called, refused []string
		wait := func(peer, name string) error {
			_, err := s.Wait(fair.Client{Peer: peer, Conn: peer}, func(err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					called = append(called, name)
				} else if refused = append(refused, name); !errors.Is(err, ErrBusy) {
					t.Errorf("%s: %v, want ErrBusy", name, err)
				}
			})
			return err
		}
		for i := range maxWaiting {
			if err := wait("greedy", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := wait("greedy", "one more"); !errors.Is(err, ErrBusy) {
			t.Errorf("one more: %v, want ErrBusy", err)
		}
		for _, name := range []string{"a", "b"} {
			if err := wait("other", name); err != nil {
				t.Errorf("another client: %v", err)
			}
		}
		synctest.Wait()
		if n := s.Info().Waiting; n != maxWaiting {
			t.Errorf("%d wait, want %d", n, maxWaiting)
		}
		if want := []string{fmt.Sprint(maxWaiting - 1), fmt.Sprint(maxWaiting - 2)}; !slices.Equal(refused, want) {
			t.Errorf("refused: %v, want %v", refused, want)
		}
		r.Add(&Endpoint{Address: "127.0.0.1:1"}, echo)
		synctest.Wait()
		if want := []string{"0", "a", "1", "b", "2", "3"}; len(called) != maxWaiting ||
			!slices.Equal(called[:len(want)], want) {
			t.Errorf("%d called, want %d; the first: %v, want %v",
				len(called), maxWaiting, called[:min(len(called), len(want))], want)
		}
	})
}

// A waiting call takes one of the places under the limit, and one client must leave some of these to others.
func TestWaitingCallsCountForTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		r := New(Options{Policies: map[string]Policy{echo: {MaxInFlight: limit}}})
		r.Offer("worker-0", echo)
		s := r.Service(echo)
		var leases []Pick // appended to by one goroutine, which is blocked when the test reads it
		displaced := 0
		wait := func(peer string) error {
			client := fair.Client{Peer: peer}
			_, err := s.Wait(client, func(err error) {
				if err != nil {
					displaced++
					return
				}
				l, err := s.Pick(client, "")
				if err != nil {
					t.Errorf("a call that has waited: %v", err)
				}
				leases = append(leases, l)
			})
			return err
		}
		calls := 0
		for wait("greedy") == nil {
			calls++
		}
		if calls < limit*9/10 || calls >= limit {
			t.Errorf("one client has %d of %d places in the queue", calls, limit)
		}
		for wait("other") == nil {
			calls++
		}
		synctest.Wait()
		if calls -= displaced; displaced < limit/3 {
			t.Errorf("another client has displaced %d calls, want nearly half", displaced)
		}
		if calls < limit-2 || calls > limit {
			t.Errorf("%d calls wait, want all %d or nearly so", calls, limit)
		}
		r.Add(&Endpoint{Address: "127.0.0.1:1"}, echo)
		synctest.Wait()
		if n := len(leases); n < limit-10 {
			t.Errorf("%d of %d calls have gone on", n, calls)
		}
		for i := 0; i < len(leases); i++ {
			leases[i].End(Outcome{})
			synctest.Wait()
		}
		if n := len(leases); n != calls {
			t.Errorf("%d of %d calls have gone on when others had ended", n, calls)
		}
	})
}

// One client leaves places under the limit to others, and one of its connections leaves some to its other
// connections.
func TestLimitIsShared(t *testing.T) {
	const limit = 100
	_, s, _ := withEndpoints(2, Policy{MaxInFlight: limit})
	begin := func(peer, conn string) (n int) {
		for {
			if _, err := s.Pick(fair.Client{Peer: peer, Conn: conn}, ""); err != nil {
				if !errors.Is(err, ErrBusy) {
					t.Error(err)
				}
				return n
			}
			n++
		}
	}
	if n := begin("greedy", "a"); n < limit*9/10 || n >= limit {
		t.Errorf("one connection has %d of %d calls", n, limit)
	}
	if begin("greedy", "b") == 0 {
		t.Error("another connection of the client has none")
	}
	if begin("other", "c") == 0 {
		t.Error("another client has none")
	}
}

func TestThoseWhoWaitAreCalledWhenThereIsNoHope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var gone error
		reason := errors.New("all workers have failed")
		r := New(Options{Hopeless: func(name string) error {
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
		l.want(t) // no change was announced
		r.Reconsider()
		l.want(t, 0, 1)
		if _, err := s.Pick(fair.Client{}, ""); !errors.Is(err, ErrHopeless) || !errors.Is(err, reason) {
			t.Errorf("Lease = %v, want ErrHopeless and why", err)
		}
		l.wait(t, s, 2)
		l.want(t, 0, 1, 2)
	})
}
