package store

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// allocSize is the step that state.db grows by.
const allocSize = 256 << 10

// guard runs fn, which reads what bbolt has mapped. A fault there (a page that
// cannot be read, a file that was truncated under us) and a panic of bbolt over
// what it finds become a DamagedError of path.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &DamagedError{Path: path, Err: fmt.Errorf("%v", r)}
		}
	}()
	return fn()
}

// handle is one opened state.db.
type handle struct {
	path string
	bolt *bolt.DB
	file *os.File // bbolt's own
	// stuck is set by a panic that has left one of bbolt's locks taken: no call
	// of bbolt, not even Close, would return.
	stuck atomic.Bool
}

// openHandle opens an existing database that has passed its checks. With
// write false it changes nothing, not even by being opened.
func openHandle(path string, write bool, wait time.Duration) (*handle, error) {
	h := &handle{path: path}
	mapped := 0
	if write {
		mapped = mapSize
	}
	err := guard(path, func() (err error) {
		h.bolt, err = bolt.Open(path, 0o600, &bolt.Options{
			ReadOnly: !write,
			Timeout:  wait,
			// With NoFreelistSync a damaged page panics in a goroutine of bbolt's,
			// where nothing can recover.
			NoFreelistSync:  false,
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: mapped,
			NoStatistics:    true,
			OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
				// Never O_CREATE: a missing file must not become an empty registry.
				f, err := os.OpenFile(name, flag&^os.O_CREATE, perm)
				h.file = f
				return f, err
			},
		})
		return err
	})
	if err == nil {
		h.bolt.AllocSize = allocSize
		return h, nil
	}
	var damaged *DamagedError
	switch {
	case errors.As(err, &damaged):
		// It panicked halfway, so nothing but the file can be given back.
		if h.file != nil {
			_ = errors.Join(unlock(h.file), h.file.Close())
		}
	case errors.Is(err, berrors.ErrTimeout):
		err = errLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		err = &DamagedError{Path: path, Err: err}
	}
	return nil, err
}

// close gives the file and its lock back. It waits for readers.
func (h *handle) close() error {
	if h.stuck.Load() {
		// The mapping is lost; the lock must not be, and it would live as long as
		// the mapping does.
		return errors.Join(unlock(h.file), h.file.Close())
	}
	return guard(h.path, h.bolt.Close)
}

// view runs fn in a read transaction.
func (h *handle) view(fn func(*bolt.Tx) error) error {
	return h.transact(false, fn, func(*bolt.Tx) error { return nil })
}

// update runs fn in a write transaction and ends it with commit. Where that
// fails, bbolt may see either state afterwards: the new one is in the page
// cache, and perhaps not on the disk.
func (h *handle) update(fn, commit func(*bolt.Tx) error) error {
	return h.transact(true, fn, func(tx *bolt.Tx) error {
		crashpoint.Hit(crashpoint.BeforeCommit)
		if err := commit(tx); err != nil {
			return err
		}
		crashpoint.Hit(crashpoint.AfterCommit)
		return nil
	})
}

func (h *handle) transact(write bool, fn, end func(*bolt.Tx) error) error {
	return guard(h.path, func() error {
		orderly := false
		defer func() {
			if !orderly {
				h.stuck.Store(true)
			}
		}()
		tx, err := h.bolt.Begin(write)
		if err != nil {
			orderly = true
			return err
		}
		defer func() {
			// Also on the way of a panic. It does nothing after a commit.
			if err := tx.Rollback(); err == nil || errors.Is(err, berrors.ErrTxClosed) {
				orderly = true
			}
		}()
		if err := fn(tx); err != nil {
			return err
		}
		return end(tx)
	})
}
