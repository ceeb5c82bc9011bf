package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
)

// acts records the durable operations and makes selected ones fail.
type acts struct {
	mu    sync.Mutex
	start time.Time
	list  []string
	fail  map[string]error
}

func (a *acts) seams() seams { return seams{steps: migrations.All, at: a.at} }

func (a *acts) at(act string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !strings.HasPrefix(act, "after-") {
		a.list = append(a.list, fmt.Sprintf("%s %v", act, time.Since(a.start)))
	}
	return a.fail[act]
}

// take returns the operations recorded so far and clears the list.
func (a *acts) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list, a.start = nil, time.Now()
	return list
}

func (a *acts) set(act string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fail == nil {
		a.fail = make(map[string]error)
	}
	a.fail[act] = err
}

// openBubble opens a store within a synctest bubble.
func openBubble(t *testing.T, mode SyncMode, a *acts) *DB {
	t.Helper()
	db := openSeams(t, t.TempDir(), Options{Sync: mode}, a.seams())
	synctest.Wait()
	a.take()
	return db
}

func TestLoneCallerWaitsForNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		db := openBubble(t, SyncAlways, &a)
		add(t, db, 1)
		if diff := cmp.Diff([]string{"count 0s", "count-sync 0s"}, a.take()); diff != "" {
			t.Error("one count:", diff)
		}
		put(t, db, records.PutWorker(fullWorker("worker-0")), records.AppendEvent(records.Event{Type: "x"}))
		if diff := cmp.Diff([]string{"commit 0s"}, a.take()); diff != "" {
			t.Error("one change:", diff)
		}
	})
}

func TestCountIsFoldedIntoTheRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		db := openBubble(t, SyncAlways, &a)
		add(t, db, 1)
		a.take()
		time.Sleep(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{"commit 1s"}, a.take()); diff != "" {
			t.Error("once, and no more while nothing comes:", diff)
		}
		if got := folded(t, db); got.Processed != 1 {
			t.Errorf("folded %d, want 1", got)
		}
	})
}

func TestIntervalSyncs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		db := openBubble(t, SyncInterval, &a)
		add(t, db, 1)
		add(t, db, 1)
		if diff := cmp.Diff([]string{"count 0s", "count 0s"}, a.take()); diff != "" {
			t.Error("two counts:", diff)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if diff := cmp.Diff([]string{"count-sync 100ms", "commit 1s"}, a.take()); diff != "" {
			t.Error("afterwards:", diff)
		}
	})
}

func TestCallersShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var commits int
		hook := func(act string) error {
			if act == "count-sync" {
				commits++
				<-release
			}
			return nil
		}
		db := openSeams(t, t.TempDir(), Options{}, seams{steps: migrations.All, at: hook})
		var wg sync.WaitGroup
		wg.Go(func() { add(t, db, 1) })
		synctest.Wait() // the first is being committed
		for range 100 {
			wg.Go(func() { add(t, db, 2) })
		}
		synctest.Wait() // all other callers have joined the next batch
		if got := db.Processed(); got != 0 {
			t.Errorf("processed %d before anything was synced", got)
		}
		close(release)
		wg.Wait()
		if commits != 2 || db.Processed() != 201 {
			t.Errorf("%d commits, processed %d, want 2 and 201", commits, db.Processed())
		}
	})
}

func TestContextBoundsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		hook := func(act string) error {
			if act == "count-sync" {
				<-release
			}
			return nil
		}
		db := openSeams(t, t.TempDir(), Options{}, seams{steps: migrations.All, at: hook})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := db.AddProcessed(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("count: %v, want a deadline", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := db.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("alive while the disk hangs: %v, want a deadline", err)
		}
		close(release)
		synctest.Wait()
		if err := db.Alive(t.Context()); err != nil || db.Processed() != 1 {
			t.Errorf("afterwards: %v, processed %d, want 1", err, db.Processed())
		}
	})
}

// longestRepairDelay is the longest delay between attempts to rewrite the state.
const longestRepairDelay = 5 * time.Second

var errDisk = errors.New("no space left on this test's device")

// TestFailedWrite makes each durable operation fail in turn, first permanently, and then lets it succeed.
func TestFailedWrite(t *testing.T) {
	for _, c := range []struct {
		act   string
		mode  SyncMode
		count bool // the failing operation is a count, otherwise a change
	}{
		{"count", SyncAlways, true},
		{"count-sync", SyncAlways, true},
		{"count", SyncInterval, true},
		{"commit", SyncAlways, false},
		{"commit", SyncInterval, false},
		// As if the sync of the meta page failed: bbolt sees the new state.
		{"after-commit", SyncAlways, false},
		{"after-commit", SyncInterval, false},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.act, c.mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				testFailedWrite(t, c.act, c.mode, c.count)
			})
		})
	}
}

func testFailedWrite(t *testing.T, act string, mode SyncMode, count bool) {
	var a acts
	var log bytes.Buffer
	dir := t.TempDir()
	db := openSeams(t, dir, Options{Sync: mode, Logger: logTo(&log)}, a.seams())
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 10)

	a.set(act, errDisk)
	a.set("repair", errDisk)
	a.take()
	var err error
	if count {
		err = db.AddProcessed(t.Context(), 1)
	} else {
		err = db.Apply(t.Context(), records.PutWorker(fullWorker("worker-1")))
	}
	isUnavailable := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, errDisk) {
			t.Errorf("%s: %v, want ErrUnavailable and the cause", what, err)
		}
	}
	isUnavailable("what failed", err)
	isUnavailable("count", db.AddProcessed(t.Context(), 1))
	isUnavailable("apply", db.Apply(t.Context(), records.DeleteWorker("worker-0")))
	if err := db.Alive(t.Context()); err != nil {
		t.Errorf("alive: %v: a full disk is no reason to be restarted", err)
	}
	if db.Processed() != 10 {
		t.Errorf("processed %d, want the acknowledged 10", db.Processed())
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	attempts := slices.DeleteFunc(a.take(), func(s string) bool { return !strings.HasPrefix(s, "repair ") })
	want := []string{
		"repair 0s", "repair 100ms", "repair 300ms", "repair 700ms",
		"repair 1.5s", "repair 3.1s", "repair 6.3s", "repair 11.3s",
	}
	if len(attempts) < len(want) {
		t.Fatalf("attempts: %v", attempts)
	}
	if diff := cmp.Diff(want, attempts[:len(want)]); diff != "" {
		t.Error("attempts:", diff)
	}

	a.set(act, nil)
	a.set("repair", nil)
	time.Sleep(longestRepairDelay)
	synctest.Wait()
	s := snapshot(t, db)
	if diff := cmp.Diff([]string{"worker-0"}, ids(s)); diff != "" || s.Processed != 10 {
		t.Errorf("after the repair: processed %d, want 10, and no more than was acknowledged: %s", s.Processed, diff)
	}
	add(t, db, 5)
	put(t, db, records.PutWorker(fullWorker("worker-2")))
	mustClose(t, db)
	s = checkFiles(t, dir)
	if diff := cmp.Diff([]string{"worker-0", "worker-2"}, ids(s)); diff != "" || s.Processed != 15 ||
		!s.Meta.CleanShutdown {
		t.Errorf("in the end: processed %d, want 15, clean %t: %s", s.Processed, s.Meta.CleanShutdown, diff)
	}
	for _, line := range []string{"state write failed", "state repair failed", "state repaired"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %q: %s", line, &log)
		}
	}
}

// If a background sync fails, acknowledgements stop as well.
func TestFailedIntervalSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		db := openBubble(t, SyncInterval, &a)
		a.set("count-sync", errDisk)
		a.set("repair", errDisk)
		add(t, db, 3)
		time.Sleep(Options{}.withDefaults().Interval)
		synctest.Wait()
		if err := db.AddProcessed(t.Context(), 1); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v, want ErrUnavailable", err)
		}
		if _, err := db.Snapshot(); err != nil {
			t.Errorf("snapshot: %v", err) // the repair has not begun, so the file is open
		}
		a.set("count-sync", nil)
		a.set("repair", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		add(t, db, 1)
		if db.Processed() != 4 {
			t.Errorf("processed %d, want 4", db.Processed())
		}
	})
}

// Close tries once more to write, and returns an error if that fails.
func TestCloseWhileUnavailable(t *testing.T) {
	var a acts
	dir := t.TempDir()
	db, err := open(dir, Options{}, a.seams())
	if err != nil {
		t.Fatal(err)
	}
	add(t, db, 4)
	a.set("count-sync", errDisk)
	a.set("repair", errDisk)
	if err := db.AddProcessed(t.Context(), 1); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if err := db.Close(); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errDisk) {
		t.Errorf("close: %v, want ErrUnavailable and the cause", err)
	}
	s := checkFiles(t, dir)
	if s.Processed < 4 || s.Processed > 5 || s.Meta.CleanShutdown {
		t.Errorf("processed %d, want 4 or 5; clean %t, want false", s.Processed, s.Meta.CleanShutdown)
	}
	openTest(t, dir, Options{}) // the lock was released
}

func TestManyCallersOfEverything(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			db := openTest(t, dir, Options{Sync: mode, MaxEvents: 10})
			const callers, calls = 8, 25
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() {
					for range calls {
						if err := db.AddProcessed(t.Context(), 2); err != nil {
							t.Error(err)
						}
					}
				})
				wg.Go(func() {
					w := fullWorker(fmt.Sprintf("worker-%d", i))
					for n := range calls {
						w.Incarnation = uint64(n + 1)
						if err := db.Apply(
							t.Context(), records.PutWorker(w), records.AppendEvent(records.Event{Worker: w.ID}),
						); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Go(func() {
				for range calls {
					s, err := db.Snapshot()
					if err != nil || len(s.Bad) > 0 || len(s.Events) > 10 {
						t.Errorf("snapshot: %v, bad %v, %d events", err, s.Bad, len(s.Events))
					}
					if err := db.Alive(t.Context()); err != nil {
						t.Error(err)
					}
					_, _ = db.Moved(), db.MasterID()
				}
			})
			backup := t.TempDir() + "/copy.db"
			wg.Go(func() {
				for range 5 {
					if err := backUpTo(db, backup); err != nil {
						t.Error(err)
					}
				}
			})
			wg.Wait()
			mustClose(t, db)
			s := checkFiles(t, dir)
			if s.Processed != 2*callers*calls {
				t.Errorf("processed %d, want %d", s.Processed, 2*callers*calls)
			}
			for _, w := range s.Workers {
				if w.Incarnation != calls {
					t.Errorf("%s: incarnation %d, want %d", w.ID, w.Incarnation, calls)
				}
			}
		})
	}
}

// Callers race with Close: each call either counts or returns ErrClosed.
func TestCloseUnderLoad(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval} {
		dir := t.TempDir()
		db := openTest(t, dir, Options{Sync: mode})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var acked int64
		first := make(chan struct{}, 32)
		for range 32 {
			wg.Go(func() {
				for {
					err := db.AddProcessed(t.Context(), 1)
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					acked++
					mu.Unlock()
					select {
					case first <- struct{}{}:
					default:
					}
				}
			})
		}
		<-first
		mustClose(t, db)
		wg.Wait()
		if s := checkFiles(t, dir); s.Processed != acked {
			t.Errorf("mode %d: processed %d, want %d", mode, s.Processed, acked)
		}
	}
}
