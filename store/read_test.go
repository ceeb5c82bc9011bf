package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

func TestReadingChangesNothing(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{Sync: SyncInterval})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 2)
	mustClose(t, db)
	for _, missing := range []string{"", statedir.CounterName, statedir.MasterIDName, statedir.LockName} {
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

// After a crash, the count in counter.dat is ahead of the count in state.db.
func TestReadingTakesTheLargerCount(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openTest(t, dir, Options{}))
	c, err := counterfile.Create(
		statefile.Ops{}, filepath.Join(dir, statedir.CounterName), counterfile.Tally{}, time.Time{},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, count := range []int64{7, 8, 9} {
		if err := c.Write(counterfile.Tally{Processed: count}); err != nil {
			t.Fatal(err)
		}
		s, err := ReadSnapshot(dir)
		if err != nil || s.Processed != count {
			t.Errorf("processed %d, %v, want %d", s.Processed, err, count)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	db := openTest(t, dir, Options{})
	if got := folded(t, db); db.Processed() != 9 || got != (counterfile.Tally{Processed: 9}) {
		t.Errorf("opened: processed %d, in state.db %+v, want 9", db.Processed(), got)
	}
	mustClose(t, db)
	// Conversely, an old counter.dat does not reduce the count.
	path, count := filepath.Join(dir, statedir.CounterName), counterfile.Tally{Processed: 3}
	if c, err = counterfile.Create(statefile.Ops{}, path, count, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if db = openTest(t, dir, Options{}); db.Processed() != 9 {
		t.Errorf("opened with an old counter.dat: processed %d, want 9", db.Processed())
	}
}
