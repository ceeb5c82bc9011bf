package store

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statedir"
)

// told receives the outcome of a count.
type told chan error

func (c told) Counted(err error) { c <- err }

// countNow counts one request and waits for the outcome.
func countNow(db *DB) error {
	c := make(told, 1)
	db.Count(c)
	return <-c
}

var syncModes = map[string]SyncMode{"always": SyncAlways, "interval": SyncInterval}

func TestCountIsToldWhenItIsCounted(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir, Options{Sync: mode})
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					for range 10 {
						if err := countNow(db); err != nil {
							t.Error(err)
						}
						add(t, db, 1)
					}
				})
			}
			wg.Wait()
			if got := db.Processed(); got != 1000 {
				t.Errorf("processed %d, want 1000", got)
			}
			mustClose(t, db)
			if s := checkFiles(t, dir); s.Processed != 1000 {
				t.Errorf("on the disk %d, want 1000", s.Processed)
			}
		})
	}
}

// A count is in the file before its caller is notified, so that it survives the process.
func TestWhatIsToldIsInTheFile(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir, Options{Sync: mode})
			for n := range int64(20) {
				if err := countNow(db); err != nil {
					t.Fatal(err)
				}
				if r, err := counterfile.Read(
					filepath.Join(dir, statedir.CounterName),
				); err != nil || r.Newest.Processed != n+1 {
					t.Fatalf("in the file %d, %v, want %d", r.Newest.Processed, err, n+1)
				}
			}
		})
	}
}

// inOrder records the order of the notifications.
type inOrder struct {
	n     int
	turns *[]int
	wg    *sync.WaitGroup
}

func (o inOrder) Counted(error) {
	*o.turns = append(*o.turns, o.n) // no lock: one goroutine delivers all notifications
	o.wg.Done()
}

func TestCountsAreToldInOrderByOneGoroutine(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			db := openTest(t, t.TempDir(), Options{Sync: mode})
			var turns []int
			var wg sync.WaitGroup
			const all = 2000
			wg.Add(all)
			for n := range all {
				db.Count(inOrder{n, &turns, &wg})
			}
			wg.Wait()
			for i, n := range turns {
				if i != n {
					t.Fatalf("turn %d was that of %d", i, n)
				}
			}
		})
	}
}

// again counts again from within its notification.
type again struct {
	db   *DB
	left int
	done chan struct{}
}

func (a *again) Counted(err error) {
	if a.left--; err != nil || a.left == 0 {
		close(a.done)
		return
	}
	a.db.Count(a)
}

func TestCountFromWhereItIsTold(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			db := openTest(t, t.TempDir(), Options{Sync: mode})
			a := &again{db, 20, make(chan struct{})}
			db.Count(a)
			<-a.done
			if got := db.Processed(); a.left != 0 || got != 20 {
				t.Errorf("%d left, processed %d, want 0 and 20", a.left, got)
			}
		})
	}
}

// The caller may hold a lock that its notification takes, even if the count fails at once.
func TestCountIsNotToldByItsCaller(t *testing.T) {
	for name, mode := range syncModes {
		for _, closed := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				db := openTest(t, t.TempDir(), Options{Sync: mode})
				if closed {
					mustClose(t, db)
				}
				var mu sync.Mutex
				c := make(chan error)
				mu.Lock()
				for range 3 {
					db.Count(locking{&mu, c})
				}
				mu.Unlock()
				for range 3 {
					if err := <-c; closed != errors.Is(err, ErrClosed) || !closed && err != nil {
						t.Errorf("closed %t: %v", closed, err)
					}
				}
			})
		}
	}
}

type locking struct {
	mu *sync.Mutex
	c  chan error
}

func (l locking) Counted(err error) {
	l.mu.Lock()
	l.mu.Unlock() //nolint:staticcheck // it was free, that is all
	l.c <- err
}

// A write in progress delays neither the callers nor the notifications of the previous write.
func TestCountWaitsForNoWrite(t *testing.T) {
	hold, held := make(chan struct{}), make(chan struct{})
	first := make(chan struct{})
	var syncs atomic.Int32
	db := openSeams(t, t.TempDir(), Options{}, seams{steps: migrations.All, at: func(moment string) error {
		if moment != "count-sync" {
			return nil
		}
		switch syncs.Add(1) {
		case 1:
			close(first)
		case 2:
			close(held)
			<-hold
		}
		return nil
	}})
	slow := make(told) // unbuffered: the teller blocks until this test receives
	db.Count(slow)
	second := make(told, 1)
	<-first // so that the second count is in a batch of its own
	db.Count(second)
	<-held // the second write has begun although the notification of the first count is still blocked
	third := make(told, 1)
	db.Count(third)
	if err := <-slow; err != nil {
		t.Error(err)
	}
	select {
	case err := <-second:
		t.Errorf("told before it was durable: %v", err)
	default:
	}
	close(hold)
	for _, c := range []told{second, third} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
}

func TestCountWhileNothingCanBeWritten(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a acts
				db := openSeams(t, t.TempDir(), Options{Sync: mode}, a.seams())
				a.set("count", syscall.ENOSPC)
				a.set("rewrite-write", syscall.ENOSPC)
				for range 3 {
					if err := countNow(db); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) {
						t.Errorf("%v, want ErrUnavailable and the cause", err)
					}
					time.Sleep(time.Second)
				}
				a.set("count", nil)
				a.set("rewrite-write", nil)
				time.Sleep(longestRepairDelay)
				synctest.Wait()
				if err := countNow(db); err != nil || db.Processed() != 1 {
					t.Errorf("processed %d, %v, want 1", db.Processed(), err)
				}
			})
		})
	}
}

// Each caller is notified once, and the final count is the number of successful notifications.
func TestCountsAroundClose(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir, Options{Sync: mode})
			var ok, refused atomic.Int64
			var wg sync.WaitGroup
			begun := make(chan struct{}, 8)
			for range cap(begun) {
				wg.Go(func() {
					begun <- struct{}{}
					for {
						err := countNow(db)
						if err == nil {
							ok.Add(1)
							continue
						}
						if refused.Add(1); !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				})
			}
			for range cap(begun) {
				<-begun
			}
			mustClose(t, db)
			wg.Wait()
			if s := checkFiles(t, dir); s.Processed != ok.Load() || refused.Load() != int64(cap(begun)) {
				t.Errorf("on the disk %d, %d were told so; %d refused", s.Processed, ok.Load(), refused.Load())
			}
			r, err := counterfile.Read(filepath.Join(dir, statedir.CounterName))
			if err != nil || r.Newest.Processed != ok.Load() {
				t.Errorf("%s: %d, %v", statedir.CounterName, r.Newest.Processed, err)
			}
		})
	}
}

// repeated can be notified any number of times.
type repeated struct{ done chan struct{} }

func (o *repeated) Counted(error) { o.done <- struct{}{} }

func TestCountAllocatesNothing(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("counting what is covered allocates")
	}
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			db := openTest(t, t.TempDir(), Options{Sync: mode})
			o := &repeated{make(chan struct{}, 64)}
			// The path check after each write and the fold once a second allocate, but they belong to the write,
			// which 64 counts share.
			got := testing.AllocsPerRun(20, func() {
				for range 64 {
					db.Count(o)
				}
				for range 64 {
					<-o.done
				}
			})
			t.Logf("%.2f allocations for 64 counts", got)
			if got >= 64 {
				t.Errorf("%.2f allocations for 64 counts", got)
			}
		})
	}
}
