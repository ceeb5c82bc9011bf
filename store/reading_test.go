package store

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

// manyResults is more than a start reads at once.
const manyResults = 3500

// storeMany stores results with the ids 0 to n-1.
func storeMany(t *testing.T, db *DB, n int) {
	t.Helper()
	outcomes := make(told, n)
	for i := range n {
		db.CountOnce(resultOf(fmt.Sprint(i), "old"), outcomes)
	}
	for range n {
		if err := <-outcomes; err != nil {
			t.Fatal(err)
		}
	}
}

// The first call after a start may be a repeated one, and its result need not be read yet.
func TestRepeatedRequestsRightAfterAStart(t *testing.T) {
	dir := t.TempDir()
	m := machine{boot: "b"}
	opts := m.options(Options{RequestTTL: time.Minute})
	db := openTest(t, dir, opts)
	storeMany(t, db, manyResults)
	mustClose(t, db)
	m.pass(time.Minute - 1)
	db = openTest(t, dir, opts)
	if _, unread := db.results.Unread(); !unread {
		t.Fatal("all results were read at the start")
	}
	for i := range manyResults {
		id := fmt.Sprint(i)
		wantResult(t, db, id, "old")
		if err := onceNow(db, resultOf(id, "new")); !errors.Is(err, ErrDuplicate) {
			t.Fatalf("request %s again: %v", id, err)
		}
	}
	wantResult(t, db, "none", "")
	if s, err := db.Snapshot(); err != nil || s.Results != manyResults || s.Processed != manyResults {
		t.Errorf("%d results, processed %d, %v", s.Results, s.Processed, err)
	}
	m.pass(1)
	wantResult(t, db, "0", "")
	wantResult(t, db, fmt.Sprint(manyResults-1), "")
}

// Results that are stored while earlier ones are read are newer than all of them.
func TestResultsStoredWhileOthersAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		m := machine{boot: "b"}
		opts := m.options(Options{RequestTTL: time.Minute, MaxResults: manyResults + 2})
		db := openTest(t, dir, opts)
		storeMany(t, db, manyResults)
		mustClose(t, db)
		m.pass(time.Minute)
		// All have expired, and are still in the file.
		db = openTest(t, dir, opts)
		mustOnce(t, db, resultOf("5", "new"))
		mustOnce(t, db, resultOf("first", "new"))
		mustOnce(t, db, resultOf("999", "new"))
		synctest.Wait()
		for _, unread := db.results.Unread(); unread; _, unread = db.results.Unread() {
			wantResult(t, db, "5", "new")
			wantResult(t, db, "6", "")
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		time.Sleep(time.Hour) // expired results are dropped a thousand at a time
		synctest.Wait()
		for _, id := range []string{"5", "first", "999"} {
			wantResult(t, db, id, "new")
		}
		if got := db.results.Count(); got != 3 {
			t.Errorf("%d results are kept, want 3", got)
		}
		mustClose(t, db)
		if s := checkFiles(t, dir); s.Results != 3 || s.Processed != manyResults+3 {
			t.Errorf("on the disk: %d results, processed %d", s.Results, s.Processed)
		}
	})
}

func TestPresentIsReadWithoutResultsAndEvents(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")), records.AppendEvent(records.Event{Type: "x"}))
	storeMany(t, db, manyResults)
	mustClose(t, db)
	all, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	some, err := ReadPresent(dir)
	if err != nil || len(some.Workers) != 1 || len(some.Events) != 0 || some.Results != 0 || len(all.Events) != 1 ||
		all.Results != manyResults || some.Meta != all.Meta {
		t.Errorf("%v: workers %v, %d events, %d results of %d", err, some.Workers, len(some.Events), some.Results,
			all.Results)
	}
}
