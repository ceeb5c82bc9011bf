package boltfile

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

	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// allocSize is the step by which state.db grows.
const allocSize = 256 << 10

// guard runs fn, which reads memory that bbolt has mapped. It turns a fault (a page that cannot be read, a file
// that was truncated while open) and a panic of bbolt over damaged data into a DamagedError for path.
func guard(path string, fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = &statefile.DamagedError{Path: path, Err: fmt.Errorf("%v", r)}
		}
	}()
	return fn()
}

// File is an open database file. One goroutine may write while others read.
//
// A panic of bbolt or a fault in its mapping becomes an error. If it left one of bbolt's locks held, the file is stuck:
// see Stuck.
type File struct {
	path string
	bolt *bolt.DB
	file *os.File // bbolt's own descriptor
	info fs.FileInfo
	// source is a second descriptor of the file, from which a repair reads. It stays open when bbolt's is closed,
	// even if the path is gone. It is nil in a file opened for reading only, and after TakeSource.
	source *os.File
	// stuck is set after a panic that left one of bbolt's locks held: no further call of bbolt, not even Close,
	// would return.
	stuck atomic.Bool
	// reserved is the size up to which Reserve has tried to allocate the file's blocks; see Reserve.
	reserved int64
	granted  int64 // the size up to which allocation succeeded
}

// Open opens an existing database that has passed its checks: see [Image.Check]. If another process has it open and
// does not close it within wait, the error is [statefile.ErrLocked]. Opening the file does not change it.
func Open(path string, wait time.Duration) (*File, error) { return open(path, true, wait) }

// OpenReadOnly is like Open, but the file cannot be changed.
func OpenReadOnly(path string, wait time.Duration) (*File, error) { return open(path, false, wait) }

func open(path string, write bool, wait time.Duration) (*File, error) {
	b := &File{path: path}
	mapped := 0
	if write {
		mapped = mapSize
	}
	err := guard(path, func() (err error) {
		b.bolt, err = bolt.Open(path, 0o600, &bolt.Options{
			ReadOnly: !write,
			Timeout:  wait,
			// With NoFreelistSync, a damaged page panics in one of bbolt's goroutines, where the panic cannot be
			// recovered.
			NoFreelistSync:  false,
			FreelistType:    bolt.FreelistMapType,
			InitialMmapSize: mapped,
			NoStatistics:    true,
			OpenFile: func(name string, flag int, perm os.FileMode) (*os.File, error) {
				// Never O_CREATE: a missing file must not become an empty registry.
				f, err := safefile.OpenFile(name, flag&^os.O_CREATE, perm)
				if b.file = f; err == nil {
					b.info, err = f.Stat()
				}
				return f, err
			},
		})
		return err
	})
	if err == nil && write {
		b.source, err = b.reopen()
		if err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	if err == nil {
		b.bolt.AllocSize = allocSize
		return b, nil
	}
	var damaged *statefile.DamagedError
	switch {
	case errors.As(err, &damaged):
		// bbolt panicked halfway through opening, so only the file can be released.
		if b.file != nil {
			_ = errors.Join(statefile.Unlock(b.file), b.file.Close())
		}
	case errors.Is(err, berrors.ErrTimeout):
		err = statefile.ErrLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch),
		errors.Is(err, berrors.ErrChecksum):
		err = &statefile.DamagedError{Path: path, Err: err}
	}
	return nil, err
}

// ReserveSize is the space that is kept for state.db to grow into. It is larger than the history and a thousand
// workers need, so that a full disk prevents neither recording events nor restarting workers that died.
const ReserveSize = 1 << 20

// Reserve allocates space for the file up to size and for growth beyond it. If the file system does not support
// this, or is already full, the file works as before.
func (b *File) Reserve(size int64) {
	if size+ReserveSize/2 <= b.reserved {
		return
	}
	b.reserved = size + ReserveSize
	if allocate(b.file, b.reserved) == nil {
		b.granted = b.reserved
	}
}

// Room makes sure that the file can grow to size without using the reserve; otherwise it returns the reason. If the
// file system cannot allocate space in advance, Room returns nil.
func (b *File) Room(size int64) error {
	if size+ReserveSize/2 <= b.granted {
		return nil
	}
	switch err := allocate(b.file, size+ReserveSize); {
	case err == nil:
		b.granted = size + ReserveSize
		b.reserved = max(b.reserved, b.granted)
	case statefile.Remedy(err) != "":
		return err
	}
	return nil
}

// HighWater returns the size of the part of the file in use, 0 if it cannot be read.
func (b *File) HighWater() (size int64) {
	_ = b.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	return size
}

// reopen opens the file a second time.
func (b *File) reopen() (*os.File, error) {
	f, err := safefile.Open(b.path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !os.SameFile(info, b.info) {
		err = fmt.Errorf("%s was replaced under way", b.path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// TakeSource passes the source to the caller, which must close it.
func (b *File) TakeSource() *os.File {
	f := b.source
	b.source = nil
	return f
}

// Close releases the file and its lock. It waits for readers.
func (b *File) Close() error {
	var err error
	if f := b.TakeSource(); f != nil {
		err = f.Close()
	}
	if b.stuck.Load() {
		// The mapping leaks. The lock must be released explicitly, because otherwise it would last as long as the
		// mapping.
		return errors.Join(err, statefile.Unlock(b.file), b.file.Close())
	}
	return errors.Join(err, guard(b.path, b.bolt.Close))
}

// View runs fn in a read transaction.
func (b *File) View(fn func(*bolt.Tx) error) error {
	return b.transact(false, fn, func(*bolt.Tx) error { return nil })
}

// Update runs fn in a write transaction and ends it with commit. If commit fails, bbolt may see either state
// afterwards: the new one is in the page cache, and perhaps not on the disk.
func (b *File) Update(fn, commit func(*bolt.Tx) error) error {
	return b.transact(true, fn, commit)
}

func (b *File) transact(write bool, fn, end func(*bolt.Tx) error) error {
	return guard(b.path, func() error {
		orderly := false
		defer func() {
			if !orderly {
				b.stuck.Store(true)
			}
		}()
		tx, err := b.bolt.Begin(write)
		if err != nil {
			orderly = true
			return err
		}
		defer func() {
			// This also runs during a panic. After a commit it does nothing.
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

// Info describes the open file, which may have another path by now.
func (b *File) Info() fs.FileInfo { return b.info }

// Stuck reports whether no further transaction can be made: a panic has left one of bbolt's locks held.
func (b *File) Stuck() bool { return b.stuck.Load() }

// PageSize returns the size of a page in bytes.
func (b *File) PageSize() int { return b.bolt.Info().PageSize }

// SyncMeta makes the file durable after a process that wrote to it was killed or failed. Data read from the file may be
// only in the kernel's cache: either it was written and not synced, or its sync has failed, after which the kernel
// marks the pages clean and no further sync writes them. To continue from a meta page that is not on the disk would
// overwrite pages that are reachable from the meta page on the disk. A power cut would then leave a damaged file.
//
// So SyncMeta rewrites the meta pages with their current content. The pages that they lead to are on the disk, since
// they were synced before the meta pages were written. The first sync covers a file that was copied here by other
// means. SyncMeta needs no space.
func (b *File) SyncMeta() error {
	metas := make([]byte, 2*b.PageSize())
	err := statefile.Datasync(b.file)
	if err == nil {
		_, err = b.file.ReadAt(metas, 0)
	}
	if err == nil {
		_, err = b.file.WriteAt(metas, 0)
	}
	if err == nil {
		err = statefile.Datasync(b.file)
	}
	return err
}

// Create makes a new database at path and fills it. The file is not synced: the caller must do that before it gives the
// file its name.
func Create(path string, wait time.Duration, fill func(*bolt.DB) error) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: wait, FreelistType: bolt.FreelistMapType, OpenFile: safefile.OpenFile,
		NoSync: true, NoGrowSync: true, // the caller syncs the whole file
	})
	if err != nil {
		return err
	}
	return errors.Join(fill(db), db.Close())
}

// Edit writes the database of img to the empty file dst, with txid as its last transaction, and applies change to it in
// another one. Errors of change are returned unchanged.
func Edit(dst *os.File, img *Image, txid uint64, wait time.Duration, change func(*bolt.Tx) error) error {
	if err := img.CopyAs(dst, txid); err != nil {
		return err
	}
	b, err := Open(dst.Name(), wait)
	if err != nil {
		return err
	}
	return errors.Join(b.Update(change, (*bolt.Tx).Commit), b.Close())
}

// CompactTo copies every pair of the database to the path of an empty file. The copy is not synced.
func (b *File) CompactTo(path string, wait time.Duration) error {
	return Create(path, wait, func(dst *bolt.DB) error {
		return guard(b.path, func() error { return bolt.Compact(dst, b.bolt, 0) })
	})
}
