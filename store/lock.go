package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Names in the state directory.
const (
	dbName       = "state.db"
	lockName     = "master.lock"
	masterIDName = "master-id"
	counterName  = "counter.dat"
	backupsName  = "backups"
	tempSuffix   = ".tmp" // of a file that is about to replace another
)

// errLocked means that another process holds the lock; only within this package.
var errLocked = errors.New("held by another process")

// lockPoll is how often a held lock is tried again.
const lockPoll = 10 * time.Millisecond

// mastership is the lock on master.lock. Whoever holds it is the master of the
// state directory; it ends with the process, however that ends.
type mastership struct{ f *os.File }

// acquireMastership takes the lock and writes our PID into the file, for the
// error message of whoever comes next.
func acquireMastership(dir string, wait time.Duration) (*mastership, error) {
	path := filepath.Join(dir, lockName)
	deadline := time.Now().Add(wait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the lock of the state: %w: choose a state directory that can be written to", err)
		}
		err = tryLock(f, true)
		if err == nil && isAt(f, path) {
			m := &mastership{f}
			if err := m.writePID(); err != nil {
				return nil, errors.Join(err, m.release())
			}
			return m, nil
		}
		_ = f.Close()
		switch {
		case err == nil: // somebody has replaced the file meanwhile
		case !errors.Is(err, errLocked):
			return nil, fmt.Errorf("lock %s: %w: the state directory needs a file system with locks", path, err)
		case time.Until(deadline) <= 0:
			return nil, &LockedError{Path: dir, PID: holder(dir)}
		}
		time.Sleep(min(lockPoll, max(time.Until(deadline), time.Millisecond)))
	}
}

func (m *mastership) writePID() error {
	err := m.f.Truncate(0)
	if err == nil {
		_, err = m.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("write the pid to %s: %w", m.f.Name(), err)
	}
	return nil
}

// release gives mastership up. The PID goes first: nobody shall take the one
// of a process that no longer is the master for its holder.
func (m *mastership) release() error {
	return errors.Join(m.f.Truncate(0), unlock(m.f), m.f.Close())
}

// isAt tells whether f still is the file at path.
func isAt(f *os.File, path string) bool {
	mine, err1 := f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there)
}

// holder reads the PID from master.lock, 0 where there is none.
func holder(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, lockName))
	if err != nil || len(b) > 32 {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}

// readLock keeps masters out for as long as a reader needs the files, without
// creating or changing one. The function that it returns ends that.
func readLock(dir string) (func(), error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil // a copy of a state, without its lock
	}
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state: %w", err)
	}
	if err := tryLock(f, false); err != nil {
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, &LockedError{Path: dir, PID: holder(dir)}
		}
		return nil, fmt.Errorf("lock %s for reading: %w", f.Name(), err)
	}
	return func() { _, _ = unlock(f), f.Close() }, nil
}
