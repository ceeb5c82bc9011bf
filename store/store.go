package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// SyncMode says what a returned AddProcessed has survived.
type SyncMode int

const (
	// SyncAlways survives a power cut.
	SyncAlways SyncMode = iota
	// SyncInterval survives the death of the process at once, and a power cut
	// after at most Options.Interval.
	SyncInterval
)

// Options of Open; the zero value works.
type Options struct {
	Sync      SyncMode
	Interval  time.Duration // of SyncInterval; 0 means 100ms
	LockWait  time.Duration // for another master to end; 0 means 2s
	MaxEvents int           // kept in the registry; 0 means 1000
	OnDamage  OnDamage      // of a file of the state that cannot be trusted
	// KeepBackups is how many of the newest backups stay; 0 means 8.
	KeepBackups int
	// RequestTTL is how long the result of a request with an id is kept, see CountOnce;
	// 0 means 10 minutes. Over a reboot it is kept for up to as long again.
	RequestTTL time.Duration
	// MaxResults and MaxResultBytes bound what is kept of them; of too many the oldest
	// go first. 0 means 100,000 and 32 MiB.
	MaxResults     int
	MaxResultBytes int64
	// BootTime is a clock that never steps and goes on over a restart of this process,
	// and BootID what it is valid in, so that a result's age is known after a restart.
	// Without them, it begins anew with each.
	BootTime func() time.Duration
	BootID   string
	// LostID is asked for the master's id where every record of it is lost: the
	// living workers know it. "" where they do not. May be nil.
	LostID func() (string, error)
	Logger *slog.Logger // nil discards
}

func (o Options) withDefaults() Options {
	o.Interval = cmp.Or(max(o.Interval, 0), 100*time.Millisecond)
	o.LockWait = cmp.Or(max(o.LockWait, 0), 2*time.Second)
	o.MaxEvents = cmp.Or(max(o.MaxEvents, 0), 1000)
	o.KeepBackups = cmp.Or(max(o.KeepBackups, 0), 8)
	o.RequestTTL = cmp.Or(max(o.RequestTTL, 0), 10*time.Minute)
	o.MaxResults = cmp.Or(max(o.MaxResults, 0), 100_000)
	o.MaxResultBytes = cmp.Or(max(o.MaxResultBytes, 0), 32<<20)
	if o.BootTime == nil {
		began := time.Now()
		o.BootTime, o.BootID = func() time.Duration { return time.Since(began) }, ""
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// seams are what tests replace.
type seams struct {
	steps migrations.List
	// at is asked before each durable act, by its point ("commit"), and once it is
	// done ("after-commit"); its error becomes that of the act. Nil never fails.
	at func(moment string) error
}

// do does what is durable: see [crashpoint.Do].
func (s seams) do(p crashpoint.Point, act func() error) error {
	if s.at == nil {
		return crashpoint.Do(p, act)
	}
	return crashpoint.Do(p, func() error {
		if err := s.at(string(p)); err != nil {
			return err
		}
		if err := act(); err != nil {
			return err
		}
		return s.at(p.After())
	})
}

// DB is an open state directory, and with it mastership over it. Its methods
// may be called concurrently.
type DB struct {
	dir  string
	path string // of state.db
	opts Options
	seams
	lock  *mastership
	found Meta

	acked   atomic.Int64 // processed, as acknowledged
	results results

	mu     sync.Mutex
	next   *batch // that callers join
	closed bool
	broken error // why nothing can be made durable, nil where it can
	record Meta  // as it stands in the file
	dirID  FileID

	wake chan struct{} // one token: there is something to do
	stop chan struct{}
	done chan struct{} // closed when the committer has ended

	close    sync.Once
	closeErr error

	// counterMu guards the counter file. In SyncInterval callers write it.
	counterMu   sync.Mutex
	counter     *counterFile
	counterErr  error // why callers must not write it
	counterWork bool  // it holds what is not synced yet, and the committer knows
	keyed       int64 // of acked, what came by CountOnce

	handleMu sync.RWMutex
	handle   *handle // nil while it is written anew, and after Close

	committer
	teller teller
}

// Dir returns the state directory as it was given to Open.
func (db *DB) Dir() string { return db.dir }

// MasterID returns the UUID of this state: in the file master-id, in the
// database, and in the environment of every worker.
func (db *DB) MasterID() string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.record.MasterID
}

// DirID returns the device and inode of a directory, by which a state directory is
// told from a copy of it.
func DirID(dir string) (FileID, error) { return dirID(dir) }

// StateDirID returns the device and inode of the state directory, now.
func (db *DB) StateDirID() FileID {
	id, err := dirID(db.dir)
	db.mu.Lock()
	defer db.mu.Unlock()
	if err == nil {
		db.dirID = id
	}
	return db.dirID
}

// Meta returns the database's own record as Open found it: CleanShutdown tells
// of the run before this one.
func (db *DB) Meta() Meta { return db.found }

// Moved tells whether the database was made for another directory than this
// one: then the directory is a copy, or was moved, and what it records may be
// the workers of another master.
func (db *DB) Moved() bool {
	now := db.StateDirID()
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.record.StateDir != now
}

// AcceptMove records this directory as the one that the database is for, so
// that Moved is false from then on. The caller has settled every recorded
// worker before.
func (db *DB) AcceptMove(ctx context.Context) error {
	now := db.StateDirID()
	db.mu.Lock()
	record := db.record
	db.mu.Unlock()
	record.StateDir = now
	if err := db.Apply(ctx, putMeta(record)); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.record = record
	return nil
}

// Snapshot reads the whole registry in one transaction. Records that cannot be
// read are in Snapshot.Bad and hide none of the others. Beside an error it holds what
// is known without the file.
func (db *DB) Snapshot() (Snapshot, error) {
	var s Snapshot
	err := db.view(func(tx *bolt.Tx) (err error) {
		s, err = readAll(tx)
		return err
	})
	if err != nil {
		db.mu.Lock()
		defer db.mu.Unlock()
		return Snapshot{SchemaVersion: db.steps.Version(), Meta: db.record, Processed: db.acked.Load()}, fmt.Errorf("read the state: %w", err)
	}
	// The file may be behind, or hold what a commit that failed has left there.
	s.Processed = db.acked.Load()
	s.Results = db.results.count()
	return s, nil
}

// view runs fn in a read transaction of the open file.
func (db *DB) view(fn func(*bolt.Tx) error) error {
	db.handleMu.RLock()
	defer db.handleMu.RUnlock()
	h := db.handle
	if h == nil || h.stuck.Load() {
		db.mu.Lock()
		defer db.mu.Unlock()
		if db.closed {
			return ErrClosed
		}
		return unavailable(db.broken)
	}
	err := h.view(fn)
	if h.stuck.Load() {
		// The committer must not use it any more.
		db.fail(err)
	}
	return err
}

// Apply makes all of muts durable in one transaction, synced to the disk when
// it returns nil. ctx bounds only the wait: the changes may be made after it
// has ended. After ErrUnavailable they may or may not have been made, but are
// not made any more once service has resumed.
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
	return db.join(ctx, request{muts: muts})
}

// AddProcessed adds n to the processed count, durably as Options.Sync says when
// it returns nil. ctx bounds only the wait: after its error n may be counted.
func (db *DB) AddProcessed(ctx context.Context, n int64) error {
	if n < 0 {
		return fmt.Errorf("count %d more requests: want 0 or more", n)
	}
	if db.opts.Sync == SyncInterval {
		return db.addUnsynced(ctx, n)
	}
	return db.join(ctx, request{count: n})
}

// addUnsynced writes the count in the caller's own goroutine: one short write
// into the page cache is cheaper than any hand-over.
func (db *DB) addUnsynced(ctx context.Context, n int64) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("count a request: %w", err)
	}
	db.counterMu.Lock()
	if err := db.counterErr; err != nil {
		db.counterMu.Unlock()
		return err
	}
	count := tally{db.acked.Load() + n, db.keyed}
	err := db.do(crashpoint.Count, func() error { return db.counter.write(count) })
	if err != nil {
		db.counterErr = unavailable(err)
		db.counterMu.Unlock()
		db.fail(err)
		return unavailable(err)
	}
	db.acked.Store(count.processed)
	tell := !db.counterWork
	db.counterWork = true
	db.counterMu.Unlock()
	if tell {
		db.kick()
	}
	return nil
}

// tally is what was acknowledged.
func (db *DB) tally() tally {
	db.counterMu.Lock()
	defer db.counterMu.Unlock()
	return tally{db.acked.Load(), db.keyed}
}

func (db *DB) setTally(t tally) {
	db.counterMu.Lock()
	defer db.counterMu.Unlock()
	db.acked.Store(t.processed)
	db.keyed = t.keyed
}

// Processed returns the count of processed requests: every acknowledged one.
func (db *DB) Processed() int64 { return db.acked.Load() }

// Alive returns nil when the committer has answered. Nothing is written; also
// where nothing can be written it answers. A watchdog asks this.
func (db *DB) Alive(ctx context.Context) error { return db.join(ctx, request{ping: true}) }

// Available returns nil where changes can be made durable, else why they cannot.
func (db *DB) Available() error {
	if cause := db.isBroken(); cause != nil {
		return unavailable(cause)
	}
	return nil
}

// Close marks the shutdown as clean, brings the count into the database, closes
// the files and gives mastership up, in this order. Calls that came before it
// are finished; those after it get ErrClosed. Further calls of Close return the
// same.
func (db *DB) Close() error {
	db.close.Do(func() {
		db.mu.Lock()
		db.closed = true
		db.mu.Unlock()
		db.teller.drain() // what it has still to count, it can
		db.counterMu.Lock()
		db.counterErr = ErrClosed
		db.counterMu.Unlock()
		close(db.stop)
		<-db.done
		db.teller.end()
		db.lock.orderly = db.lastErr == nil
		if err := errors.Join(db.lastErr, db.do(crashpoint.Unlock, db.lock.release)); err != nil {
			db.closeErr = fmt.Errorf("close the state: %w", err)
		}
	})
	return db.closeErr
}

// Writable returns nil where changes can be made durable now, and else what Apply
// would return.
func (db *DB) Writable() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.refusal()
}

func unavailable(cause error) error {
	if cause == nil {
		return ErrUnavailable
	}
	if what := remedy(cause); what != "" {
		return fmt.Errorf("%w: %w: %s, and service resumes by itself", ErrUnavailable, cause, what)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, cause)
}
