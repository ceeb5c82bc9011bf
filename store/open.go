package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

// Open takes mastership over the state directory and opens what is in it, or
// creates it. An older schema is migrated, after a copy was put into backups/.
//
// Besides errors of the operating system it returns a [LockedError] where
// another master holds the state after Options.LockWait, a [DamagedError] where
// a file cannot be trusted (which is left as it is) and a [NewerSchemaError].
func Open(dir string, opts Options) (*DB, error) {
	return open(dir, opts, seams{steps: migrations.All})
}

func open(dir string, opts Options, seams seams) (_ *DB, err error) {
	db := &DB{
		dir:   dir,
		path:  filepath.Join(dir, dbName),
		opts:  opts.withDefaults(),
		seams: seams,
		next:  newBatch(),
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if db.dirID, err = dirID(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if db.lock, err = acquireMastership(dir, db.opts.LockWait); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.closeFiles(), db.lock.release())
		}
	}()
	if err := db.openDatabase(); err != nil {
		return nil, err
	}
	if err := db.openCounter(); err != nil {
		return nil, err
	}
	go db.run()
	return db, nil
}

// openDatabase opens state.db, or creates it, and learns what it says of itself.
func (db *DB) openDatabase() error {
	id, err := readMasterID(db.dir)
	if err != nil {
		return err
	}
	_, err = os.Lstat(db.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if id != "" {
			db.opts.Logger.Warn("state.db is missing, starting with an empty registry", "path", db.path, "master", id)
		}
		if id, err = db.createDatabase(id); err != nil {
			return fmt.Errorf("create %s: %w", db.path, err)
		}
	case err != nil:
		return fmt.Errorf("open the state: %w", err)
	}
	if err := db.checkDatabase(); err != nil {
		return err
	}
	db.handle, err = openHandle(db.path, true, db.opts.LockWait)
	if errors.Is(err, errLocked) {
		return &LockedError{Path: db.dir} // by somebody who does not know of master.lock
	}
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	if err := db.migrate(); err != nil {
		return err
	}
	return db.readSelf(id)
}

// createDatabase makes an empty database under a temporary name and renames it.
// The id exists, durably, before the database, and so before the first fork.
func (db *DB) createDatabase(id string) (string, error) {
	if id == "" {
		id = newUUID()
		if err := writeMasterID(db.dir, id); err != nil {
			return "", err
		}
	}
	record, err := encodeMeta(Meta{MasterID: id, Created: time.Now(), StateDir: db.dirID})
	if err != nil {
		return "", err
	}
	temp := db.path + tempSuffix
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	b, err := bolt.Open(temp, 0o600, &bolt.Options{Timeout: db.opts.LockWait, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return "", err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		if err := db.steps.Apply(tx, 0); err != nil {
			return err
		}
		if err := putProcessed(tx, 0); err != nil {
			return err
		}
		return bucket(tx, migrations.BucketMeta).put(keyMeta, record)
	})
	if err == nil {
		err = b.Sync()
	}
	if err := errors.Join(err, b.Close()); err != nil {
		return "", errors.Join(err, os.Remove(temp))
	}
	return id, publish(temp, db.path)
}

// checkDatabase refuses a file that bbolt must not see.
func (db *DB) checkDatabase() error {
	f, img, err := loadImage(db.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := img.check(true); err != nil {
		return &DamagedError{Path: db.path, Err: err}
	}
	if img.damaged != nil {
		db.opts.Logger.Warn("one of the two meta pages is damaged, going on with the other: the last change may be lost",
			"path", db.path, "error", img.damaged)
	}
	return nil
}

// loadImage opens a database for nothing but reading its pages.
func loadImage(path string) (*os.File, *image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the state: %w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &DamagedError{Path: path, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	img, err := openImage(f, fi.Size())
	if err != nil {
		return nil, nil, errors.Join(&DamagedError{Path: path, Err: err}, f.Close())
	}
	return f, img, nil
}

// migrate brings the schema up to that of this program.
func (db *DB) migrate() error {
	var found uint64
	err := db.handle.view(func(tx *bolt.Tx) (err error) {
		found, err = migrations.Version(tx)
		return err
	})
	if errors.Is(err, migrations.ErrNoVersion) {
		return &DamagedError{Path: db.path, Err: err}
	}
	if err != nil {
		return err
	}
	known := db.steps.Version()
	switch {
	case found > known:
		return &NewerSchemaError{Path: db.path, Found: found, Known: known}
	case found == known:
		return nil
	}
	copied, err := db.copyBeforeMigration(found)
	if err != nil {
		return fmt.Errorf("copy the state before its migration: %w", err)
	}
	err = db.handle.update(func(tx *bolt.Tx) error { return db.steps.Apply(tx, found) }, db.commitTx)
	if err != nil {
		return fmt.Errorf("%s was not changed (and there is a copy at %s): %w", db.path, copied, err)
	}
	db.opts.Logger.Info("state migrated", "path", db.path, "from", found, "to", known, "copy", copied)
	return nil
}

// checkBuckets fails where one is missing: that is damage, not an empty registry.
func checkBuckets(tx *bolt.Tx) error {
	for _, name := range [][]byte{migrations.BucketMeta, migrations.BucketWorkers, migrations.BucketCounters, migrations.BucketEvents} {
		if err := bucket(tx, name).check(); err != nil {
			return err
		}
	}
	return nil
}

// readSelf reads the database's own record, and settles the master's id: the
// file master-id is right, since the workers were started under it.
func (db *DB) readSelf(id string) error {
	var recordErr error
	err := db.handle.view(func(tx *bolt.Tx) (err error) {
		if err := checkBuckets(tx); err != nil {
			return err
		}
		if db.folded, err = readProcessed(tx); err != nil {
			return err
		}
		db.txid = uint64(tx.ID())
		db.found, recordErr = readMeta(tx)
		return nil
	})
	if recordErr != nil && id == "" {
		err = errors.Join(err, fmt.Errorf("bucket %s: %w", migrations.BucketMeta, recordErr))
	}
	if err != nil {
		return &DamagedError{Path: db.path, Err: err}
	}
	if recordErr != nil {
		// Without a state directory in it, it counts as moved: nothing is assumed
		// of the workers that it records.
		db.opts.Logger.Warn("the database's own record is damaged, making a new one", "path", db.path, "error", recordErr)
		db.found = Meta{MasterID: id}
	}
	db.record = db.found
	switch id {
	case db.found.MasterID:
	case "":
		return writeMasterID(db.dir, db.found.MasterID)
	default:
		db.opts.Logger.Warn("the database is that of another master, taking it over", "path", db.path, "theirs", db.found.MasterID, "master", id)
		db.record.MasterID = id
	}
	return nil
}

// openCounter opens counter.dat, or makes it, and settles the count: the larger
// of the two, into state.db with it, and the clean-shutdown marker out of it.
func (db *DB) openCounter() error {
	slot, damaged, err := readCounter(db.dir)
	if err != nil {
		return err
	}
	db.acked.Store(max(slot.count, db.folded))
	switch {
	case damaged != nil:
		db.opts.Logger.Warn("one of the two slots of the counter is damaged, going on with the other: the last count may be lost",
			"path", filepath.Join(db.dir, counterName), "error", damaged)
		fallthrough
	case slot.sequence == 0:
		db.counter, err = createCounter(db.dir, db.acked.Load())
	default:
		db.counter, err = openCounter(db.dir, slot.sequence)
	}
	if err != nil {
		return err
	}
	var muts []Mutation
	db.record.CleanShutdown = false
	if db.record != db.found {
		muts = append(muts, putMeta(db.record))
	}
	for _, m := range muts {
		if m.err != nil {
			return m.err
		}
	}
	if len(muts) == 0 && db.acked.Load() == db.folded {
		return nil
	}
	return db.commitRegistry(muts, 0)
}
