package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// tryRepair writes the state anew and resumes service, or arranges for the next
// attempt.
func (db *DB) tryRepair() {
	err := db.do(crashpoint.Repair, db.repair)
	if err != nil {
		db.repairDelay = cmp.Or(min(2*db.repairDelay, lastRepairDelay), firstRepairDelay)
		db.repairAt = time.Now().Add(db.repairDelay)
		db.mu.Lock()
		db.broken = err // the newest reason is the one to tell
		db.mu.Unlock()
		db.opts.Logger.Warn("state still cannot be written", "path", db.path, "retry", db.repairDelay, "error", err)
		return
	}
	db.repairDelay, db.repairAt = 0, time.Time{}
	db.mu.Lock()
	db.broken = nil
	db.mu.Unlock()
	db.counterMu.Lock()
	if !errors.Is(db.counterErr, ErrClosed) {
		db.counterErr = nil
	}
	db.counterMu.Unlock()
	db.opts.Logger.Info("state written anew, service resumes", "path", db.path)
}

// repair follows a write or sync that failed. What the kernel still holds of
// the file may differ from what the disk does, and a second sync would tell
// nothing (the kernel reports an error once and calls the pages clean). So the
// state of the last acknowledged transaction, every page of which was synced
// before it was acknowledged, goes into a new file, and the count into another.
// What failed is undone by that, also where bbolt could already see it.
//
// The file is read by a descriptor, since its name may be gone: see settlePlace.
func (db *DB) repair() error {
	if db.handle != nil {
		if source := db.handle.takeSource(); source != nil {
			db.source = source
		}
	}
	use := func(next openFiles) {
		if err := db.exchange(next).close(); err != nil {
			db.opts.Logger.Warn("closing what could not be written failed", "path", db.path, "error", err)
		}
	}
	if !db.unopened {
		use(openFiles{}) // else they hold nothing that was not there before, and are read
	}
	rescued, err := db.writeAnew()
	if err != nil {
		return err
	}
	db.mu.Lock()
	short := db.record.CountShortSince
	db.mu.Unlock()
	counter, err := db.createCounter(db.dir, db.tally(), short)
	if err != nil {
		return err
	}
	h, err := openHandle(db.path, true, db.opts.LockWait)
	if err != nil {
		_ = counter.close()
		return fmt.Errorf("reopen %s: %w", db.path, err)
	}
	if rescued {
		if err := errors.Join(db.learn(h), db.loadResults(h)); err != nil {
			return errors.Join(err, counter.close(), h.close())
		}
	}
	h.reserve(h.highWater())
	use(openFiles{h, counter})
	if err := db.source.Close(); err != nil {
		return err
	}
	db.source, db.damage, db.mine, db.attempt = nil, nil, h.info, nil
	if err := db.settleFolder(); err != nil {
		return err
	}
	if db.unopened {
		if err := db.recordOpened(&Meta{}); err != nil {
			return err
		}
		db.unopened = false
	}
	return nil
}

// writeAnew puts a new state.db into its place; rescued tells that it had to be made
// from a backup.
func (db *DB) writeAnew() (rescued bool, err error) {
	if db.damage == nil {
		if err := db.settlePlace(db.source); err != nil {
			return false, err
		}
		err := db.rewrite(db.source)
		if err == nil {
			return false, nil
		}
		// What is damaged and was deleted cannot be left in its place either.
		damaged, ok := errors.AsType[*DamagedError](err)
		if !ok || db.opts.OnDamage == Refuse && !isMissing(db.path) {
			return false, fmt.Errorf("write %s anew: %w", db.path, err)
		}
		db.damage = damaged
	}
	damage := db.damage
	if isMissing(db.path) {
		damage = nil // deleted, or kept aside by an attempt before
	}
	if err := db.rescueUnderWay(damage); err != nil {
		return false, fmt.Errorf("write %s anew: %w", db.path, err)
	}
	db.attempt, err = os.Stat(db.path)
	return true, err
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// rescueUnderWay follows damage that nothing can be written anew from: somebody has
// cut the file off, say. As at a start the newest good backup takes its place; nil
// where it is aside already. What is newer in the registry is lost until the next
// start finds it among the living processes; the count is not, as it is known here.
func (db *DB) rescueUnderWay(damage error) error {
	db.mu.Lock()
	record := db.record
	db.mu.Unlock()
	return db.rescue(&finding{
		id:    record.MasterID,
		count: reading{slot: slot{1, db.tally()}, short: record.CountShortSince},
	}, damage)
}

// learn takes what a database says of itself that was made under way.
func (db *DB) learn(h *handle) error {
	return h.view(func(tx *bolt.Tx) error {
		t := tablesOf(tx)
		record, err := t.meta()
		if err != nil {
			return err
		}
		if db.folded, err = t.tally(); err != nil {
			return err
		}
		db.txid = uint64(tx.ID())
		db.mu.Lock()
		db.record = record
		db.mu.Unlock()
		return nil
	})
}
