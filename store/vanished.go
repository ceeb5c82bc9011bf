package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// The folder of a running master may be deleted, moved away or unmounted. What is
// written to the open files then goes where no next master looks, so nothing is
// acknowledged until the state is at its paths again. Files that were deleted are
// written back, since nobody but this master has them any more; ones that were moved
// are waited for, and what others have put in their place is left alone.

// present tells whether the open files are at their paths.
func (db *DB) present() error {
	db.counterMu.Lock()
	counter := db.counter
	db.counterMu.Unlock()
	open := map[string]fs.FileInfo{lockName: db.lock.info}
	if db.handle != nil {
		open[dbName] = db.handle.info
	}
	if counter != nil {
		open[counterName] = counter.info
	}
	for name, mine := range open {
		switch there, err := os.Stat(filepath.Join(db.dir, name)); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("it was deleted, moved or unmounted under way: %w", err)
		case err == nil && !os.SameFile(mine, there):
			return fmt.Errorf("another file was put in the place of %s under way", filepath.Join(db.dir, name))
		case err != nil:
			return fmt.Errorf("look for it: %w", err)
		}
	}
	return nil
}

// settlePlace makes sure that what is about to be written comes to where the state
// belongs, and takes nobody else's place. The source is the open database.
func (db *DB) settlePlace(source *os.File) error {
	there, err := os.Stat(db.path)
	if err == nil && db.attempt != nil && os.SameFile(db.attempt, there) {
		db.mine = there // it came that far before something else failed, and stays there if this attempt does not
	}
	switch {
	case err == nil && os.SameFile(db.mine, there):
		return db.keepMastership()
	case err == nil:
		return fmt.Errorf("another state was put in its place under way: %s is left as it is: stop this master before its state is replaced", db.path)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for %s: %w", db.path, err)
	}
	if deleted, err := deleted(source); err != nil || !deleted {
		return errors.Join(fmt.Errorf("%s was moved or unmounted under way: bring it back", db.path), err)
	}
	db.opts.Logger.Warn("state was deleted under way, writing it back", "path", db.path)
	if err := errors.Join(db.makeDir(db.dir), db.syncWay(db.dir)); err != nil {
		return err
	}
	if err := db.keepMastership(); err != nil {
		return err
	}
	mine := db.MasterID()
	switch id, err := readMasterID(db.dir); {
	case err != nil:
		return err
	case id == "":
		return db.writeMasterID(db.dir, mine)
	case id != mine:
		return fmt.Errorf("the state of another master (%s) was put in its place under way: it is left as it is: stop this master before its state is replaced", id)
	}
	return nil
}

// keepMastership takes the lock again where its file is gone: another master could
// take a new one.
func (db *DB) keepMastership() error {
	if isAt(db.lock.f, filepath.Join(db.dir, lockName)) {
		return nil
	}
	again, err := db.acquireMastership(db.dir, 0)
	if err != nil {
		return err
	}
	_ = db.lock.f.Close()
	db.lock = again
	return nil
}

// settleFolder records the folder that the state was written back to, which is not
// the one that it was made for.
func (db *DB) settleFolder() error {
	now := db.StateDirID()
	db.mu.Lock()
	record := db.record
	db.mu.Unlock()
	if record.StateDir != db.home || now == db.home {
		return nil // as it is, or not known to be ours: see Moved
	}
	record.StateDir = now
	if err := db.commitRegistry([]Mutation{putMeta(record)}, 0); err != nil {
		return err
	}
	db.home = now
	db.mu.Lock()
	defer db.mu.Unlock()
	db.record = record
	return nil
}

// rewrite writes state.db anew, from the open one.
func (db *DB) rewrite(source *os.File) error {
	return db.replaceFile(crashpoint.Rewrite, db.path, func(dst *os.File) error {
		info, err := source.Stat()
		if err != nil {
			return err
		}
		img, err := openImage(source, info.Size())
		if err != nil {
			return &DamagedError{Path: db.path, Err: err}
		}
		acknowledged, err := img.at(db.txid)
		if err != nil {
			return &DamagedError{Path: db.path, Err: err}
		}
		if db.attempt, err = dst.Stat(); err != nil {
			return err
		}
		return acknowledged.writeTo(dst)
	})
}
