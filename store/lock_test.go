package store

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/statedir"
)

// pidIn returns the PID in master.lock, 0 if there is none.
func pidIn(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, statedir.LockName))
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func TestSecondMasterIsToldTheFirst(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "hold", dir, SyncAlways)
	if line, err := c.out.ReadString('\n'); err != nil || line != "open\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	_, openErr := Open(dir, Options{LockWait: time.Millisecond})
	_, readErr := ReadSnapshot(dir)
	for what, err := range map[string]error{"open": openErr, "read": readErr} {
		var locked *LockedError
		if !errors.As(err, &locked) {
			t.Fatalf("%s: %v, want a LockedError", what, err)
		}
		if locked.PID != c.cmd.Process.Pid || locked.Path != dir {
			t.Errorf("%s: holder %d of %s, want %d of %s", what, locked.PID, locked.Path, c.cmd.Process.Pid, dir)
		}
	}

	// A process that waits gets the lock when the first master ends.
	opened := make(chan *DB, 1)
	go func() {
		db, err := Open(dir, Options{LockWait: time.Minute})
		if err != nil {
			t.Error(err)
		}
		opened <- db
	}()
	if err := c.in.Close(); err != nil {
		t.Fatal(err)
	}
	db := <-opened
	if db == nil {
		t.FailNow()
	}
	if !db.self.Found.CleanShutdown {
		t.Error("the end of the first one was not clean")
	}
	if got := pidIn(t, dir); got != os.Getpid() {
		t.Errorf("master.lock names %d, want %d", got, os.Getpid())
	}
	mustClose(t, db)
	if got := pidIn(t, dir); got != 0 {
		t.Errorf("master.lock names %d after the close, want nobody", got)
	}
}

func TestTwoMastersInOneProcess(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Options{})
	_, err := Open(dir, Options{LockWait: time.Millisecond})
	var locked *LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("%v, want a LockedError with pid %d", err, os.Getpid())
	}
}

// If master.lock was removed, the lock on the database itself still keeps a second master out.
func TestRemovedLockFile(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Options{})
	if err := os.Remove(filepath.Join(dir, statedir.LockName)); err != nil {
		t.Fatal(err)
	}
	_, readErr := ReadSnapshot(dir)
	_, openErr := Open(dir, Options{LockWait: time.Millisecond})
	for what, err := range map[string]error{"open": openErr, "read": readErr} {
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != 0 || strings.Contains(err.Error(), "pid") {
			t.Errorf("%s: %v, want a LockedError that names no pid", what, err)
		}
	}
}

// A reader that starts after a master was killed, but before that process is gone, waits and then reads the state.
func TestReadersWaitForAMasterThatIsEnding(t *testing.T) {
	dir := quickDir(t)
	db := openTest(t, dir, Options{})
	add(t, db, 3)
	closed := make(chan error)
	time.AfterFunc(10*time.Millisecond, func() { closed <- db.Close() })
	began := time.Now()
	s, err := ReadSnapshot(dir)
	// If reading took longer, the machine was too busy for this test.
	if took := time.Since(began); took < statedir.DyingFor && (err != nil || s.Processed != 3) {
		t.Errorf("processed %d, %v after %v, want 3", s.Processed, err, took)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
