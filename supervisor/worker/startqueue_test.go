package worker

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// With each place taken, a start waits until one is free.
func TestStartQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewStartQueue()
		var leave []func()
		for range runtime.GOMAXPROCS(0) {
			leave = append(leave, q.enter())
		}
		entered := make(chan func())
		go func() { entered <- q.enter() }()
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("a start is prepared beside as many as there are processors")
		default:
		}
		leave[0]()
		(<-entered)()
		for _, leave := range leave[1:] {
			leave()
		}
		if n := len(q.places); n != 0 {
			t.Errorf("%d places are taken at the end, want 0", n)
		}
	})
}

// Starts that are blocked block no others, however long the queue has been idle before.
func TestStartQueueBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewStartQueue()
		time.Sleep(time.Hour)
		for range runtime.GOMAXPROCS(0) {
			q.enter() // never leaves
		}
		began := time.Now()
		for range 3 {
			leave := q.enter()
			leave()
		}
		if took := time.Since(began); took != 3*stalledAfter {
			t.Errorf("three starts waited %s for blocked ones, want %s", took, 3*stalledAfter)
		}
	})
}

// While others leave, a start waits for its turn.
func TestStartQueueBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewStartQueue()
		const preparation = stalledAfter * 3 / 4
		var mu sync.Mutex
		var present, most int
		count := func(n int) {
			mu.Lock()
			defer mu.Unlock()
			present += n
			most = max(most, present)
		}
		var starts sync.WaitGroup
		for range 10 * runtime.GOMAXPROCS(0) {
			starts.Go(func() {
				leave := q.enter()
				count(1)
				time.Sleep(preparation)
				count(-1)
				leave()
			})
		}
		starts.Wait()
		if most != runtime.GOMAXPROCS(0) {
			t.Errorf("%d starts were prepared at a time, want %d", most, runtime.GOMAXPROCS(0))
		}
	})
}
