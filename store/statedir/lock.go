package statedir

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
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// lockPoll is the interval between attempts to take a held lock.
const lockPoll = 10 * time.Millisecond

// Content of master.lock after the last master has released it: unsettledMark if it did not shut down in order,
// settledMark if it did.
const (
	unsettledMark = "unsettled\n"
	settledMark   = "\n"
)

// LockedError means that another master holds the state.
type LockedError struct {
	Path string // the state directory
	PID  int    // PID of the holder, 0 if it is not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("another master holds the state in %s: stop it, or use another state directory", e.Path)
	}
	return fmt.Sprintf("another master (pid %d) holds the state in %s: stop it, or use another state directory",
		e.PID, e.Path)
}

// Mastership is the lock on master.lock. Its holder is the master of the state directory. The lock ends with the
// process, even if the process is killed.
//
// The file is blank if the last master has shut down in order and everything that it wrote is on the disk. The mark
// itself is not synced: after a power cut it does not matter, since the page cache then holds nothing that the disk
// does not. The mark is overwritten in place, so that a start on a full disk has space for it.
type Mastership struct {
	f    *os.File
	Info fs.FileInfo
	// Unsettled is set if the previous master did not shut down in order: its files must be made durable before any
	// change.
	Unsettled bool
	// Orderly is set before release if this master leaves nothing unsettled.
	Orderly bool
}

// AcquireMastership takes the lock and writes the PID of this process into the file, for the error message of the
// next process that tries to take it. passed is nil, or the file that [Mastership.HandOver] of an earlier program of
// this process has returned: it holds the lock already. AcquireMastership closes it if it fails.
func AcquireMastership(ops statefile.Ops, dir string, wait time.Duration, passed *os.File) (*Mastership, error) {
	if err := safefile.CheckFolder(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), closePassed(passed))
	}
	path := filepath.Join(dir, LockName)
	deadline := time.Now().Add(wait)
	for {
		f, made, err := passed, false, error(nil)
		if passed = nil; f == nil {
			f, made, err = openLock(path)
		}
		if errors.Is(err, safefile.ErrNotRegular) {
			return nil, fmt.Errorf("lock of the state: %w", err)
		}
		if err != nil {
			return nil, fmt.Errorf("open the lock of the state: %w: "+
				"choose a state directory that can be written to", err)
		}
		err = ops.Perform(crashpoint.Lock, func() error { return statefile.TryLock(f, true) })
		if err == nil && statefile.IsAt(f, path) {
			_, noDatabase := os.Lstat(filepath.Join(dir, DatabaseName))
			m := &Mastership{f: f, Unsettled: !isBlank(f) || made && noDatabase == nil}
			m.Info, err = f.Stat()
			if err == nil {
				err = ops.Perform(crashpoint.LockPID, m.writePID)
			}
			if err != nil {
				return nil, errors.Join(err, m.Release())
			}
			return m, nil
		}
		_ = f.Close()
		switch {
		case err == nil: // another process has replaced the file in the meantime
		case !errors.Is(err, statefile.ErrLocked):
			return nil, fmt.Errorf("lock %s: %w: the state directory needs a file system with locks", path, err)
		case time.Until(deadline) <= 0:
			return nil, &LockedError{Path: dir, PID: holder(dir)}
		}
		time.Sleep(min(lockPoll, max(time.Until(deadline), time.Millisecond)))
	}
}

// openLock opens the lock file, or makes it.
func openLock(path string) (f *os.File, made bool, err error) {
	f, err = safefile.OpenFile(path, os.O_RDWR, 0)
	if made = errors.Is(err, fs.ErrNotExist); made {
		f, err = safefile.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return f, made, err
}

func closePassed(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func (m *Mastership) writePID() error { return m.write(strconv.Itoa(os.Getpid()) + "\n") }

// write replaces the content. The file is never blank in between, since that would mean that everything is settled.
func (m *Mastership) write(text string) error {
	_, err := m.f.WriteAt([]byte(text), 0)
	if err == nil {
		err = m.f.Truncate(int64(len(text)))
	}
	if err != nil {
		return fmt.Errorf("write %q to %s: %w", strings.TrimSpace(text), m.f.Name(), err)
	}
	return nil
}

// Release gives up mastership. It overwrites the PID before it unlocks, so that no process takes the PID of a
// former master for that of the holder.
func (m *Mastership) Release() error {
	return errors.Join(m.mark(), statefile.Unlock(m.f), m.f.Close())
}

// HandOver ends the use of mastership, as Release does, and returns the file, which still holds the lock: see
// [AcquireMastership].
func (m *Mastership) HandOver() (*os.File, error) { return m.f, m.mark() }

// mark replaces the PID by the mark of the shutdown.
func (m *Mastership) mark() error {
	if m.Orderly {
		return m.write(settledMark)
	}
	return m.write(unsettledMark)
}

// Renew takes the lock again if the lock file is gone from its path: another master could lock a new file.
func (m *Mastership) Renew(ops statefile.Ops, dir string) error {
	if statefile.IsAt(m.f, filepath.Join(dir, LockName)) {
		return nil
	}
	renewed, err := AcquireMastership(ops, dir, 0, nil)
	if err != nil {
		return err
	}
	_ = m.f.Close()
	*m = *renewed
	return nil
}

func isBlank(f *os.File) bool {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 32))
	return err == nil && strings.TrimSpace(string(b)) == ""
}

// holder reads the PID from master.lock, 0 if there is none.
func holder(dir string) int {
	b, err := safefile.ReadFile(filepath.Join(dir, LockName), 33)
	if err != nil || len(b) > 32 {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 1 {
		return 0
	}
	return pid
}

// DyingFor is how long a reader waits for a lock: a killed master holds its lock until the process is gone, which
// takes a moment on a busy machine.
const DyingFor = time.Second

// ReadLock keeps masters out while a reader uses the files. It does not create or change a file. It waits at most
// patience for a terminating master. The returned function releases the lock.
func ReadLock(dir string, patience time.Duration) (func(), error) {
	f, err := safefile.Open(filepath.Join(dir, LockName))
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil // a copy of a state, without its lock file
	}
	if err != nil {
		return nil, fmt.Errorf("open the lock of the state: %w", err)
	}
	err = statefile.TryLock(f, false)
	for deadline := time.Now().Add(patience); errors.Is(err, statefile.ErrLocked) && time.Until(deadline) > 0; {
		time.Sleep(lockPoll)
		err = statefile.TryLock(f, false)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, statefile.ErrLocked) {
			return nil, &LockedError{Path: dir, PID: holder(dir)}
		}
		return nil, fmt.Errorf("lock %s for reading: %w", f.Name(), err)
	}
	return func() { _, _ = statefile.Unlock(f), f.Close() }, nil
}
