package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/core-tools/hsu-master/migrations"
)

// ReadBackup reads the registry from the bytes of a backup, which need not be those
// of a file. Single records that cannot be read are in Snapshot.Bad; any other damage
// is an error.
func ReadBackup(r io.ReaderAt, size int64) (Snapshot, error) {
	c, err := readContent(r, size, migrations.Current())
	if err != nil {
		return Snapshot{}, fmt.Errorf("read a backup: %w", err)
	}
	return c.Snapshot, nil
}

// NextStart is what Open will go on from.
type NextStart struct {
	Snapshot
	// Lost says what is wrong with state.db, nil where it is used.
	Lost error
	// Backup is the path of the backup that is used then; empty where there is no
	// good one either, and the living workers are all that is known.
	Backup string
}

// ReadNextStart reads what Open with these options would go on from, while no master
// runs: state.db, or, where that is missing though there was one, or is damaged and
// Options.OnDamage is Recover, the newest good backup. It changes nothing, and waits
// for nobody.
//
// Its error is, or wraps, fs.ErrNotExist where there was never a state, a
// [LockedError] where a master holds it, or what Open would fail with.
func ReadNextStart(dir string, opts Options) (NextStart, error) {
	release, err := readLock(dir)
	if err != nil {
		return NextStart{}, err
	}
	defer release()
	db := &DB{dir: dir, path: filepath.Join(dir, dbName), opts: opts.withDefaults(), seams: seams{steps: migrations.All}}
	found, err := db.look()
	if err != nil {
		return NextStart{}, err
	}
	var next NextStart
	next.Snapshot, _, err = readDatabase(dir, db.path)
	if err == nil && db.opts.OnDamage == Refuse {
		err = refused(db.path, next.Bad, found)
	}
	if missing := errors.Is(err, fs.ErrNotExist); missing && !db.used(found) {
		return NextStart{}, fmt.Errorf("no state to read: %w", err)
	} else if missing {
		next.Lost, err = errors.New("it is missing"), nil
	} else {
		next.Lost, err = db.tolerate(err)
	}
	if err == nil && next.Lost != nil {
		next.Snapshot, next.Backup, err = db.nextBackup(found)
	}
	if err == nil {
		err = db.nextID(&next.Meta, found)
	}
	if err != nil {
		return NextStart{}, err
	}
	return next, nil
}

// refused are the records without which Open does not use the database, unless it
// may recover.
func refused(path string, bad map[string]error, found finding) error {
	err := bad[string(migrations.BucketCounters)+"/"+string(keyProcessed)]
	if found.id == "" {
		err = errors.Join(err, bad[string(migrations.BucketMeta)+"/"+string(keyMeta)])
	}
	if err == nil {
		return nil
	}
	return &DamagedError{Path: path, Err: err}
}

// nextBackup reads the backup that a lost database would be made from.
func (db *DB) nextBackup(found finding) (Snapshot, string, error) {
	good, _, err := db.candidates(found.id)
	if err != nil {
		return Snapshot{}, "", err
	}
	if len(good) > 0 {
		return good[0].Snapshot, good[0].path, nil
	}
	here, err := dirID(db.dir)
	if err != nil {
		return Snapshot{}, "", err
	}
	return Snapshot{SchemaVersion: db.steps.Version(), Meta: Meta{StateDir: here}, Processed: found.count.slot.processed}, "", nil
}

// nextID settles the master's id as Open does, but that it makes no new one.
func (db *DB) nextID(record *Meta, found finding) error {
	switch {
	case found.id != "":
		record.MasterID = found.id
	case record.MasterID == "":
		record.MasterID = db.newestBackup("").Meta.MasterID
	}
	if record.MasterID != "" || db.opts.LostID == nil || !db.used(found) {
		return nil
	}
	id, err := db.opts.LostID()
	if err != nil {
		return err
	}
	if validUUID(id) {
		record.MasterID = id
	}
	return nil
}
