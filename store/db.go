package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// DB is an open state directory. It holds mastership over that directory. Its methods may be called concurrently.
type DB struct {
	dir  *stateDir
	lock *mastership
	self *ownRecord

	// Callers add to these; the committer takes from the queue, and the teller notifies the callers.
	queue     *queue
	counter   *counter
	committer *committer
	teller    *teller

	// The committer writes these, everybody reads them.
	database *database
	results  *results

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

func open(path string, opts Options, s seams) (_ *DB, err error) {
	dir := newStateDir(path, opts, s)
	if err := makeDir(dir.ops, path); err != nil {
		return nil, err
	}
	id, err := DirID(path)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	lock, err := acquireMastership(dir.ops, path, dir.opts.LockWait)
	if err != nil {
		return nil, err
	}
	db := newDB(dir, lock, id)
	c := db.committer
	defer func() {
		if err != nil {
			err = errors.Join(err, c.writer.exchange(nil, nil), lock.release())
		}
	}()
	o := opener{dir: dir, writer: c.writer, fail: c.fail, broken: db.queue.cause}
	if err := o.open(); err != nil {
		return nil, err
	}
	c.repairer.start(db.queue.cause() != nil)
	go c.run()
	go db.teller.run(db.counter.add)
	return db, nil
}

// newDB returns a DB that is not open yet.
func newDB(dir *stateDir, lock *mastership, id identity.FileID) *DB {
	db := &DB{
		dir: dir, lock: lock, self: &ownRecord{dir: dir.path, dirID: id},
		queue: newQueue(), teller: newTeller(), database: new(database), results: newResults(dir.opts),
	}
	c := &committer{queue: db.queue, teller: db.teller, stop: make(chan struct{}), done: make(chan struct{})}
	db.committer = c
	db.counter = &counter{ops: dir.ops, wake: db.queue.kick, failed: c.fail}
	c.writer = &writer{
		dir: dir, lock: lock, database: db.database, counter: db.counter, results: db.results, self: db.self,
		failed: c.fail,
	}
	c.repairer = &repairer{writer: c.writer, home: id}
	return db
}

// Dir returns the state directory as given to Open.
func (db *DB) Dir() string { return db.dir.path }

// MasterID returns the UUID of this state. It is in the file master-id, in the database, and in the environment of
// every worker.
func (db *DB) MasterID() string { return db.self.get().MasterID }

// StateDirID returns the current device and inode of the state directory, or the last known ones if it cannot be
// read.
func (db *DB) StateDirID() identity.FileID { return db.self.currentDir() }

// Meta returns the database's own record as Open found it: its CleanShutdown describes the previous run.
func (db *DB) Meta() Meta { return db.self.found }

// Moved reports whether the database was made for another directory than this one. If so, the directory is a copy
// or was moved, and the recorded workers may belong to another master.
func (db *DB) Moved() bool { return db.self.currentDir() != db.self.get().StateDir }

// AcceptMove records this directory as the one that the database is for, so that Moved returns false from then on.
// The caller must have settled every recorded worker before.
func (db *DB) AcceptMove(ctx context.Context) error {
	record := db.self.get()
	record.StateDir = db.self.currentDir()
	if err := db.Apply(ctx, putMeta(record)); err != nil {
		return err
	}
	db.self.set(record)
	return nil
}

// Snapshot reads the whole registry in one transaction. Records that cannot be read are in Snapshot.Bad and do not
// hide the others. If Snapshot returns an error, the returned Snapshot holds what is known without the file.
func (db *DB) Snapshot() (Snapshot, error) {
	var s Snapshot
	err := db.view(func(tx *bolt.Tx) (err error) {
		s, err = readAll(tx)
		return err
	})
	if err != nil {
		return Snapshot{SchemaVersion: db.dir.steps.Version(), Meta: db.self.get(), Processed: db.Processed()},
			fmt.Errorf("read the state: %w", err)
	}
	// The file may lag behind, or hold data of a failed commit.
	s.Processed = db.Processed()
	s.Results = db.results.count()
	return s, nil
}

// view runs fn in a read transaction of the open file.
func (db *DB) view(fn func(*bolt.Tx) error) error {
	stuck, err := db.database.view(fn)
	if errors.Is(err, errNotOpen) {
		return cmp.Or(db.queue.refusal(), ErrUnavailable)
	}
	if stuck {
		db.committer.fail(err) // the committer must not use the file any more
	}
	return err
}

// Apply makes all of muts durable in one transaction, which is synced to the disk when Apply returns nil. ctx
// bounds only the wait: if it ends first, the changes may still be made. After ErrUnavailable the changes may or
// may not have been made, but once service has resumed they are not made any more.
func (db *DB) Apply(ctx context.Context, muts ...Mutation) error {
	for _, m := range muts {
		if m.err != nil {
			return m.err
		}
		if m.op == 0 {
			return errors.New("apply: an empty mutation")
		}
	}
	if len(muts) == 0 {
		return nil
	}
	return db.queue.do(ctx, request{muts: muts})
}

// AddProcessed adds n to the processed count. When it returns nil, the count is as durable as Options.Sync
// specifies. ctx bounds only the wait: if it ends first, n may still be counted.
func (db *DB) AddProcessed(ctx context.Context, n int64) error {
	if n < 0 {
		return fmt.Errorf("count %d more requests: want 0 or more", n)
	}
	if db.dir.opts.Sync == SyncInterval {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("count a request: %w", err)
		}
		return db.counter.add(n)
	}
	return db.queue.do(ctx, request{count: n})
}

// Processed returns the number of acknowledged processed requests.
func (db *DB) Processed() int64 { return db.counter.processed.Load() }

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
func (db *DB) Count(done Counted) {
	if db.dir.opts.Sync == SyncInterval {
		// The teller counts all waiting requests with one write.
		db.teller.tell(notice{done: done, uncounted: true})
		return
	}
	if err := db.queue.addCount(done); err != nil {
		db.teller.tell(notice{done: done, err: err})
	}
}

// CountOnce counts a request that has an id and stores its result under the id, in one transaction: with either
// SyncMode, either both survive a crash or a power cut, or neither does. If there is already a result under the id,
// nothing is changed and done gets ErrDuplicate. A response that is too large is left out of the stored result.
//
// done is called as described at Count.
func (db *DB) CountOnce(r Result, done Counted) {
	if len(r.Response) > MaxResponse {
		r.Response, r.LeftOut = nil, true
	}
	if r.Stored.IsZero() {
		r.Stored = time.Now()
	}
	p := &pendingResult{
		Result: r, done: done,
		size: int64(len(r.ID) + len(r.Method) + len(r.Response) + sha256.Size + len(db.dir.opts.BootID) +
			resultOverhead),
	}
	err := CheckRequestID(r.ID)
	if err == nil {
		err = db.queue.addResult(p)
	}
	if err != nil {
		db.teller.tell(notice{done: done, err: err})
	}
}

// Result returns the result stored under the id of a request, and whether there is one.
func (db *DB) Result(id string) (r Result, found bool, err error) {
	if !db.results.has(id) {
		return Result{}, false, nil
	}
	err = db.view(func(tx *bolt.Tx) (err error) {
		r, found, err = readResult(tx, id)
		return err
	})
	if err != nil {
		return Result{}, false, fmt.Errorf("read the result of request %q: %w", id, err)
	}
	return r, found, nil
}

// WriteBackup writes a copy of the registry, with the current count, to w. w should accept the data at once, as a
// buffer does: until the copy is complete, the database cannot reuse any page.
func (db *DB) WriteBackup(w io.Writer) error {
	err := db.flush()
	if err == nil {
		err = db.view(func(tx *bolt.Tx) error { return writeTx(tx, w) })
	}
	if err != nil {
		return fmt.Errorf("back up the state: %w", err)
	}
	return nil
}

// Backup writes a backup, with the current count, into the backups folder and returns its path, or "" if nothing has
// changed since the last backup. It then removes the oldest backups: see Options.KeepBackups.
func (db *DB) Backup() (path string, err error) {
	if err = db.flush(); err == nil {
		path, err = db.dir.backups().add(db.view)
	}
	if err != nil {
		return "", fmt.Errorf("back up the state: %w", err)
	}
	return path, nil
}

// ServeBackups makes a backup at once, unless there is one that is younger than a minute, and then one in each
// interval in which something has changed, until ctx ends. If backups fail, the first failure is logged and the
// attempts continue. An interval of 0 disables backups.
func (db *DB) ServeBackups(ctx context.Context, interval time.Duration) {
	if interval > 0 {
		db.dir.backups().serve(ctx, interval, db.Backup)
	}
}

// flush brings the count into the database.
func (db *DB) flush() error { return db.queue.do(context.Background(), request{flush: true}) }

// Alive returns nil if the committer answers. It writes nothing, and the committer answers even if nothing can be
// written. It is meant for a watchdog.
func (db *DB) Alive(ctx context.Context) error { return db.queue.do(ctx, request{ping: true}) }

// Writable returns nil if changes can be made durable now, otherwise the error that Apply would return.
func (db *DB) Writable() error { return db.queue.refusal() }

// Close marks the shutdown as clean, brings the count into the database, closes the files and gives up mastership,
// in this order. Calls made before Close are completed; calls made after it get ErrClosed. Further calls of Close
// return the same error.
func (db *DB) Close() error {
	db.close.Do(func() {
		db.queue.close()
		db.teller.drain() // waiting counts can still be written at this point
		db.counter.close()
		close(db.committer.stop)
		<-db.committer.done
		db.teller.end()
		db.lock.orderly = db.committer.err == nil
		err := errors.Join(db.committer.err, db.dir.ops.Perform(crashpoint.Unlock, db.lock.release))
		if err != nil {
			db.closeErr = fmt.Errorf("close the state: %w", err)
		}
	})
	return db.closeErr
}
