package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// counted retries a count until it is durable, and returns the errors of the failed attempts.
func counted(t *testing.T, db *DB) (refused []error) {
	t.Helper()
	waitUntil(t, "a count is durable", func() bool {
		err := db.AddProcessed(t.Context(), 1)
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Fatalf("count: %v", err)
		}
		if err != nil {
			refused = append(refused, err)
		}
		return err == nil
	})
	return refused
}

// waitUntilItSays tries to count until the error says what to do about a state that is not available.
func waitUntilItSays(t *testing.T, db *DB, advice string) {
	t.Helper()
	waitUntil(t, "it says what to do: "+advice, func() bool {
		err := db.AddProcessed(t.Context(), 1)
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("count: %v, want it unavailable", err)
		}
		return strings.Contains(err.Error(), advice)
	})
}

// addAndFold counts n requests and has them written to both files. The store then writes nothing by itself, as it
// would a second later, when it could find that its folder is gone before the test has put another in its place.
func addAndFold(t *testing.T, db *DB, n int64) {
	t.Helper()
	add(t, db, n)
	put(t, db, records.AppendEvent(records.Event{Type: "folded"}))
}

// removeOpen removes a folder of an open state, which may be writing it back at the same time.
func removeOpen(dir string) error {
	for {
		if err := os.RemoveAll(dir); !errors.Is(err, syscall.ENOTEMPTY) {
			return err
		}
	}
}

// wantOnDisk checks the state that the next master would find. It checks a copy, since the state is open.
func wantOnDisk(t *testing.T, dir, id string, count int64) {
	t.Helper()
	s := checkFiles(t, copyState(t, dir))
	if s.Processed != count || s.Meta.MasterID != id || len(s.Workers) != 1 {
		t.Errorf("on the disk: count %d, master %s, %d workers, want %d, %s and 1",
			s.Processed, s.Meta.MasterID, len(s.Workers), count, id)
	}
	if text, err := os.ReadFile(
		filepath.Join(dir, statedir.MasterIDName),
	); err != nil || strings.TrimSpace(string(text)) != id {
		t.Errorf("master-id: %q, %v, want %s", text, err, id)
	}
	if here, err := DirID(dir); err != nil || here != s.Meta.StateDir {
		t.Errorf("recorded is folder %v, want %v (%v)", s.Meta.StateDir, here, err)
	}
}

func TestWhatIsDeletedUnderWayIsWrittenBack(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval} {
		for _, what := range []string{
			"", statedir.DatabaseName, statedir.CounterName, statedir.LockName,
			statedir.MasterIDName + " and more", statedir.BackupsName,
		} {
			name := map[SyncMode]string{SyncAlways: "always", SyncInterval: "interval"}[mode] + " " + what
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "lib", "state")
				db, err := Open(dir, Options{Sync: mode})
				if err != nil {
					t.Fatal(err)
				}
				put(t, db, records.PutWorker(fullWorker("worker-0")))
				add(t, db, 5)
				switch {
				case what == "":
					err = removeOpen(filepath.Dir(dir))
				case strings.HasPrefix(what, statedir.MasterIDName):
					err = errors.Join(os.Remove(filepath.Join(dir, statedir.MasterIDName)),
						os.Remove(filepath.Join(dir, statedir.DatabaseName)))
				default:
					err = removeOpen(filepath.Join(dir, what))
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := db.Alive(t.Context()); err != nil {
					t.Errorf("alive: %v", err)
				}
				for _, err := range counted(t, db) {
					if !strings.Contains(err.Error(), "deleted") {
						t.Errorf("refused with %v, want the reason", err)
					}
				}
				wantOnDisk(t, dir, db.MasterID(), 6)
				if db.Moved() {
					t.Error("it counts as moved")
				}
				if _, err := Open(dir, Options{LockWait: time.Millisecond}); !errors.As(err, new(*LockedError)) {
					t.Errorf("another master: %v, want it locked out", err)
				}
				add(t, db, 1)
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				wantOnDisk(t, dir, db.MasterID(), 7)
			})
		}
	}
}

// Deletion is noticed even if nothing is written.
func TestDeletedStateIsNoticedByAliveAndWrittenBackByTheEnd(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "state")
	db, err := Open(dir, Options{Logger: logTo(&log)})
	if err != nil {
		t.Fatal(err)
	}
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 2)
	if err := errors.Join(removeOpen(dir), db.Alive(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantOnDisk(t, dir, db.MasterID(), 2)
	if got := log.String(); !strings.Contains(got, "state database deleted") ||
		!strings.Contains(got, "state repaired") {
		t.Errorf("it said %q", got)
	}
}

// If the state was moved, the master waits for it to return and puts nothing in its place.
func TestStateThatIsMovedAwayIsWaitedFor(t *testing.T) {
	parent := t.TempDir()
	dir, away := filepath.Join(parent, "state"), filepath.Join(parent, "away")
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 3)
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	waitUntilItSays(t, db, "bring it back")
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was put in its place: %v", err)
	}
	if _, err := Open(away, Options{LockWait: time.Millisecond}); !errors.As(err, new(*LockedError)) {
		t.Errorf("another master where it is now: %v, want it locked out", err)
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	counted(t, db)
	wantOnDisk(t, dir, db.MasterID(), 4)
}

func TestStateThatIsPutInThePlaceOfAnOpenOneIsLeftAlone(t *testing.T) {
	for name, deleted := range map[string]bool{"of a deleted one": true, "of one that was moved": false} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dir, other := filepath.Join(parent, "state"), filepath.Join(parent, "other")
			away := filepath.Join(parent, "away")
			made := openTest(t, other, Options{})
			add(t, made, 100)
			if err := made.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := Open(dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			addAndFold(t, db, 3)
			if deleted {
				err = os.RemoveAll(dir)
			} else {
				err = os.Rename(dir, away)
			}
			if err := errors.Join(err, os.Rename(other, dir)); err != nil {
				t.Fatal(err)
			}
			before := tree(t, dir)
			waitUntilItSays(t, db, "stop this master before its state is replaced")
			if err := db.Close(); !errors.Is(err, ErrUnavailable) {
				t.Errorf("close: %v, want that nothing was written", err)
			}
			if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
				t.Errorf("what was put there was changed:\n%s", diff)
			}
			if err := os.Rename(dir, other); err != nil { // so that the cleanup of the other state finds its directory
				t.Fatal(err)
			}
		})
	}
}

// Another master has already created a state in place of the deleted one.
func TestDeletedStateIsNotWrittenOverThatOfAnotherMaster(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	addAndFold(t, first, 3)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	second := openTest(t, dir, Options{})
	if err := first.AddProcessed(t.Context(), 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the first counts: %v, want it unavailable", err)
	}
	add(t, second, 1)
	if err := first.Close(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("close of the first: %v, want that nothing was written", err)
	}
	add(t, second, 1)
	if got := second.Processed(); got != 2 {
		t.Errorf("the second has counted %d, want 2", got)
	}
}
