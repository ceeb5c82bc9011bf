package probe

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var everySecond = Policy{
	Interval: time.Second, Timeout: 400 * time.Millisecond, Missed: 3, Lateness: 100 * time.Millisecond,
}

// serve runs a scheduler until the test ends.
func serve(t *testing.T) *Scheduler {
	t.Helper()
	s := NewScheduler()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.Serve(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// told collects results with the time at which they were told.
type told struct {
	mu      sync.Mutex
	epoch   time.Time
	results []Result
	at      []time.Duration
}

func (l *told) add(_ context.Context, r Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.results = append(l.results, r)
	l.at = append(l.at, time.Since(l.epoch))
}

func healthy(context.Context) error { return nil }

func TestChecksAreSpreadOverPhases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t)
		list := told{epoch: time.Now()}
		for range 2 * phases {
			s.Add(everySecond, healthy, list.add)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		perInstant := map[time.Duration]int{}
		for _, at := range list.at {
			perInstant[at]++
		}
		for i := range phases {
			if at := time.Second * time.Duration(i) / phases; i > 0 && perInstant[at] != 2 {
				t.Errorf("at %s %d checks are made, want 2 of %v", at, perInstant[at], list.at)
			}
		}
		if len(list.at) != 2*phases {
			t.Errorf("%d checks in the first interval, want each of %d once", len(list.at), 2*phases)
		}
	})
}

func TestCheckEndsAtItsTimeoutAndNoneIsMadeMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		var asked atomic.Int32
		c := s.Add(everySecond, func(ctx context.Context) error {
			asked.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}, list.add)
		time.Sleep(time.Second + 200*time.Millisecond)
		c.Now()
		synctest.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("%d checks at a time", n)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []time.Duration{1400 * time.Millisecond}; !slices.Equal(list.at, want) ||
			!errors.Is(list.results[0].Err, context.DeadlineExceeded) || list.results[0].Late {
			t.Errorf("told %+v at %v, want one timeout in time", list.results, list.at)
		}
	})
}

func TestResultThatComesLateIsMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		s.Add(everySecond, func(context.Context) error {
			time.Sleep(everySecond.Timeout + 2*everySecond.Lateness) // as on a machine that does not run this goroutine
			return errors.New("no answer")
		}, list.add)
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if len(list.results) != 1 || !list.results[0].Late {
			t.Errorf("told %+v, want a late one", list.results)
		}
	})
}

func TestCheckBesidesTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		c := s.Add(everySecond, healthy, list.add)
		c.Now()
		time.Sleep(time.Second)
		synctest.Wait()
		if want := []time.Duration{0, time.Second}; !slices.Equal(list.at, want) ||
			!list.results[0].Extra || list.results[1].Extra {
			t.Errorf("told %+v at %v, want an extra one first", list.results, list.at)
		}
	})
}

func TestCheckKnowsItsLastAnswerAndItsNextTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		var failure atomic.Pointer[error]
		c := s.Add(everySecond, func(context.Context) error { return *failure.Load() }, list.add)
		want := func(err error, at, due time.Duration) {
			t.Helper()
			last := c.Last()
			if last == nil || !errors.Is(last.Err, err) || !last.At.Equal(list.epoch.Add(at)) {
				t.Errorf("the last answer is %+v, want %v after %s", last, err, at)
			}
			if got := c.Due().Sub(list.epoch); got != due {
				t.Errorf("the next check is due after %s, want %s", got, due)
			}
		}
		if c.Last() != nil {
			t.Errorf("there is an answer before the first check: %+v", c.Last())
		}
		broken := errors.New("broken")
		failure.Store(new(broken))
		time.Sleep(1500 * time.Millisecond)
		synctest.Wait()
		want(broken, time.Second, 2*time.Second)
		failure.Store(new(error))
		time.Sleep(time.Second)
		synctest.Wait()
		want(nil, 2*time.Second, 3*time.Second)
		c.Note(broken)
		want(broken, 2500*time.Millisecond, 3*time.Second)
		c.Stop()
		if due := c.Due(); !due.IsZero() {
			t.Errorf("a stopped check is due at %s", due)
		}
	})
}

func TestPaceOfACheckChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		p := Policy{Interval: 5 * time.Second, Timeout: 2 * time.Second, Lateness: time.Second}
		c := s.Add(p, healthy, list.add)
		s.Add(p, healthy, func(context.Context, Result) {}) // another one, whose pace stays
		time.Sleep(6500 * time.Millisecond)
		c.Pace(time.Second)
		time.Sleep(3 * time.Second)
		c.Pace(time.Hour) // longer than its interval
		time.Sleep(6 * time.Second)
		c.Pace(time.Second)
		c.Pace(0)
		time.Sleep(5 * time.Second)
		c.Stop()
		c.Pace(time.Second)
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []time.Duration{5, 7, 8, 9, 10, 15, 20}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(list.at, want) {
			t.Errorf("checked at %v, want %v", list.at, want)
		}
	})
}

// A check that takes longer than its pace is made once at a time, and again soon after it has ended.
func TestPaceIsNotThatOfSlowChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		p := Policy{Interval: 5 * time.Second, Timeout: 2500 * time.Millisecond, Lateness: time.Second}
		var asked atomic.Int32
		c := s.Add(p, func(ctx context.Context) error {
			if asked.Add(1) > 1 {
				t.Error("two checks at a time")
			}
			<-ctx.Done()
			asked.Add(-1)
			return ctx.Err()
		}, list.add)
		c.Pace(time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		want := []time.Duration{3500, 6500, 9500}
		for i := range want {
			want[i] *= time.Millisecond
		}
		if !slices.Equal(list.at, want) {
			t.Errorf("told at %v, want %v", list.at, want)
		}
	})
}

func TestStoppedCheckIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		idle := s.Add(everySecond, healthy, list.add)
		running := s.Add(everySecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, list.add)
		running.Now()
		synctest.Wait()
		idle.Stop()
		running.Stop()
		running.Stop()
		idle.Now()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(list.results) != 0 {
			t.Errorf("told %+v", list.results)
		}
	})
}

func TestIdleChecksHaveNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, list := serve(t), told{epoch: time.Now()}
		synctest.Wait()
		before := runtime.NumGoroutine()
		for range 1000 {
			s.Add(everySecond, healthy, list.add)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if after := runtime.NumGoroutine(); after > before+1 { // the one of a test beside this one at most
			t.Errorf("%d goroutines with a thousand idle checks, %d without", after, before)
		}
		if n := len(list.results); n < 9*1000 {
			t.Errorf("%d checks in 10 s, want about 10,000", n)
		}
	})
}
