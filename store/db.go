package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/commit"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	bolt "go.etcd.io/bbolt"
)

// DB is an open state directory. It holds mastership over that directory. Its methods may be called concurrently.
type DB struct {
	dir     *statedir.Dir
	lock    *statedir.Mastership
	self    *statedir.Own
	results *once.Index
	flow    *commit.Pipeline

	close    sync.Once
	closeErr error
}

// Open takes mastership over the state directory and opens the state in it, or creates it. An older schema is
// migrated after a copy was put into backups/. If the database is missing although there was one, or if it is
// damaged and Options.OnDamage is Recover, Open makes a new one from the newest good backup.
//
// Besides errors of the operating system, Open returns a [LockedError] if another master still holds the state
// after Options.LockWait, a [DamagedError] if a file is damaged (the file is left unchanged), and a
// [NewerSchemaError].
func Open(dir string, opts Options) (*DB, error) {
	return open(dir, opts, seams{steps: migrations.All})
}

func open(path string, opts Options, s seams) (*DB, error) {
	opts = opts.withDefaults()
	dir := dirOf(path, opts, s)
	id, err := makeDir(dir, path)
	if err != nil {
		if opts.Lock != nil {
			err = errors.Join(err, opts.Lock.Close())
		}
		return nil, err
	}
	lock, err := statedir.AcquireMastership(dir.Ops, path, dir.LockWait, opts.Lock)
	if err != nil {
		return nil, err
	}
	db := &DB{dir: dir, lock: lock, self: statedir.NewOwn(path, id), results: once.New(once.Limits{
		TTL: opts.RequestTTL, Most: opts.MaxResults, MostSize: opts.MaxResultBytes,
		BootTime: opts.BootTime, BootID: opts.BootID,
	}, opts.Logger)}
	db.flow = commit.New(commit.Config{
		Dir: dir, Lock: lock, Self: db.self, Results: db.results,
		Interval: opts.Interval, Unsynced: opts.Sync == SyncInterval,
	})
	if err := db.flow.Open(); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	return db, nil
}

// AfterCrash reports whether the last master of this state did not close it in an orderly way.
func (db *DB) AfterCrash() bool { return db.lock.Unsettled }

func makeDir(dir *statedir.Dir, path string) (identity.FileID, error) {
	if err := statedir.Make(dir.Ops, path); err != nil {
		return identity.FileID{}, err
	}
	id, err := DirID(path)
	if err != nil {
		return id, fmt.Errorf("state directory: %w", err)
	}
	return id, nil
}

// Dir returns the state directory as given to Open.
func (db *DB) Dir() string { return db.dir.Path }

// MasterID returns the UUID of this state. It is in the file master-id, in the database, and in the environment of
// every worker.
func (db *DB) MasterID() string { return db.self.Get().MasterID }

// StateDirID returns the current device and inode of the state directory, or the last known ones if it cannot be
// read.
func (db *DB) StateDirID() identity.FileID { return db.self.CurrentDir() }

// Moved reports whether the database was made for another directory than this one. If so, the directory is a copy
// or was moved, and the recorded workers may belong to another master.
func (db *DB) Moved() bool { return db.self.CurrentDir() != db.self.Get().StateDir }

// AcceptMove records this directory as the one that the database is for, so that Moved returns false from then on.
// The caller must have settled every recorded worker before.
func (db *DB) AcceptMove(ctx context.Context) error {
	record := db.self.Get()
	record.StateDir = db.self.CurrentDir()
	if err := db.Apply(ctx, records.PutMeta(record)); err != nil {
		return err
	}
	db.self.Set(record)
	return nil
}

// Snapshot reads the whole registry in one transaction. Records that cannot be read are in Snapshot.Bad and do not
// hide the others. If Snapshot returns an error, the returned Snapshot holds the values that are known without the
// file.
func (db *DB) Snapshot() (records.Snapshot, error) {
	return db.read(func(tx *bolt.Tx) (records.Snapshot, error) {
		s, err := records.ReadAll(tx)
		s.Results = db.results.Stored(tx)
		return s, err
	})
}

// Present is Snapshot without the history, which takes most of the time of a Snapshot, and without the number of
// results.
func (db *DB) Present() (records.Snapshot, error) { return db.read(records.ReadPresent) }

func (db *DB) read(how func(*bolt.Tx) (records.Snapshot, error)) (records.Snapshot, error) {
	var s records.Snapshot
	err := db.flow.View(func(tx *bolt.Tx) (err error) {
		s, err = how(tx)
		return err
	})
	if err != nil {
		return records.Snapshot{SchemaVersion: db.dir.Steps.Version(), Meta: db.self.Get(), Processed: db.Processed()},
			fmt.Errorf("read the state: %w", err)
	}
	// The file may lag behind, or hold data of a failed commit.
	s.Processed = db.Processed()
	return s, nil
}

// LastEvent returns the number of the newest durable event, and a channel that is closed when there is a newer one.
func (db *DB) LastEvent() (last uint64, grown <-chan struct{}) { return db.flow.LastEvent() }

// Events returns at most most durable events with numbers above after, oldest first. Events that are not kept any more
// are missing.
func (db *DB) Events(after uint64, most int) (entries []records.Entry, err error) {
	// The file may hold data of a failed commit, which nothing has acknowledged.
	until, _ := db.flow.LastEvent()
	err = db.flow.View(func(tx *bolt.Tx) (err error) {
		entries, err = records.Entries(tx, after, until, most)
		return err
	})
	return entries, err
}

// Apply makes all of muts durable in one transaction, which is synced to the disk when Apply returns nil. ctx
// bounds only the wait: if it ends first, the changes may still be made. After ErrUnavailable the changes may or
// may not have been made, but once service has resumed they are not made any more.
func (db *DB) Apply(ctx context.Context, muts ...records.Mutation) error {
	for _, m := range muts {
		if err := m.Check(); err != nil {
			return err
		}
	}
	if len(muts) == 0 {
		return nil
	}
	return db.flow.Apply(ctx, muts)
}

// AddProcessed adds n to the processed count. When it returns nil, the count is as durable as Options.Sync
// specifies. ctx bounds only the wait: if it ends first, n may still be counted.
func (db *DB) AddProcessed(ctx context.Context, n int64) error {
	if n < 0 {
		return fmt.Errorf("count %d more requests: must be 0 or more", n)
	}
	return db.flow.Add(ctx, n)
}

// Processed returns the number of acknowledged processed requests.
func (db *DB) Processed() int64 { return db.flow.Processed() }

// Count counts one request, as AddProcessed does, but does not wait for anything, not even for a write into the
// page cache: it notifies done instead. In steady state it allocates nothing.
//
// One goroutine notifies all callers, one after the other, in the order in which they were counted. It is not the
// caller's goroutine, so a caller may hold a lock during Count that Counted also takes. It is not the committer
// either, so the next write proceeds during the notifications. Counted may call Count, but it must not wait for a
// count, for Apply or for Close. While Counted runs, the other callers wait.
//
// A count accepted before Close is notified before Close returns. A later count gets ErrClosed, from a goroutine of
// its own.
func (db *DB) Count(done Counted) { db.flow.Count(done) }

// CountOnce counts a request that has an id and stores its result under the id, in one transaction: with either
// SyncMode, either both survive a crash or a power cut, or neither does. If there is already a result under the id,
// nothing is changed and done gets ErrDuplicate. A response that is too large is left out of the stored result.
//
// done is called as described at Count.
func (db *DB) CountOnce(r records.Result, done Counted) {
	db.flow.CountOnce(db.results.NewPending(r, done))
}

// Result returns the result stored under the id of a request, and whether there is one.
func (db *DB) Result(id string) (r records.Result, found bool, err error) {
	if !db.results.MayHave(id) {
		return records.Result{}, false, nil
	}
	err = db.flow.View(func(tx *bolt.Tx) (err error) {
		r, found, err = db.results.Read(tx, id)
		return err
	})
	if err != nil {
		return records.Result{}, false, fmt.Errorf("read the result of request %q: %w", id, err)
	}
	return r, found, nil
}

// Alive returns nil if the committer answers. It writes nothing, and the committer answers even if nothing can be
// written. It is meant for a watchdog.
func (db *DB) Alive(ctx context.Context) error { return db.flow.Alive(ctx) }

// Writable returns nil if changes can be made durable now, otherwise the error that Apply would return.
func (db *DB) Writable() error { return db.flow.Refusal() }

// Close marks the shutdown as clean, brings the count into the database, closes the files and gives up mastership,
// in this order. Calls made before Close are completed; calls made after it get ErrClosed. Further calls of Close
// return the same error.
func (db *DB) Close() error {
	db.close.Do(func() {
		db.closeErr = db.end(db.lock.Release)
	})
	return db.closeErr
}

// HandOver does what Close does, except that mastership stays with the file that it returns, for Options.Lock of the
// next program of this process. Close must not have been called. If HandOver returns an error too, the next master
// treats the state as that of a crashed one.
func (db *DB) HandOver() (lock *os.File, err error) {
	db.close.Do(func() {
		db.closeErr = db.end(func() (err error) {
			lock, err = db.lock.HandOver()
			return err
		})
	})
	return lock, db.closeErr
}

// end closes the files, and then ends the use of mastership by release.
func (db *DB) end(release func() error) error {
	err := db.flow.Close()
	db.lock.Orderly = err == nil
	err = errors.Join(err, db.dir.Ops.Perform(crashpoint.Unlock, release))
	if err != nil {
		return fmt.Errorf("close the state: %w", err)
	}
	return nil
}
