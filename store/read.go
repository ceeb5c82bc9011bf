package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// readWait bounds the wait for a process that has state.db open but does not hold master.lock.
const readWait = 100 * time.Millisecond

// ReadSnapshot reads the registry in dir while no master runs. It creates and changes nothing. It waits at most
// about a second for a master that is terminating.
//
// Its error is, or wraps, fs.ErrNotExist if there is no state, a [LockedError] if a master holds it, a
// [DamagedError] or a [NewerSchemaError].
func ReadSnapshot(dir string) (Snapshot, error) {
	path := filepath.Join(dir, dbName)
	if _, err := os.Stat(path); err != nil {
		return Snapshot{}, fmt.Errorf("no state to read: %w", err)
	}
	release, err := readLock(dir, dyingFor)
	if err != nil {
		return Snapshot{}, err
	}
	defer release()
	s, counted, err := readDatabase(dir, path)
	if err != nil {
		return Snapshot{}, err
	}
	count, err := counterfile.Read(filepath.Join(dir, counterName))
	if err != nil {
		return Snapshot{}, err
	}
	s.Processed = counterfile.Merged(count, counted).Processed
	s.Meta.CountShortSince = earliest(s.Meta.CountShortSince, count.Short)
	return s, nil
}

func readDatabase(dir, path string) (s Snapshot, counted counterfile.Tally, err error) {
	f, img, err := boltfile.Load(path)
	if err != nil {
		return Snapshot{}, counterfile.Tally{}, err
	}
	defer func() { _ = f.Close() }()
	if err := img.Check(false); err != nil {
		return Snapshot{}, counterfile.Tally{}, &statefile.DamagedError{Path: path, Err: err}
	}
	h, err := boltfile.OpenReadOnly(path, readWait)
	if errors.Is(err, statefile.ErrLocked) {
		return Snapshot{}, counterfile.Tally{}, &LockedError{Path: dir}
	}
	if err != nil {
		return Snapshot{}, counterfile.Tally{}, fmt.Errorf("read the state: %w", err)
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	err = h.View(func(tx *bolt.Tx) error {
		t := allTablesOf(tx)
		found, err := t.version()
		if err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		if known := migrations.Current(); found > known {
			return &NewerSchemaError{Path: path, Found: found, Known: known}
		}
		if err := t.checkBuckets(); err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		counted, _ = t.tally() // the error, if any, is in Bad
		s, err = t.snapshot()
		return err
	})
	if err != nil {
		return Snapshot{}, counterfile.Tally{}, err
	}
	return s, counted, nil
}

// loadContent reads and checks the whole database.
func loadContent(d *stateDir) (content, error) {
	f, img, err := boltfile.Load(d.db)
	if err != nil {
		return content{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := contentOf(img, d.steps.Version())
	if newer, ok := errors.AsType[*NewerSchemaError](err); ok {
		newer.Path = d.db
		return content{}, err
	}
	if err != nil {
		return content{}, &statefile.DamagedError{Path: d.db, Err: err}
	}
	return c, nil
}

// ReadBackup reads the registry from the bytes of a backup, which need not be in a file. Single records that cannot
// be read are in Snapshot.Bad; any other damage is an error.
func ReadBackup(r io.ReaderAt, size int64) (Snapshot, error) {
	c, err := readContent(r, size, migrations.Current())
	if err != nil {
		return Snapshot{}, fmt.Errorf("read a backup: %w", err)
	}
	return c.Snapshot, nil
}

// NextStart is the state that the next Open will start from.
type NextStart struct {
	Snapshot
	// Lost is the reason why state.db cannot be used, nil if it is used.
	Lost error
	// Backup is the path of the backup that is used instead of state.db. It is empty if there is no good backup
	// either, so that only the living workers are known.
	Backup string
}

// ReadNextStart reads the state that Open with these options would start from, while no master runs. That is
// state.db or, if it is missing although there was one, or is damaged and Options.OnDamage is Recover, the newest
// good backup. ReadNextStart changes nothing. It waits at most about a second for a master that is terminating.
//
// Its error is, or wraps, fs.ErrNotExist if there was never a state, a [LockedError] if a master holds it, or the
// error that Open would return.
func ReadNextStart(dir string, opts Options) (NextStart, error) {
	release, err := readLock(dir, dyingFor)
	if err != nil {
		return NextStart{}, err
	}
	defer release()
	d := dirOf(dir, opts.withDefaults(), seams{steps: migrations.All})
	found, err := readDiskState(d)
	if err != nil {
		return NextStart{}, err
	}
	var next NextStart
	next.Snapshot, _, err = readDatabase(dir, d.db)
	if err == nil && !d.recover {
		err = refused(d.db, next.Bad, found)
	}
	if missing := errors.Is(err, fs.ErrNotExist); missing && !found.used(d) {
		return NextStart{}, fmt.Errorf("no state to read: %w", err)
	} else if missing {
		next.Lost, err = errors.New("it is missing"), nil
	} else {
		next.Lost, err = d.tolerate(err)
	}
	if err == nil && next.Lost != nil {
		err = next.takeBackup(d, found)
	}
	if err == nil {
		err = next.findID(d, found)
	}
	if err != nil {
		return NextStart{}, err
	}
	return next, nil
}

// refused returns an error if the records are damaged without which Open, with OnDamage Refuse, does not use the
// database.
func refused(path string, bad map[string]error, found diskState) error {
	err := bad[string(migrations.BucketCounters)+"/"+string(keyProcessed)]
	if found.id == "" {
		err = errors.Join(err, bad[string(migrations.BucketMeta)+"/"+string(keyMeta)])
	}
	if err == nil {
		return nil
	}
	return &statefile.DamagedError{Path: path, Err: err}
}

// takeBackup reads the backup from which a lost database would be restored.
func (n *NextStart) takeBackup(d *stateDir, found diskState) error {
	good, _, err := backupsOf(d).candidates(found.id)
	if err != nil {
		return err
	}
	if len(good) > 0 {
		n.Snapshot, n.Backup = good[0].Snapshot, good[0].path
		return nil
	}
	here, err := DirID(d.path)
	if err != nil {
		return err
	}
	n.Snapshot = Snapshot{
		SchemaVersion: d.steps.Version(), Meta: Meta{StateDir: here}, Processed: found.count.Slot.Processed,
	}
	return nil
}

// findID finds the master's id as Open does, but does not generate a new one.
func (n *NextStart) findID(d *stateDir, found diskState) error {
	switch {
	case found.id != "":
		n.Meta.MasterID = found.id
	case n.Meta.MasterID == "":
		n.Meta.MasterID = backupsOf(d).newest("").Meta.MasterID
	}
	if n.Meta.MasterID != "" || d.lostID == nil || !found.used(d) {
		return nil
	}
	id, err := d.lostID()
	if err != nil {
		return err
	}
	if validUUID(id) {
		n.Meta.MasterID = id
	}
	return nil
}
