package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// Open takes mastership over the state directory and opens what is in it, or
// creates it. An older schema is migrated, after a copy was put into backups/. A
// database that is missing though there was one is made anew from the newest good
// backup; so is, with Options.OnDamage, one that is damaged.
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
		next:  new(batch),
		wake:  make(chan struct{}, 1),
		stop:  make(chan struct{}),
		done:  make(chan struct{}),

		teller: newTeller(),
	}
	db.results = results{ttl: db.opts.RequestTTL, most: db.opts.MaxResults, mostSize: db.opts.MaxResultBytes, byID: map[string]*kept{}}
	if err := db.makeDir(dir); err != nil {
		return nil, err
	}
	if db.dirID, err = dirID(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	db.home = db.dirID
	if db.lock, err = db.acquireMastership(dir, db.opts.LockWait); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.closeFiles(), db.lock.release())
		}
	}()
	found, err := db.look()
	if err != nil {
		return nil, err
	}
	if err := db.openDatabase(&found); err != nil {
		return nil, err
	}
	if err := db.openCounter(found); err != nil {
		return nil, err
	}
	if err := db.loadResults(db.handle); err != nil {
		return nil, fmt.Errorf("read the results of requests: %w", err)
	}
	db.handle.reserve(db.handle.highWater())
	go db.run()
	go db.teller.run(func(n int64) error { return db.addUnsynced(context.Background(), n) })
	return db, nil
}

// openDatabase opens state.db, makes it where there is none, and learns what it
// says of itself.
func (db *DB) openDatabase(found *finding) error {
	err := db.openExisting(found)
	missing := errors.Is(err, fs.ErrNotExist)
	damage, err := db.tolerate(err)
	if err != nil && !missing {
		return err
	}
	// All damage is known: from here on files are changed.
	if err := db.keepAsideSmall(found); err != nil {
		return err
	}
	if found.countErr != nil {
		if err := db.keepCopyAside(db.path, found.countErr); err != nil {
			return err
		}
	}
	if damage != nil || missing {
		if err := db.makeDatabase(found, damage); err != nil {
			return fmt.Errorf("create %s: %w", db.path, err)
		}
		if err := db.openExisting(found); err != nil {
			return err
		}
	}
	if err := db.postpone(db.settle()); err != nil {
		return err
	}
	if _, err := db.migrate(); err != nil {
		return err
	}
	return db.readSelf(found)
}

// postpone takes an error that says that the state cannot be written now, and leaves
// it to the committer to write it anew when it can be: a full disk is no reason to
// stay away from the workers. Any other error is the caller's.
func (db *DB) postpone(err error) error {
	if err == nil || remedy(err) == "" {
		return err
	}
	if damaged := (*DamagedError)(nil); errors.As(err, &damaged) {
		return err
	}
	db.fail(err)
	return nil
}

// openExisting opens state.db without changing anything, where it can be trusted.
func (db *DB) openExisting(found *finding) (err error) {
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
	db.mine = db.handle.info
	defer func() {
		if err != nil {
			err = errors.Join(err, db.handle.close())
			db.handle = nil
		}
	}()
	return db.handle.view(func(tx *bolt.Tx) error {
		t := tablesOf(tx)
		version, err := t.version()
		if known := db.steps.Version(); err == nil && version > known {
			return &NewerSchemaError{Path: db.path, Found: version, Known: known}
		}
		if err == nil {
			err = t.checkBuckets()
		}
		if err != nil {
			return &DamagedError{Path: db.path, Err: err}
		}
		_, err = t.processed()
		if err == nil {
			return nil
		}
		// That is no reason to give up a registry that is good otherwise.
		if err = fmt.Errorf("bucket %s: %w", migrations.BucketCounters, err); db.opts.OnDamage == Refuse {
			return &DamagedError{Path: db.path, Err: err}
		}
		found.countErr = err
		return nil
	})
}

// makeDatabase makes state.db where there is none that could be used: damage says
// what is wrong with the one there is, nil where it is missing.
func (db *DB) makeDatabase(found *finding, damage error) error {
	if err := db.syncWay(db.dir); err != nil {
		return err
	}
	if damage == nil && !db.used(*found) {
		// Nothing was ever done here, or a first start came no further than the id.
		if found.id != "" {
			db.opts.Logger.Warn("state.db is missing, starting with an empty registry", "path", db.path, "master", found.id)
		}
		if err := db.settleID(found, Meta{}); err != nil {
			return err
		}
		// Before the database: where there is one and no counter, the counter was lost.
		if err := db.firstCounter(found); err != nil {
			return err
		}
		return db.createDatabase(blank{id: found.id})
	}
	return db.rescue(found, damage)
}

// settleID makes sure that the master has an id, durably, before the database, and
// so before the first fork. Of what is lost it is the one that matters most: the
// living workers know their master by it.
func (db *DB) settleID(found *finding, backup Meta) error {
	if found.id != "" {
		return nil
	}
	id := backup.MasterID
	if id == "" && db.used(*found) && db.opts.LostID != nil {
		var err error
		if id, err = db.opts.LostID(); err != nil {
			db.opts.Logger.Warn("the living workers were not asked for their master's id", "error", err)
		}
		if !validUUID(id) {
			id = ""
		}
	}
	if id == "" {
		id = newUUID()
	}
	found.id = id
	return db.writeMasterID(db.dir, id)
}

// blank is what a database without workers begins with.
type blank struct {
	id       string
	count    tally
	short    time.Time // see Meta.CountShortSince
	events   []Mutation
	sequence uint64 // transactions of an earlier database count up to it
}

// createDatabase makes a database without workers under a temporary name and
// renames it.
func (db *DB) createDatabase(b blank) error {
	record, err := encodeMeta(Meta{MasterID: b.id, Created: time.Now(), StateDir: db.dirID, CountShortSince: b.short})
	if err != nil {
		return err
	}
	temp := db.path + tempSuffix
	if err := removeIfThere(temp); err != nil {
		return err
	}
	if err := db.do(crashpoint.Database.Write(), func() error { return db.fillDatabase(temp, record, b) }); err != nil {
		return errors.Join(err, removeIfThere(temp))
	}
	return db.publish(crashpoint.Database, temp, db.path)
}

// fillDatabase makes a database without workers at path.
func (db *DB) fillDatabase(path string, record []byte, content blank) error {
	b, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: db.opts.LockWait, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		if err := db.steps.Apply(tx, 0); err != nil {
			return err
		}
		if err := putProcessed(tx, content.count); err != nil {
			return err
		}
		for _, m := range content.events {
			if err := m.apply(tx, db.opts.MaxEvents); err != nil {
				return err
			}
		}
		return bucket(tx, migrations.BucketMeta).put(keyMeta, record)
	})
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if content.sequence > 0 {
		err = renumber(f, content.sequence+1)
	}
	if err == nil {
		err = db.do(crashpoint.Database.Sync(), f.Sync)
	}
	return errors.Join(err, f.Close())
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
	f, size, err := openRegular(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open the state: %w", err)
	}
	img, err := openImage(f, size)
	if err != nil {
		return nil, nil, errors.Join(&DamagedError{Path: path, Err: err}, f.Close())
	}
	return f, img, nil
}

// migrate brings the schema up to that of this program, and returns the path of the
// copy that it made before; empty where there was nothing to do.
func (db *DB) migrate() (string, error) {
	var found uint64
	err := db.handle.view(func(tx *bolt.Tx) (err error) {
		found, err = migrations.Version(tx)
		return err
	})
	if errors.Is(err, migrations.ErrNoVersion) {
		return "", &DamagedError{Path: db.path, Err: err}
	}
	if err != nil {
		return "", err
	}
	known := db.steps.Version()
	switch {
	case found > known:
		return "", &NewerSchemaError{Path: db.path, Found: found, Known: known}
	case found == known:
		return "", nil
	}
	if cause := db.isBroken(); cause != nil {
		return "", fmt.Errorf("migrate the state: %w", cause)
	}
	copied, err := db.copyBeforeMigration()
	if err != nil {
		return "", fmt.Errorf("copy the state before its migration: %w", err)
	}
	err = db.handle.update(func(tx *bolt.Tx) error { return db.steps.Apply(tx, found) }, db.commitTx)
	if errors.Is(err, migrations.ErrNotAsSaid) {
		return "", &DamagedError{Path: db.path, Err: err}
	}
	if err != nil {
		return "", fmt.Errorf("%s was not changed (and there is a copy at %s): %w", db.path, copied, err)
	}
	db.opts.Logger.Info("state migrated", "path", db.path, "from", found, "to", known, "copy", copied)
	return copied, nil
}

// readSelf reads the database's own record, and settles the master's id: the
// file master-id is right, since the workers were started under it.
func (db *DB) readSelf(found *finding) error {
	var recordErr error
	err := db.handle.view(func(tx *bolt.Tx) (err error) {
		t := tablesOf(tx)
		if err := t.checkBuckets(); err != nil {
			return err
		}
		found.countedAt = t.countedAt()
		if db.folded, err = t.tally(); err != nil && found.countErr == nil {
			return err
		}
		db.txid = uint64(tx.ID())
		db.found, recordErr = t.meta()
		return nil
	})
	if recordErr != nil && found.id == "" && db.opts.OnDamage == Refuse {
		err = errors.Join(err, fmt.Errorf("bucket %s: %w", migrations.BucketMeta, recordErr))
	}
	if err != nil {
		return &DamagedError{Path: db.path, Err: err}
	}
	if recordErr != nil {
		// Without a state directory in it, it counts as moved: nothing is assumed
		// of the workers that it records.
		db.opts.Logger.Warn("the database's own record is damaged, making a new one", "path", db.path, "error", recordErr)
		if err := db.settleID(found, db.newestBackup("").Meta); err != nil {
			return err
		}
		db.found = Meta{MasterID: found.id}
	}
	db.record = db.found
	switch found.id {
	case db.found.MasterID:
	case "":
		return db.writeMasterID(db.dir, db.found.MasterID)
	default:
		db.opts.Logger.Warn("the database is that of another master, taking it over", "path", db.path, "theirs", db.found.MasterID, "master", found.id)
		db.record.MasterID = found.id
	}
	return nil
}

// openCounter opens counter.dat, or makes it, and settles the count: the larger
// of the two, into state.db with it, and the clean-shutdown marker out of it.
func (db *DB) openCounter(found finding) error {
	if found.countErr != nil && found.count.slot.sequence == 0 {
		// No record of it is left but in a backup.
		backup := db.newestBackup(found.id)
		db.folded, found.countedAt = startedAnew(backup.Processed), backup.asOf()
	}
	if found.countErr != nil || found.id != "" && found.id != db.found.MasterID {
		// That of the database is lost, or another master's.
		db.setTally(larger(found.count.slot.tally, db.folded))
	} else {
		db.setTally(settled(found.count, db.folded))
	}
	if found.count.damaged != nil {
		db.opts.Logger.Warn("one of the two slots of the counter is damaged, going on with the other: the last count may be lost",
			"path", filepath.Join(db.dir, counterName), "error", found.count.damaged)
	}
	saved := db.found
	if found.countErr != nil {
		saved = Meta{} // write all of it
	}
	db.record.CleanShutdown = false
	if since := earliest(db.record.CountShortSince, db.countShort(found)); !since.Equal(db.record.CountShortSince) {
		// First that the count may be short, then a new counter: a crash in between
		// must not make it forgotten.
		db.record.CountShortSince = since
		if err := db.recordOpened(&saved); err != nil {
			return err
		}
	}
	var err error
	short := db.record.CountShortSince
	if c := found.count; !c.good() || c.slot.tally != db.tally() || !c.short.Equal(short) {
		db.counter, err = db.createCounter(db.dir, db.tally(), short)
	} else {
		db.counter, err = openCounter(db.dir, c.slot.sequence, short)
	}
	if err = db.postpone(err); err != nil {
		return err
	}
	if since := db.record.CountShortSince; !since.IsZero() {
		db.opts.Logger.Warn("processed count may be short", "count", db.acked.Load(), "since", since)
	}
	if db.isBroken() == nil {
		err = db.postpone(db.recordOpened(&saved))
	}
	db.unopened = db.isBroken() != nil
	return err
}

// recordOpened brings into the database what the start has found; saved is its own
// record as it stands there.
func (db *DB) recordOpened(saved *Meta) error {
	if db.record == *saved && db.tally() == db.folded {
		return nil
	}
	m := putMeta(db.record)
	if m.err != nil {
		return m.err
	}
	*saved = db.record
	return db.commitRegistry([]Mutation{m}, 0)
}
