package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestCollectSeldom(t *testing.T) {
	t.Setenv("GOGC", "") // has it restored
	if err := os.Unsetenv("GOGC"); err != nil {
		t.Fatal(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(usualGCPercent))
	synctest.Test(t, func(t *testing.T) {
		stop := collectSeldom()
		if got := gcPercent(); got != startGCPercent {
			t.Errorf("at the start: %d, want %d", got, startGCPercent)
		}
		time.Sleep(startTime)
		synctest.Wait()
		if got := gcPercent(); got != usualGCPercent {
			t.Errorf("after the start: %d, want %d", got, usualGCPercent)
		}
		stop()
		collectSeldom()()
		if got := gcPercent(); got != usualGCPercent {
			t.Errorf("after a short run: %d, want %d", got, usualGCPercent)
		}
	})
}

func gcPercent() int {
	now := debug.SetGCPercent(usualGCPercent)
	debug.SetGCPercent(now)
	return now
}

func TestPacer(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(usualGCPercent))
	synctest.Test(t, func(t *testing.T) {
		p := &pacer{live: func() uint64 { return 1 << 20 }}
		collect := func(n int, every time.Duration) {
			for range n {
				time.Sleep(every)
				if !p.collected() {
					t.Fatal("the pacer needs no further call, although it is not stopped")
				}
			}
		}
		want := func(when string, busy bool) {
			t.Helper()
			synctest.Wait()
			if got := gcPercent(); (got > usualGCPercent) != busy {
				t.Errorf("%s: %d, want busy %t", when, got, busy)
			}
		}
		collect(5*burst, burstTime/burst)
		want("collections that are seldom", false)
		collect(burst+1, burstTime/(burst+1))
		want("a burst", true)
		collect(5, calmTime-1)
		want("collections that a busy master needs", true)
		time.Sleep(calmTime)
		want("none any more", false)
		collect(burst, 0)
		want("those of returnMemory and a few others", false)
		collect(1, 0)
		want("another burst", true)
		p.stop()
		if p.collected() {
			t.Error("a stopped pacer needs further calls")
		}
	})
}

func TestBusyTarget(t *testing.T) {
	for live, want := range map[uint64]int{
		0: busyGCPercent, 1 << 20: busyGCPercent, 4 << 20: busyGCPercent, 8 << 20: 200, 10 << 20: 150,
		32 << 20: usualGCPercent, 1 << 40: usualGCPercent,
	} {
		if got := busyTarget(live); got != want {
			t.Errorf("with %d bytes in use: %d, want %d", live, got, want)
		}
	}
	runtime.GC()
	if live := liveHeap(); live < 1<<10 || live > 1<<30 {
		t.Errorf("%d bytes in use: not those of a test", live)
	}
}

func TestAfterCollections(t *testing.T) {
	const want = 3
	calls := make(chan int, want+1)
	count := 0
	afterCollections(func() bool {
		count++
		calls <- count
		return count < want
	})
	limit := time.After(time.Minute)
	for seen := 0; seen < want; {
		runtime.GC()
		select {
		case seen = <-calls:
		case <-limit:
			t.Fatalf("called %d times, want %d", seen, want)
		case <-time.After(10 * time.Millisecond): // the call follows the collection; another does no harm
		}
	}
	for range 2 {
		runtime.GC()
	}
	select {
	case <-calls:
		t.Error("called although it wanted no further call")
	case <-time.After(50 * time.Millisecond):
	}
}

func TestCollectSeldomAsTheUserWishes(t *testing.T) {
	t.Setenv("GOGC", "70")
	defer debug.SetGCPercent(debug.SetGCPercent(70))
	stop := collectSeldom()
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("during the start: %d, want that of GOGC", got)
	}
	stop()
	if got := debug.SetGCPercent(70); got != 70 {
		t.Errorf("after it: %d, want that of GOGC", got)
	}
}
