package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReadingChangesNothing(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{Sync: SyncInterval})
	put(t, db, PutWorker(fullWorker("worker-0")))
	add(t, db, 2)
	mustClose(t, db)
	for _, missing := range []string{"", counterName, masterIDName, lockName} {
		if missing != "" {
			if err := os.Remove(filepath.Join(dir, missing)); err != nil {
				t.Fatal(err)
			}
		}
		before := tree(t, dir)
		s, err := ReadSnapshot(dir)
		if err != nil || s.Processed != 2 || len(s.Workers) != 1 {
			t.Errorf("without %q: %d processed, workers %v, %v", missing, s.Processed, ids(s), err)
		}
		if tree(t, dir) != before {
			t.Errorf("without %q: reading has changed the directory", missing)
		}
	}
}

func TestReadingWhereThereIsNothing(t *testing.T) {
	empty := t.TempDir()
	for _, dir := range []string{empty, filepath.Join(empty, "missing")} {
		if _, err := ReadSnapshot(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, want fs.ErrNotExist", dir, err)
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("reading has created %v (%v)", left, err)
	}
}

// After a crash the count in counter.dat is ahead of the one in state.db.
func TestReadingTakesTheLargerCount(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openTest(t, dir, Options{}))
	c, err := (seams{}).createCounter(dir, tally{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []int64{7, 8, 9} {
		if err := c.write(tally{processed: count}); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSnapshot(dir)
		if err != nil || s.Processed != count {
			t.Errorf("processed %d, %v, want %d", s.Processed, err, count)
		}
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	db := openTest(t, dir, Options{})
	if db.Processed() != 9 || db.folded != (tally{processed: 9}) {
		t.Errorf("opened: processed %d, in state.db %+v, want 9", db.Processed(), db.folded)
	}
	mustClose(t, db)
	// And the other way round: an old counter.dat does not take it back.
	if c, err = (seams{}).createCounter(dir, tally{processed: 3}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	if db = openTest(t, dir, Options{}); db.Processed() != 9 {
		t.Errorf("opened with an old counter.dat: processed %d, want 9", db.Processed())
	}
}
