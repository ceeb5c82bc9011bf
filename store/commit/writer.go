package commit

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// database is the open state.db. Readers and the committer share it; only the committer exchanges it, and so uses file
// without mu.
type database struct {
	mu   sync.RWMutex
	file *boltfile.File // nil while state.db is being rewritten, and after Close
}

// errNotOpen means that state.db is not open or cannot be used any more.
var errNotOpen = errors.New("state.db is not open")

// view runs fn in a read transaction. stuck reports whether the transaction has made the file unusable.
func (d *database) view(fn func(*bolt.Tx) error) (stuck bool, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.file == nil || d.file.Stuck() {
		return false, errNotOpen
	}
	err = d.file.View(fn)
	return d.file.Stuck(), err
}

// exchange replaces the open file by next and returns the previous one. Either may be nil.
func (d *database) exchange(next *boltfile.File) (previous *boltfile.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	previous, d.file = d.file, next
	return previous
}

// writer makes changes durable in state.db and counter.dat. One goroutine uses it: that of Open, and then the
// committer.
//
// Invariant: txid and folded are those of the last acknowledged transaction of state.db, so folded never exceeds the
// acknowledged count. If a method returns an error, the files may be in any state between, and the writer must not be
// used again before a repair.
type writer struct {
	dir      *statedir.Dir
	lock     *statedir.Mastership
	database *database
	counter  *counter
	results  *once.Index
	self     *statedir.Own
	feed     *feed       // of the acknowledged events
	failed   func(error) // is called if nothing more may be acknowledged

	txid   uint64            // the last acknowledged transaction of state.db
	folded counterfile.Tally // the counts stored in that transaction
	foldAt time.Time         // when the count is due to be brought into state.db; zero if it is not
}

// commitCount makes a count durable that comes without any change of the registry: one write and one sync.
func (w *writer) commitCount(n int64) error {
	count := w.counter.tally()
	count.Processed += n
	if err := w.writeCount(count); err != nil {
		return err
	}
	w.counter.acknowledge(count)
	return nil
}

func (w *writer) writeCount(count counterfile.Tally) error {
	if err := w.counter.write(count); err != nil {
		return err
	}
	// Check after the write: if the file is still at its path now, the next master finds the written count.
	return w.present()
}

// syncCount makes the counts durable that callers have written.
func (w *writer) syncCount() error {
	if err := w.counter.sync(); err != nil {
		return err
	}
	return w.present()
}

// commitRegistry makes changes of the registry durable together with the count. Without results, the count is
// written to counter.dat first, so that the counter is never behind and has every acknowledged count if the
// database is lost. With results, the results and all counts of the batch are in the database or nowhere;
// counter.dat is updated afterwards.
func (w *writer) commitRegistry(muts []records.Mutation, n int64, results ...*once.Pending) error {
	count := w.counter.tally()
	count.Processed += n
	if n > 0 && len(results) == 0 {
		if err := w.writeCount(count); err != nil {
			return err
		}
	}
	var txid, last uint64
	var size int64
	var changes once.Changes
	err := w.database.file.Update(func(tx *bolt.Tx) (err error) {
		txid, size = uint64(tx.ID()), tx.Size()
		for _, m := range muts {
			if err := m.Apply(tx, w.dir.MaxEvents); err != nil {
				return err
			}
		}
		last = records.LastEvent(tx)
		if changes, err = w.results.Put(tx, results); err != nil {
			return err
		}
		count.Processed += int64(len(changes.Added))
		count.Keyed += int64(len(changes.Added))
		return records.PutProcessed(tx, count)
	}, w.commitTx)
	if err != nil {
		return fmt.Errorf("write %s: %w", w.dir.Database, err)
	}
	w.database.file.Reserve(size)
	w.txid, w.folded, w.foldAt = txid, count, time.Time{}
	w.results.Committed(changes)
	w.feed.publish(last)
	switch {
	case len(results) > 0:
		if err := w.counter.addStored(n, int64(len(changes.Added))); err != nil {
			w.failed(err) // the count itself is durable
		}
	case n > 0:
		w.counter.acknowledge(count)
	}
	return nil
}

// readResults reads some of the results that the index of results does not have yet.
func (w *writer) readResults() error {
	err := w.database.file.View(func(tx *bolt.Tx) error {
		w.results.ReadSome(tx, w.dir.Database)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the results of requests: %w", err)
	}
	return nil
}

// commitTx commits a transaction of state.db.
func (w *writer) commitTx(tx *bolt.Tx) error {
	if err := w.dir.Ops.Perform(crashpoint.Commit, tx.Commit); err != nil {
		return err
	}
	return w.present()
}

// roomFor makes sure that storing results does not use the space that is reserved for the registry: a full disk
// must not stop changes that need no new space.
func (w *writer) roomFor(results []*once.Pending) error {
	if len(results) == 0 {
		return nil
	}
	file := w.database.file
	size := file.HighWater()
	for _, r := range results {
		// Each result may change a page of its own, which is rewritten, and may cause other pages to move.
		size += r.Size + 2*int64(file.PageSize())
	}
	if err := w.dir.Ops.Perform(crashpoint.Room, func() error { return file.Room(size) }); err != nil {
		return unavailable(fmt.Errorf("no room for the result of a request: %w", err))
	}
	return nil
}

// hasUnfolded reports whether there are acknowledged counts that state.db does not have.
func (w *writer) hasUnfolded() bool { return w.counter.processed.Load() != w.folded.Processed }

// commitRecord makes record the database's own record.
func (w *writer) commitRecord(record records.Meta) error {
	m := records.PutMeta(record)
	if err := m.Check(); err != nil {
		return err
	}
	return w.commitRegistry([]records.Mutation{m}, 0)
}

// present returns nil if the open files are at their paths. The directory of a running master may be deleted, moved
// away or unmounted; writes to the open files then go to a place where the next master does not look.
func (w *writer) present() error {
	if err := presentAt(w.dir.Lock, w.lock.Info); err != nil {
		return err
	}
	if w.database.file != nil {
		if err := presentAt(w.dir.Database, w.database.file.Info()); err != nil {
			return err
		}
	}
	if info := w.counter.info(); info != nil {
		return presentAt(w.dir.Counter, info)
	}
	return nil
}

// presentAt returns nil if the open file that mine describes is at path.
func presentAt(path string, mine fs.FileInfo) error {
	switch is, err := statefile.LeadsTo(path, mine); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it was deleted, moved or unmounted under way: %w", err)
	case err != nil:
		return fmt.Errorf("look for it: %w", err)
	case !is:
		return fmt.Errorf("another file was put in the place of %s under way", path)
	}
	return nil
}

// exchange replaces the open files and closes the previous ones. Readers can use one or the other at every moment,
// unless next is nil.
func (w *writer) exchange(next *boltfile.File, count *counterfile.File) error {
	previousCount := w.counter.exchange(count)
	previous := w.database.exchange(next)
	var err error
	if previousCount != nil {
		err = previousCount.Close()
	}
	if previous != nil {
		err = errors.Join(err, previous.Close())
	}
	return err
}
