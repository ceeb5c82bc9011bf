package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
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

// What is in master.lock where the last master has ended, but not in order, and
// where it has.
const (
	unsettledMark = "unsettled\n"
	settledMark   = "\n"
)

// mastership is the lock on master.lock. Whoever holds it is the master of the
// state directory; it ends with the process, however that ends.
//
// The file is blank where the last master has ended in order, with everything it
// had written on the disk. Only the page cache needs to know: after a power cut it
// does not matter, since then it holds nothing that the disk does not. It is
// overwritten in place, so that a start on a full disk has the space for it.
type mastership struct {
	f    *os.File
	info fs.FileInfo
	// unsettled tells that the one before has not ended in order: see settle.
	unsettled bool
	// orderly is set at the end of a master that leaves nothing unsettled.
	orderly bool
}

// acquireMastership takes the lock and writes our PID into the file, for the
// error message of whoever comes next.
func (s seams) acquireMastership(dir string, wait time.Duration) (*mastership, error) {
	path := filepath.Join(dir, lockName)
	deadline := time.Now().Add(wait)
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		made := errors.Is(err, fs.ErrNotExist)
		if made {
			f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("open the lock of the state: %w: choose a state directory that can be written to", err)
		}
		err = s.do(crashpoint.Lock, func() error { return tryLock(f, true) })
		if err == nil && isAt(f, path) {
			_, noDatabase := os.Lstat(filepath.Join(dir, dbName))
			m := &mastership{f: f, unsettled: !isBlank(f) || made && noDatabase == nil}
			m.info, err = f.Stat()
			if err == nil {
				err = s.do(crashpoint.LockPID, m.writePID)
			}
			if err != nil {
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

func (m *mastership) writePID() error { return m.write(strconv.Itoa(os.Getpid()) + "\n") }

// write replaces the content. The file is at no moment blank on the way: that would
// say that all is settled.
func (m *mastership) write(text string) error {
	_, err := m.f.WriteAt([]byte(text), 0)
	if err == nil {
		err = m.f.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", strings.TrimSpace(text), m.f.Name(), err)
	}
	return nil
}

// release gives mastership up. The PID goes first: nobody shall take the one
// of a process that no longer is the master for its holder.
func (m *mastership) release() error {
	var err error
	if m.orderly {
		err = m.write(settledMark)
	} else {
		err = m.write(unsettledMark)
	}
	return errors.Join(err, unlock(m.f), m.f.Close())
}

func isBlank(f *os.File) bool {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	return err == nil && strings.TrimSpace(string(b)) == ""
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

// dyingFor is how long a reader waits for a lock: a master that was killed holds its own until the process is gone,
// which takes a moment on a busy machine.
const dyingFor = time.Second

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
	err = tryLock(f, false)
	for deadline := time.Now().Add(dyingFor); errors.Is(err, errLocked) && time.Until(deadline) > 0; {
		time.Sleep(lockPoll)
		err = tryLock(f, false)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, errLocked) {
			return nil, &LockedError{Path: dir, PID: holder(dir)}
		}
		return nil, fmt.Errorf("lock %s for reading: %w", f.Name(), err)
	}
	return func() { _, _ = unlock(f), f.Close() }, nil
}
