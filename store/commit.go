package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

const (
	// foldEvery is how long the count in state.db may lag behind counter.dat
	// while requests come in.
	foldEvery = time.Second

	// The delay between attempts to write the state anew.
	firstRepairDelay = 100 * time.Millisecond
	lastRepairDelay  = 5 * time.Second
)

// request is what one caller wants of the committer.
type request struct {
	count int64
	muts  []Mutation
	flush bool // bring the count into state.db
	ping  bool // only answer
}

// batch is what all callers want that came during one commit. Those that wait share
// its channel: to release hundreds of them costs one close.
type batch struct {
	done   chan struct{} // nil where nobody waits
	err    error         // valid once done is closed
	joined bool
	counts []Counted // to be told
	keyed  []*keyed  // likewise, of those that have an id
	request
}

// again makes a batch that nobody waits for, and so nobody else has, an empty one.
func (b *batch) again() *batch {
	clear(b.counts)
	clear(b.keyed)
	*b = batch{counts: b.counts[:0], keyed: b.keyed[:0]}
	return b
}

// join adds r to the batch that is committed next, and waits for it.
func (db *DB) join(ctx context.Context, r request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	db.mu.Lock()
	if err := db.refusal(); err != nil && (db.closed || !r.ping) {
		db.mu.Unlock()
		return err
	}
	b := db.next
	first := !b.joined
	b.joined = true
	if b.done == nil {
		b.done = make(chan struct{})
	}
	done := b.done
	b.count += r.count
	b.muts = append(b.muts, r.muts...)
	b.flush = b.flush || r.flush
	b.ping = b.ping || r.ping
	db.mu.Unlock()
	if first {
		db.kick()
	}
	if ctx.Done() == nil {
		<-done
	} else {
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the state to be written: %w", ctx.Err())
		}
	}
	if r.ping {
		return nil // answered, be the state writable or not
	}
	return b.err
}

// kick wakes the committer, now or when it is done with what it does.
func (db *DB) kick() {
	select {
	case db.wake <- struct{}{}:
	default:
	}
}

// fail makes everything unavailable until the committer has written the state
// anew. Only the first cause counts.
func (db *DB) fail(cause error) {
	db.mu.Lock()
	first := db.broken == nil
	if first {
		db.broken = cause
	}
	db.mu.Unlock()
	db.counterMu.Lock()
	if db.counterErr == nil {
		db.counterErr = unavailable(cause)
	}
	db.counterMu.Unlock()
	if first {
		db.opts.Logger.Error("state cannot be written", "path", db.path, "error", cause)
		db.kick()
	}
}

func (db *DB) isBroken() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.broken
}

// committer is what only the goroutine of that name uses. All that is made
// durable goes through it.
type committer struct {
	spare *batch // to be joined next, nil for a new one

	txid   uint64 // the last transaction of state.db that was acknowledged
	folded tally  // the count in it

	// When something is due; zero: nothing to do.
	syncAt, foldAt, dropAt, repairAt time.Time
	repairDelay                      time.Duration
	// unopened: what the start has found is still to be recorded.
	unopened bool

	home FileID      // the folder that the state is in
	mine fs.FileInfo // of state.db as it was opened last

	// During repairs: the database that was open before, what is wrong with it where it
	// must be rescued, and the file that was to take its place last.
	source  *os.File
	damage  error
	attempt fs.FileInfo

	// Results that were dropped before their time since that was told last.
	early     int
	earlyTold time.Time

	lastErr error // of the orderly end, valid once done is closed
}

// run is the committer.
func (db *DB) run() {
	defer close(db.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	armed := time.Time{}
	for {
		select {
		case <-db.wake:
			// The caller that woke us made us next to run. Let those run first that
			// can: the last batch has just released them, and most want to join this
			// one (measured: twice as many to a sync, a sixth of the CPU time of a
			// request saved). Where nobody else can run this is no delay.
			runtime.Gosched()
		case <-timer.C:
			armed = time.Time{}
		case <-db.stop:
			db.commitNext()
			db.lastErr = db.finish()
			return
		}
		db.commitNext()
		if due := db.chores(); due != armed {
			armed = due
			if due.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(due))
			}
		}
	}
}

// commitNext commits the batch that callers have joined so far.
func (db *DB) commitNext() {
	db.mu.Lock()
	b := db.next
	if !b.joined {
		db.mu.Unlock()
		return
	}
	db.next, db.spare = db.spare, nil
	if db.next == nil {
		db.next = new(batch)
	}
	db.mu.Unlock()
	// What changes the registry goes with the first of those that have an id, and no
	// transaction takes more of them than it should.
	some, more := nextResults(b.keyed)
	b.err = db.commit(b.request, some)
	db.teller.tellAll(b.counts, b.err)
	db.teller.tellKeyed(some, b.err)
	for len(more) > 0 {
		some, more = nextResults(more)
		db.teller.tellKeyed(some, db.commit(request{}, some))
	}
	if b.done != nil {
		close(b.done)
		return
	}
	db.spare = b.again()
}

// nextResults takes of list what one transaction should store at most.
func nextResults(list []*keyed) (some, more []*keyed) {
	var size int64
	for i, k := range list {
		if size += k.size; i == resultsPerCommit || i > 0 && size > resultBytesPerCommit {
			return list[:i], list[i:]
		}
	}
	return list, nil
}

func (db *DB) commit(r request, results []*keyed) error {
	if r.ping && db.isBroken() == nil {
		// Nothing would be written for hours, maybe.
		if err := db.present(); err != nil {
			db.fail(err)
		}
	}
	if cause := db.isBroken(); cause != nil && (len(results) > 0 || len(r.muts) > 0 || r.flush || r.count > 0) {
		return unavailable(cause)
	}
	if err := db.roomFor(results); err != nil {
		for _, k := range results {
			k.err = err
		}
		results = nil
	}
	registry := len(results) > 0 || len(r.muts) > 0 || r.flush && (r.count > 0 || db.acked.Load() != db.folded.processed)
	if !registry && r.count == 0 {
		return nil
	}
	var err error
	if registry {
		err = db.commitRegistry(r.muts, r.count, results...)
	} else {
		err = db.commitCount(r.count)
	}
	if err != nil {
		db.fail(err)
		return unavailable(err)
	}
	return nil
}

// commitCount makes a count durable that comes without any change of the
// registry: one write and one sync.
func (db *DB) commitCount(n int64) error {
	count := db.tally()
	count.processed += n
	if err := db.writeCount(count); err != nil {
		return err
	}
	db.setTally(count)
	return nil
}

func (db *DB) writeCount(count tally) error {
	err := db.do(crashpoint.Count, func() error { return db.counter.write(count) })
	if err == nil {
		err = db.do(crashpoint.CountSync, db.counter.sync)
	}
	if err == nil {
		err = db.present() // now: what is written and found is found by the next master
	}
	return err
}

// commitRegistry makes changes of the registry durable, and the count with them.
// The count goes into the counter first, which so is never behind: it holds all that
// was acknowledged, should the database be lost. Not so with results: they and their
// count are in the database or nowhere, and the counter learns of them afterwards, as
// of what came with them.
func (db *DB) commitRegistry(muts []Mutation, n int64, results ...*keyed) error {
	count := db.tally()
	count.processed += n
	if n > 0 && len(results) == 0 {
		if err := db.writeCount(count); err != nil {
			return err
		}
	}
	var txid uint64
	var size int64
	var stored turnover
	now := db.opts.BootTime()
	err := db.handle.update(func(tx *bolt.Tx) (err error) {
		txid, size = uint64(tx.ID()), tx.Size()
		for _, m := range muts {
			if err := m.apply(tx, db.opts.MaxEvents); err != nil {
				return err
			}
		}
		if stored, err = db.settleResults(tx, results, now); err != nil {
			return err
		}
		count.processed += int64(len(stored.added))
		count.keyed += int64(len(stored.added))
		return putProcessed(tx, count)
	}, db.commitTx)
	if err != nil {
		return fmt.Errorf("write %s: %w", db.path, err)
	}
	db.handle.reserve(size)
	db.txid, db.folded, db.foldAt = txid, count, time.Time{}
	if early := db.results.made(stored, now); early > 0 {
		db.tellDropped(early)
	}
	switch {
	case len(results) > 0:
		db.countStored(n, int64(len(stored.added)))
	case n > 0:
		db.setTally(count)
	}
	return nil
}

// roomFor makes sure that storing results takes nothing of the space that the registry
// is kept to grow into: a full disk must not stop what needs no space.
func (db *DB) roomFor(results []*keyed) error {
	if len(results) == 0 {
		return nil
	}
	h := db.handle
	size := h.highWater()
	for _, k := range results {
		// Each may change a page of its own, which is written anew, and move others.
		size += k.size + 2*int64(h.bolt.Info().PageSize)
	}
	if err := db.do(crashpoint.Room, func() error { return h.room(size) }); err != nil {
		return unavailable(fmt.Errorf("no room for the result of a request: %w", err))
	}
	return nil
}

// countStored brings what has just become durable in the database into the counter:
// into the file only, since it would be missed only if the database were lost too. That
// it cannot be written takes nothing back, but nothing more is acknowledged then.
func (db *DB) countStored(n, results int64) {
	db.counterMu.Lock()
	// With SyncInterval, others have counted meanwhile.
	count := tally{db.acked.Load() + n + results, db.keyed + results}
	db.acked.Store(count.processed)
	db.keyed = count.keyed
	err := db.counterErr
	if err == nil || errors.Is(err, ErrClosed) { // Close lets what came before it end
		err = db.do(crashpoint.Count, func() error { return db.counter.write(count) })
	}
	db.counterWork = db.counterWork || err == nil
	db.counterMu.Unlock()
	if err != nil && !errors.Is(err, ErrUnavailable) {
		db.fail(err)
	}
}

// tellDropped says now and then that results are dropped before their time.
func (db *DB) tellDropped(n int) {
	db.early += n
	if now := time.Now(); now.Sub(db.earlyTold) >= time.Minute {
		db.opts.Logger.Warn("results of requests are dropped before their time, since there are too many: a retry of theirs is counted again", "dropped", db.early)
		db.early, db.earlyTold = 0, now
	}
}

func (db *DB) commitTx(tx *bolt.Tx) error {
	if err := db.do(crashpoint.Commit, tx.Commit); err != nil {
		return err
	}
	return db.present()
}

// chores does what is due beside the batches and returns when the next of it
// is, or zero.
func (db *DB) chores() time.Time {
	now := time.Now()
	due := func(at *time.Time, wanted bool, delay time.Duration) bool {
		if !wanted {
			*at = time.Time{}
			return false
		}
		if at.IsZero() {
			*at = now.Add(delay)
		}
		if now.Before(*at) {
			return false
		}
		*at = time.Time{}
		return true
	}
	var err error
	if due(&db.syncAt, db.unsynced(), db.opts.Interval) {
		err = db.syncUnsynced()
	}
	if err == nil && due(&db.foldAt, db.isBroken() == nil && db.acked.Load() != db.folded.processed, foldEvery) {
		err = db.commitRegistry(nil, 0)
	}
	dropDue := func() (in time.Duration, is bool) {
		in, some := db.results.dropIn(db.opts.BootTime())
		return in, due(&db.dropAt, some && db.isBroken() == nil, max(in, dropEvery))
	}
	if in, is := dropDue(); err == nil && is {
		if in == 0 { // and not for a result that went before
			err = db.commitRegistry(nil, 0)
		}
		dropDue()
	}
	if err != nil {
		db.fail(err)
	}
	if due(&db.repairAt, db.isBroken() != nil, db.repairDelay) {
		db.tryRepair()
	}
	return earliest(db.syncAt, db.foldAt, db.dropAt, db.repairAt)
}

// unsynced tells whether callers have written a count that is not synced.
func (db *DB) unsynced() bool {
	db.counterMu.Lock()
	defer db.counterMu.Unlock()
	return db.counterWork && db.counterErr == nil
}

func (db *DB) syncUnsynced() error {
	// Before the sync: what is written during it needs another one.
	db.counterMu.Lock()
	db.counterWork = false
	db.counterMu.Unlock()
	if err := db.do(crashpoint.CountSync, db.counter.sync); err != nil {
		return err
	}
	return db.present()
}

func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// finish is the orderly end: the clean-shutdown marker, the count, the files.
func (db *DB) finish() error {
	err := db.recordEnd()
	if err != nil {
		db.fail(err)
		db.tryRepair() // a last time
		err = db.recordEnd()
	}
	if db.source != nil {
		err = errors.Join(err, db.source.Close())
	}
	return errors.Join(err, db.closeFiles())
}

// recordEnd records the end.
func (db *DB) recordEnd() error {
	if cause := db.isBroken(); cause != nil {
		return unavailable(cause)
	}
	db.mu.Lock()
	record := db.record
	db.mu.Unlock()
	record.CleanShutdown = true
	return db.commitRegistry([]Mutation{putMeta(record)}, 0)
}

// closeFiles closes what is open of state.db and counter.dat.
func (db *DB) closeFiles() error { return db.exchange(openFiles{}).close() }

// openFiles are state.db and counter.dat, nil where they are not open.
type openFiles struct {
	handle  *handle
	counter *counterFile
}

// exchange brings other files into use, and returns those that were: there is no
// moment at which none can be read, unless the new ones are none.
func (db *DB) exchange(next openFiles) (was openFiles) {
	db.counterMu.Lock()
	was.counter, db.counter = db.counter, next.counter
	if next.counter != nil {
		db.counterWork = false
	}
	db.counterMu.Unlock()
	db.handleMu.Lock()
	was.handle, db.handle = db.handle, next.handle
	db.handleMu.Unlock()
	return was
}

func (f openFiles) close() error {
	var err error
	if f.counter != nil {
		err = f.counter.close()
	}
	if f.handle != nil {
		err = errors.Join(err, f.handle.close())
	}
	return err
}
