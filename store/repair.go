package store

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"time"
)

// tryRepair writes the state anew and resumes service, or arranges for the next
// attempt.
func (db *DB) tryRepair() {
	err := db.repair()
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
func (db *DB) repair() error {
	if err := db.fault("repair"); err != nil {
		return err
	}
	if err := db.closeFiles(); err != nil {
		db.opts.Logger.Warn("closing what could not be written failed", "path", db.path, "error", err)
	}
	if err := db.rewrite(); err != nil {
		return fmt.Errorf("write %s anew: %w", db.path, err)
	}
	counter, err := createCounter(db.dir, db.acked.Load())
	if err != nil {
		return err
	}
	h, err := openHandle(db.path, true, db.opts.LockWait)
	if err != nil {
		_ = counter.close()
		return fmt.Errorf("reopen %s: %w", db.path, err)
	}
	db.counterMu.Lock()
	db.counter, db.counterWork = counter, false
	db.counterMu.Unlock()
	db.handleMu.Lock()
	db.handle = h
	db.handleMu.Unlock()
	return nil
}

func (db *DB) rewrite() error {
	return replaceFile(db.path, func(dst *os.File) error {
		src, img, err := loadImage(db.path)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }()
		acknowledged, err := img.at(db.txid)
		if err != nil {
			return &DamagedError{Path: db.path, Err: err}
		}
		return acknowledged.writeTo(dst)
	})
}
