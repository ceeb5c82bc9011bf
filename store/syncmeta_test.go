package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// A master settles the files of the previous one only if that one did not shut down in order: settling costs three
// syncs.
func TestOnlyAnOrderlyEndLeavesNothingToSettle(t *testing.T) {
	var a acts
	settled := func(dir string) (*DB, bool) {
		t.Helper()
		a.take()
		db, err := open(dir, Options{}, a.seams())
		if err != nil {
			t.Fatal(err)
		}
		return db, hasAct(a.take(), "settle")
	}
	dir := t.TempDir()
	db, _ := settled(dir)
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	mustClose(t, db)
	db, again := settled(dir)
	if again {
		t.Error("settled after an orderly end")
	}

	// A shutdown that could not write everything.
	a.set("commit", errDisk)
	if err := db.Close(); !errors.Is(err, errDisk) {
		t.Fatalf("close: %v", err)
	}
	a.set("commit", nil)
	db, again = settled(dir)
	if !again {
		t.Error("not settled after an end that could not write everything")
	}
	mustClose(t, db)

	// A start that failed.
	a.set("commit", errDisk)
	if _, err := open(dir, Options{}, a.seams()); !errors.Is(err, errDisk) {
		t.Fatalf("open: %v", err)
	}
	a.set("commit", nil)
	db, again = settled(dir)
	if !again {
		t.Error("not settled after a start that failed")
	}
	mustClose(t, db)

	// A master that was killed.
	c := startChild(t, "hold", dir, SyncAlways)
	if _, err := c.out.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.kill()
	if db, again = settled(dir); !again {
		t.Error("not settled after a kill")
	}
	mustClose(t, db)

	// If the lock file was removed, or a state was copied here without one, it is settled.
	if err := os.Remove(filepath.Join(dir, statedir.LockName)); err != nil {
		t.Fatal(err)
	}
	if db, again = settled(dir); !again {
		t.Error("not settled without a lock file")
	}
	mustClose(t, db)
	if s := checkFiles(t, dir); len(s.Workers) != 1 {
		t.Errorf("workers %v, want the one that was there", ids(s))
	}
}

func hasAct(list []string, act string) bool {
	for _, a := range list {
		if name, _, _ := strings.Cut(a, " "); name == act {
			return true
		}
	}
	return false
}
