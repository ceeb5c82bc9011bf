package store

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// A master starts even if nothing can be written: it can read the records, acknowledges nothing, and resumes
// service when writing works again.
func TestStateIsOpenedThoughItCannotBeWritten(t *testing.T) {
	for _, act := range []string{"settle", "commit", "counter-write"} {
		for mode, name := range []string{"always", "interval"} {
			t.Run(act+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testOpenedThoughUnwritable(t, act, SyncMode(mode)) })
			})
		}
	}
}

func testOpenedThoughUnwritable(t *testing.T, act string, mode SyncMode) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 7)
	mustClose(t, db)
	overwrite(t, filepath.Join(dir, statedir.LockName), []byte("4711\n")) // as a killed master leaves it
	if act == "counter-write" {
		remove(t, filepath.Join(dir, statedir.CounterName))
	}

	var a acts
	var log bytes.Buffer
	a.set(act, syscall.ENOSPC)
	a.set("rewrite-write", syscall.ENOSPC)
	db = openSeams(t, dir, Options{Sync: mode, Logger: logTo(&log)}, a.seams())
	for _, wait := range []time.Duration{0, time.Minute} { // before the first attempt to write, and after many
		time.Sleep(wait)
		synctest.Wait()
		if s := snapshot(t, db); !cmp.Equal(ids(s), []string{"worker-0"}) || s.Processed != 7 {
			t.Errorf("workers %v, processed %d, want worker-0 and 7", ids(s), s.Processed)
		}
		for what, err := range map[string]error{
			"count":    db.AddProcessed(t.Context(), 1),
			"apply":    db.Apply(t.Context(), records.DeleteWorker("worker-0")),
			"writable": db.Writable(),
		} {
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) ||
				!strings.Contains(err.Error(), "free some space there, and service resumes by itself") {
				t.Errorf("%s: %v, want ErrUnavailable, the cause and what to do", what, err)
			}
		}
	}
	a.set(act, nil)
	a.set("rewrite-write", nil)
	time.Sleep(longestRepairDelay)
	synctest.Wait()
	if err := db.Writable(); err != nil {
		t.Errorf("writable: %v", err)
	}
	add(t, db, 1)
	if s := snapshot(t, db); s.Meta.CleanShutdown || s.Processed != 8 {
		t.Errorf("processed %d, want 8; clean %t, want what the start found to be recorded",
			s.Processed, s.Meta.CleanShutdown)
	}
}

// Each step of rewriting the state fails for a while, and then another one does. The result must be the
// acknowledged state and not that of a backup.
func TestStateIsWrittenAnewThoughEachStepFailsAtFirst(t *testing.T) {
	var steps []string
	for _, file := range []crashpoint.Point{crashpoint.Rewrite, crashpoint.Counter} {
		for _, step := range file.Steps() {
			steps = append(steps, string(step), step.After())
		}
	}
	for i, first := range steps {
		// Of all pairs of steps, the sample has one pair that begins with each step and one that ends with it.
		one := (i + int(seedOf(t)%uint64(len(steps)))) % len(steps)
		for _, then := range pick(t, steps[one:one+1], steps, steps) {
			t.Run(first+", "+then, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { writtenAnewAfter(t, first, then) })
			})
		}
	}
}

func writtenAnewAfter(t *testing.T, faults ...string) {
	var a acts
	db := openSeams(t, t.TempDir(), Options{}, a.seams())
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	if _, err := db.Backup(); err != nil {
		t.Fatal(err)
	}
	put(t, db, records.PutWorker(fullWorker("worker-1")))
	add(t, db, 3)
	a.set("commit", syscall.EIO)
	for i, act := range faults {
		a.set(act, syscall.EIO)
		if i > 0 && act != faults[i-1] {
			a.set(faults[i-1], nil)
		}
		if i == 0 {
			if err := db.Apply(
				t.Context(), records.PutWorker(fullWorker("worker-2")),
			); !errors.Is(err, ErrUnavailable) {
				t.Errorf("apply: %v, want ErrUnavailable", err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := db.AddProcessed(t.Context(), 1); !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EIO) {
			t.Errorf("count: %v, want ErrUnavailable for EIO", err)
		}
	}
	a.set(faults[len(faults)-1], nil)
	a.set("commit", nil)
	time.Sleep(longestRepairDelay)
	synctest.Wait()
	add(t, db, 1)
	if s := snapshot(t, db); !cmp.Equal(ids(s), []string{"worker-0", "worker-1"}) || s.Processed != 4 {
		t.Errorf("workers %v, processed %d, want worker-0, worker-1 and 4", ids(s), s.Processed)
	}
}

// An error that is not known to be temporary makes Open fail at once.
func TestStateThatCannotBeOpenedIsNot(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openTest(t, dir, Options{}))
	var a acts
	a.set("commit", errDisk)
	if _, err := open(dir, Options{}, a.seams()); !errors.Is(err, errDisk) {
		t.Errorf("open: %v, want the cause", err)
	}
}

// If the first write of a start fails, the state can be read before, during and after the rewrite: a file is open
// at every moment.
func TestStateIsReadWhileItIsWrittenAnewAtAStart(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	mustClose(t, db)
	for range 20 {
		var a acts
		a.set("commit", syscall.ENOSPC)
		db := openSeams(t, dir, Options{}, a.seams())
		a.set("commit", nil)
		for resumed := false; !resumed; {
			resumed = db.Writable() == nil
			if s, err := db.Snapshot(); err != nil || len(s.Workers) != 1 {
				t.Errorf("%d workers, %v", len(s.Workers), err)
			}
		}
		mustClose(t, db)
		if t.Failed() {
			return
		}
	}
}
