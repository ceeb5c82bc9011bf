package commit

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/rebuild"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// opener brings the files of a state into order and opens them, for the writer. It exists only during Open and
// Migrate, and one goroutine uses it.
//
// Invariant: no file is changed before all damage is known, so that with OnDamage Refuse a damaged state is left
// unchanged.
type opener struct {
	dir    *statedir.Dir
	writer *writer
	found  rebuild.DiskState

	fail   func(error)  // leaves it to the committer to rewrite the state
	broken func() error // why the state cannot be written, nil if it can
}

// open opens the state.
func (o *opener) open() (err error) {
	if o.found, err = rebuild.ReadDiskState(o.dir); err != nil {
		return err
	}
	if err := o.openDatabase(); err != nil {
		return err
	}
	if err := o.openCounter(); err != nil {
		return err
	}
	if err := o.writer.database.file.View(func(tx *bolt.Tx) error {
		o.writer.results.Open(tx, o.dir.Database)
		return nil
	}); err != nil {
		return fmt.Errorf("read the results of requests: %w", err)
	}
	o.writer.database.file.Reserve(o.writer.database.file.HighWater())
	return nil
}

// openDatabase opens state.db, creates it if it is missing, and reads its own record.
func (o *opener) openDatabase() error {
	err := o.openExisting()
	missing := errors.Is(err, fs.ErrNotExist)
	damage, err := o.dir.Tolerate(err)
	if err != nil && !missing {
		return err
	}
	// All damage is known at this point. From here on, files are changed.
	if err := o.found.KeepAsideSmall(o.dir); err != nil {
		return err
	}
	if o.found.CountErr != nil {
		if err := o.dir.Ops.KeepCopyAside(o.dir.Database, o.found.CountErr, o.dir.Log); err != nil {
			return err
		}
	}
	if damage != nil || missing {
		if err := o.makeDatabase(damage); err != nil {
			return fmt.Errorf("create %s: %w", o.dir.Database, err)
		}
		if err := o.openExisting(); err != nil {
			return err
		}
	}
	if err := o.postpone(o.syncMeta()); err != nil {
		return err
	}
	if _, err := o.migrate(); err != nil {
		return err
	}
	return o.readRecord()
}

// postpone handles an error of a write. If the error means that the state cannot be written at the moment, postpone
// returns nil and leaves it to the committer to rewrite the state later: a full disk is no reason to leave the
// workers unsupervised. Any other error is returned.
func (o *opener) postpone(err error) error {
	if err == nil || statefile.Remedy(err) == "" {
		return err
	}
	if damaged := (*statefile.DamagedError)(nil); errors.As(err, &damaged) {
		return err
	}
	o.fail(err)
	return nil
}

// openExisting checks state.db and opens it without changing anything.
func (o *opener) openExisting() (err error) {
	if err := o.checkDatabase(); err != nil {
		return err
	}
	file, err := boltfile.Open(o.dir.Database, o.dir.LockWait)
	if errors.Is(err, statefile.ErrLocked) {
		return &statedir.LockedError{Path: o.dir.Path} // held by a process that does not use master.lock
	}
	if err != nil {
		return fmt.Errorf("open the state: %w", err)
	}
	if err := file.View(o.checkContent); err != nil {
		return errors.Join(err, file.Close())
	}
	o.writer.database.exchange(file)
	return nil
}

// checkDatabase returns a DamagedError for a file that bbolt must not open.
func (o *opener) checkDatabase() error {
	f, img, err := boltfile.Load(o.dir.Database)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := img.Check(true); err != nil {
		return &statefile.DamagedError{Path: o.dir.Database, Err: err}
	}
	if img.Damaged != nil {
		o.dir.Log.Warn("meta page damaged", "path", o.dir.Database, "error", img.Damaged)
	}
	return nil
}

// checkContent checks the schema version, the buckets and the count.
func (o *opener) checkContent(tx *bolt.Tx) error {
	t := records.TablesOf(tx)
	version, err := t.Version()
	if known := o.dir.Steps.Version(); err == nil && version > known {
		return &records.NewerSchemaError{Path: o.dir.Database, Found: version, Known: known}
	}
	if err == nil {
		err = t.CheckBuckets()
	}
	if err != nil {
		return &statefile.DamagedError{Path: o.dir.Database, Err: err}
	}
	_, err = t.Processed()
	if err == nil {
		return nil
	}
	// A damaged count is no reason to discard a registry that is otherwise good.
	err = fmt.Errorf("bucket %s: %w", migrations.BucketCounters, err)
	if !o.dir.Recover {
		return &statefile.DamagedError{Path: o.dir.Database, Err: err}
	}
	o.found.CountErr = err
	return nil
}

// makeDatabase creates state.db if there is no usable one. damage is the fault of the existing one, or nil if it is
// missing.
func (o *opener) makeDatabase(damage error) error {
	if err := statedir.SyncPath(o.dir.Ops, o.dir.Path); err != nil {
		return err
	}
	b := rebuild.Rebuilder{Dir: o.dir, DirID: o.writer.self.LastDir(), Found: &o.found}
	if damage != nil || o.found.Used(o.dir) {
		return b.Rescue(damage)
	}
	// The directory is new, or an earlier first start ended after it wrote the id.
	if o.found.ID != "" {
		o.dir.Log.Warn("state database missing", "path", o.dir.Database, "master", o.found.ID)
	}
	return b.CreateFirst()
}

// syncMeta makes the files of the previous master durable if that master was killed or failed: see
// [boltfile.File.SyncMeta]. A renamed file may still have its old name on the disk, so the directory is synced too.
func (o *opener) syncMeta() error {
	if !o.writer.lock.Unsettled {
		return nil
	}
	return o.dir.Ops.Perform(crashpoint.Settle, func() error {
		err := o.writer.database.file.SyncMeta()
		if err == nil {
			err = safefile.SyncDir(o.dir.Path)
		}
		if err != nil {
			return fmt.Errorf("make %s durable: %w", o.dir.Database, err)
		}
		return nil
	})
}

// migrate brings the schema up to the version of this program. It returns the path of the copy that it made before,
// or "" if there was nothing to do.
func (o *opener) migrate() (string, error) {
	var found uint64
	file, path := o.writer.database.file, o.dir.Database
	err := file.View(func(tx *bolt.Tx) (err error) {
		found, err = migrations.Version(tx)
		return err
	})
	if errors.Is(err, migrations.ErrNoVersion) {
		return "", &statefile.DamagedError{Path: path, Err: err}
	}
	if err != nil {
		return "", err
	}
	known := o.dir.Steps.Version()
	switch {
	case found > known:
		return "", &records.NewerSchemaError{Path: path, Found: found, Known: known}
	case found == known:
		return "", nil
	}
	if cause := o.broken(); cause != nil {
		return "", fmt.Errorf("migrate the state: %w", cause)
	}
	copied, err := backups.Of(o.dir).Copy(crashpoint.MigrationCopy, file.View)
	if err != nil {
		return "", fmt.Errorf("copy the state before its migration: %w", err)
	}
	err = file.Update(func(tx *bolt.Tx) error { return o.dir.Steps.Apply(tx, found) }, o.writer.commitTx)
	if errors.Is(err, migrations.ErrNotAsSaid) {
		return "", &statefile.DamagedError{Path: path, Err: err}
	}
	if err != nil {
		return "", fmt.Errorf("%s was not changed (and there is a copy at %s): %w", path, copied, err)
	}
	o.dir.Log.Info("state migrated", "path", path, "from", found, "to", known, "backup", copied)
	return copied, nil
}

// readRecord reads the database's own record and decides about the master's id: the file master-id takes precedence,
// since the workers were started under that id.
func (o *opener) readRecord() error {
	log, self, path := o.dir.Log, o.writer.self, o.dir.Database
	var recordErr error
	err := o.writer.database.file.View(func(tx *bolt.Tx) (err error) {
		t := records.TablesOf(tx)
		if err := t.CheckBuckets(); err != nil {
			return err
		}
		o.found.CountedAt = t.CountedAt()
		if o.writer.folded, err = t.Tally(); err != nil && o.found.CountErr == nil {
			return err
		}
		o.writer.txid = uint64(tx.ID())
		self.Found, recordErr = t.Meta()
		return nil
	})
	if recordErr != nil && o.found.ID == "" && !o.dir.Recover {
		err = errors.Join(err, fmt.Errorf("bucket %s: %w", migrations.BucketMeta, recordErr))
	}
	if err != nil {
		return &statefile.DamagedError{Path: path, Err: err}
	}
	if recordErr != nil {
		// Without a recorded state directory, the database counts as moved: nothing is assumed about the workers
		// that it records.
		log.Warn("database record damaged", "path", path, "error", recordErr)
		b := rebuild.Rebuilder{Dir: o.dir, DirID: self.LastDir(), Found: &o.found}
		if err := b.EnsureID(backups.Of(o.dir).Newest("").Meta); err != nil {
			return err
		}
		self.Found = records.Meta{MasterID: o.found.ID}
	}
	record := self.Found
	switch o.found.ID {
	case record.MasterID:
	case "":
		self.Set(record)
		return statedir.WriteMasterID(o.dir.Ops, o.dir.Path, record.MasterID)
	default:
		log.Warn("database of another master taken over",
			"path", path, "previous_master", record.MasterID, "master", o.found.ID)
		record.MasterID = o.found.ID
	}
	self.Set(record)
	return nil
}

// openCounter opens or creates counter.dat and derives the count from it and state.db. It then writes that count
// into state.db and clears the clean-shutdown marker there.
func (o *opener) openCounter() error {
	log, w := o.dir.Log, o.writer
	o.deriveCount()
	if o.found.Count.Damaged != nil {
		log.Warn("counter copy damaged", "path", o.dir.Counter, "error", o.found.Count.Damaged)
	}
	saved := w.self.Found // as stored in the database
	if o.found.CountErr != nil {
		saved = records.Meta{} // write the whole record
	}
	record := w.self.Get()
	record.CleanShutdown = false
	since := records.Earliest(record.CountShortSince, o.found.CountShort(o.dir, w.self.Found))
	late := !since.Equal(record.CountShortSince)
	record.CountShortSince = since
	w.self.Set(record)
	if late {
		// First record that the count may be short, then make a new counter: a crash in between must not lose that
		// fact.
		if err := o.recordStart(&saved); err != nil {
			return err
		}
	}
	count, err := o.counterFile(since)
	if err = o.postpone(err); err != nil {
		return err
	}
	w.counter.exchange(count)
	if !since.IsZero() {
		log.Warn("processed count may be short", "processed", w.counter.processed.Load(), "since", since)
	}
	if o.broken() == nil {
		err = o.postpone(o.recordStart(&saved))
	}
	return err
}

// deriveCount sets the count to what results from counter.dat and state.db.
func (o *opener) deriveCount() {
	w, counted := o.writer, o.found.Count
	if o.found.CountErr != nil && counted.Newest.Sequence == 0 {
		// The only remaining record of the count is in a backup.
		backup := backups.Of(o.dir).Newest(o.found.ID)
		w.folded, o.found.CountedAt = counterfile.StartedAnew(backup.Processed), backup.AsOf()
	}
	if o.found.CountErr != nil || o.found.ID != "" && o.found.ID != w.self.Found.MasterID {
		// The count in the database is lost or belongs to another master.
		w.counter.acknowledge(counterfile.Larger(counted.Newest.Tally, w.folded))
	} else {
		w.counter.acknowledge(counterfile.Merged(counted, w.folded))
	}
}

// counterFile opens counter.dat, or makes it if it does not have the count.
func (o *opener) counterFile(short time.Time) (*counterfile.File, error) {
	counted, count := o.found.Count, o.writer.counter.tally()
	if !counted.Good() || counted.Newest.Tally != count || !counted.Short.Equal(short) {
		return counterfile.Create(o.dir.Ops, o.dir.Counter, count, short)
	}
	return counterfile.Open(o.dir.Counter, counted.Newest.Sequence, short)
}

// recordStart writes the record and the count into the database, unless it has them. saved is the record as currently
// stored in it.
func (o *opener) recordStart(saved *records.Meta) error {
	record := o.writer.self.Get()
	if record == *saved && o.writer.counter.tally() == o.writer.folded {
		return nil
	}
	*saved = record
	return o.writer.commitRecord(record)
}
