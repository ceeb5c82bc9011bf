package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
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
	info fs.FileInfo
	// source outlives bbolt's, whatever becomes of the name, for a repair to read
	// from; nil where nothing is written.
	source *os.File
	// stuck is set by a panic that has left one of bbolt's locks taken: no call
	// of bbolt, not even Close, would return.
	stuck atomic.Bool
	// reserved is how far the file's blocks are there for sure; see reserve.
	reserved int64
	granted  int64 // the same, but that it was asked for only is not enough
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
				if h.file = f; err == nil {
					h.info, err = f.Stat()
				}
				return f, err
			},
		})
		return err
	})
	if err == nil && write {
		h.source, err = h.again()
		if err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
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

// reserveSize is the space that is kept for state.db to grow into. It is more than
// the history and a thousand workers take, so that a full disk stops neither the
// record of what happens nor the start of what has died.
const reserveSize = 1 << 20

// reserve makes sure of the space up to the size and for growth beyond. Where the
// file system cannot, or is full already, the file is as good as it was before.
func (h *handle) reserve(size int64) {
	if size+reserveSize/2 <= h.reserved {
		return
	}
	h.reserved = size + reserveSize
	if allocate(h.file, h.reserved) == nil {
		h.granted = h.reserved
	}
}

// room makes sure that the file can grow to the size without any of the reserve, or
// returns why it cannot. Where the file system does not tell, it can.
func (h *handle) room(size int64) error {
	if size+reserveSize/2 <= h.granted {
		return nil
	}
	switch err := allocate(h.file, size+reserveSize); {
	case err == nil:
		h.granted = size + reserveSize
		h.reserved = max(h.reserved, h.granted)
	case remedy(err) != "":
		return err
	}
	return nil
}

// highWater is the size of what is in use, 0 where it cannot be read.
func (h *handle) highWater() (size int64) {
	_ = h.view(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size
}

// again opens the file once more.
func (h *handle) again() (*os.File, error) {
	f, err := os.Open(h.path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(info, h.info) {
		err = fmt.Errorf("%s was replaced under way", h.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// takeSource leaves the source to the caller, to be closed by it.
func (h *handle) takeSource() *os.File {
	f := h.source
	h.source = nil
	return f
}

// close gives the file and its lock back. It waits for readers.
func (h *handle) close() error {
	var err error
	if f := h.takeSource(); f != nil {
		err = f.Close()
	}
	if h.stuck.Load() {
		// The mapping is lost; the lock must not be, and it would live as long as
		// the mapping does.
		return errors.Join(err, unlock(h.file), h.file.Close())
	}
	return errors.Join(err, guard(h.path, h.bolt.Close))
}

// view runs fn in a read transaction.
func (h *handle) view(fn func(*bolt.Tx) error) error {
	return h.transact(false, fn, func(*bolt.Tx) error { return nil })
}

// update runs fn in a write transaction and ends it with commit. Where that
// fails, bbolt may see either state afterwards: the new one is in the page
// cache, and perhaps not on the disk.
func (h *handle) update(fn, commit func(*bolt.Tx) error) error {
	return h.transact(true, fn, commit)
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
