package store

import (
	"context"
	"errors"
	"fmt"
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

// batch is what all callers want that came during one commit. They share its
// channel: to release hundreds of them costs one close.
type batch struct {
	done   chan struct{}
	err    error // valid once done is closed
	joined bool
	request
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// join adds r to the batch that is committed next, and waits for it.
func (db *DB) join(ctx context.Context, r request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	db.mu.Lock()
	switch {
	case db.closed:
		db.mu.Unlock()
		return ErrClosed
	case db.broken != nil && !r.ping:
		err := unavailable(db.broken)
		db.mu.Unlock()
		return err
	}
	b := db.next
	first := !b.joined
	b.joined = true
	b.count += r.count
	b.muts = append(b.muts, r.muts...)
	b.flush = b.flush || r.flush
	db.mu.Unlock()
	if first {
		db.kick()
	}
	if ctx.Done() == nil {
		<-b.done
	} else {
		select {
		case <-b.done:
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
	txid   uint64 // the last transaction of state.db that was acknowledged
	folded int64  // the count in it

	// When something is due; zero: nothing to do.
	syncAt, foldAt, repairAt time.Time
	repairDelay              time.Duration

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
	db.next = newBatch()
	db.mu.Unlock()
	b.err = db.commit(b.request)
	close(b.done)
}

func (db *DB) commit(r request) error {
	registry := len(r.muts) > 0 || r.flush
	if !registry && r.count == 0 {
		return nil
	}
	if cause := db.isBroken(); cause != nil {
		return unavailable(cause)
	}
	var err error
	if registry {
		err = db.commitRegistry(r.muts, r.count)
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
	crashpoint.Hit(crashpoint.BeforeCommit)
	count := db.acked.Load() + n
	err := db.fault("write counter")
	if err == nil {
		err = db.counter.write(count)
	}
	if err == nil {
		err = db.syncCounter()
	}
	if err != nil {
		return err
	}
	db.acked.Store(count)
	crashpoint.Hit(crashpoint.AfterCommit)
	return nil
}

func (db *DB) syncCounter() error {
	if err := db.fault("sync counter"); err != nil {
		return err
	}
	return db.counter.sync()
}

// commitRegistry makes changes of the registry durable, and the count with them.
func (db *DB) commitRegistry(muts []Mutation, n int64) error {
	count := db.acked.Load() + n
	var txid uint64
	err := db.handle.update(func(tx *bolt.Tx) error {
		txid = uint64(tx.ID())
		for _, m := range muts {
			if err := m.apply(tx, db.opts.MaxEvents); err != nil {
				return err
			}
		}
		return putProcessed(tx, count)
	}, db.commitTx)
	if err != nil {
		return fmt.Errorf("write %s: %w", db.path, err)
	}
	db.txid, db.folded, db.foldAt = txid, count, time.Time{}
	if n > 0 {
		db.acked.Store(count)
	}
	return nil
}

func (db *DB) commitTx(tx *bolt.Tx) error {
	if err := db.fault("commit"); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	return db.fault("committed")
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
	if err == nil && due(&db.foldAt, db.isBroken() == nil && db.acked.Load() != db.folded, foldEvery) {
		err = db.commitRegistry(nil, 0)
	}
	if err != nil {
		db.fail(err)
	}
	if due(&db.repairAt, db.isBroken() != nil, db.repairDelay) {
		db.tryRepair()
	}
	return earliest(db.syncAt, db.foldAt, db.repairAt)
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
	return db.syncCounter()
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
	if db.isBroken() != nil {
		db.tryRepair() // a last time
	}
	err := db.isBroken()
	if err != nil {
		err = unavailable(err)
	} else {
		db.mu.Lock()
		record := db.record
		db.mu.Unlock()
		record.CleanShutdown = true
		err = db.commitRegistry([]Mutation{putMeta(record)}, 0)
	}
	return errors.Join(err, db.closeFiles())
}

// closeFiles closes what is open of state.db and counter.dat.
func (db *DB) closeFiles() error {
	db.counterMu.Lock()
	counter := db.counter
	db.counter = nil
	db.counterMu.Unlock()
	db.handleMu.Lock()
	h := db.handle
	db.handle = nil
	db.handleMu.Unlock()
	var err error
	if counter != nil {
		err = counter.close()
	}
	if h != nil {
		err = errors.Join(err, h.close())
	}
	return err
}
