package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/rebuild"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// readWait bounds the wait for a process that has state.db open but does not hold master.lock.
const readWait = 100 * time.Millisecond

// Holder returns a [LockedError] that names the master that holds the state in dir, nil if none does.
func Holder(dir string) *LockedError {
	release, err := statedir.ReadLock(dir, 0)
	if err == nil {
		release()
	}
	held, _ := errors.AsType[*LockedError](err)
	return held
}

// ReadSnapshot reads the registry in dir while no master runs. It creates and changes nothing. It waits at most
// about a second for a master that is terminating.
//
// Its error is, or wraps, fs.ErrNotExist if there is no state, a [LockedError] if a master holds it, a
// [DamagedError] or a [NewerSchemaError].
func ReadSnapshot(dir string) (records.Snapshot, error) {
	path, release, err := beginRead(dir)
	if err != nil {
		return records.Snapshot{}, err
	}
	defer release()
	s, counted, err := readDatabase(dir, path)
	if err != nil {
		return records.Snapshot{}, err
	}
	count, err := counterfile.Read(filepath.Join(dir, statedir.CounterName))
	if err != nil {
		return records.Snapshot{}, err
	}
	s.Processed = counterfile.Merged(count, counted).Processed
	s.Meta.CountShortSince = records.Earliest(s.Meta.CountShortSince, count.Short)
	return s, nil
}

// ReadPresent reads the units, the workers and the registered endpoints in dir while no master runs, and the record of
// the state. It reads nothing else, however many events and results there are, and so finds no damage there. Its
// errors are those of [ReadSnapshot].
func ReadPresent(dir string) (records.Snapshot, error) {
	path, release, err := beginRead(dir)
	if err != nil {
		return records.Snapshot{}, err
	}
	defer release()
	f, img, err := boltfile.Load(path)
	if err != nil {
		return records.Snapshot{}, err
	}
	defer func() { _ = f.Close() }()
	s, err := records.PresentOf(img, migrations.Current())
	if newer, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		newer.Path = path
		return records.Snapshot{}, err
	}
	if err != nil {
		return records.Snapshot{}, &statefile.DamagedError{Path: path, Err: err}
	}
	return s, nil
}

// ReadEvents reads the history in dir, oldest event first, while no master runs. It changes nothing. Its errors are
// those of [ReadSnapshot].
func ReadEvents(dir string) (entries []records.Entry, err error) {
	path, release, err := beginRead(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	err = viewDatabase(dir, path, func(tx *bolt.Tx) (err error) {
		entries, err = records.Entries(tx, 0, records.LastEvent(tx), math.MaxInt)
		return err
	})
	return entries, err
}

// beginRead makes sure that no master holds the state until release is called.
func beginRead(dir string) (path string, release func(), err error) {
	path = filepath.Join(dir, statedir.DatabaseName)
	if _, err := os.Stat(path); err != nil {
		return "", nil, fmt.Errorf("no state to read: %w", err)
	}
	release, err = statedir.ReadLock(dir, statedir.DyingFor)
	return path, release, err
}

func readDatabase(dir, path string) (s records.Snapshot, counted counterfile.Tally, err error) {
	err = viewDatabase(dir, path, func(tx *bolt.Tx) error {
		t := records.AllTablesOf(tx)
		if err := t.CheckBuckets(); err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		counted, _ = t.Tally() // the error, if any, is in Bad
		s, err = t.Snapshot()
		return err
	})
	if err != nil {
		return records.Snapshot{}, counterfile.Tally{}, err
	}
	return s, counted, nil
}

// viewDatabase checks the database and runs fn in a read transaction of it, unless its schema is newer.
func viewDatabase(dir, path string, fn func(*bolt.Tx) error) (err error) {
	f, img, err := boltfile.Load(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := img.Check(false); err != nil {
		return &statefile.DamagedError{Path: path, Err: err}
	}
	h, err := boltfile.OpenReadOnly(path, readWait)
	if errors.Is(err, statefile.ErrLocked) {
		return &LockedError{Path: dir}
	}
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	return h.View(func(tx *bolt.Tx) error {
		found, err := migrations.Version(tx)
		if err != nil {
			return &statefile.DamagedError{Path: path, Err: err}
		}
		if known := migrations.Current(); found > known {
			return &records.NewerSchemaError{Path: path, Found: found, Known: known}
		}
		return fn(tx)
	})
}

// loadContent reads and checks the whole database.
func loadContent(d *statedir.Dir) (records.Content, error) {
	f, img, err := boltfile.Load(d.Database)
	if err != nil {
		return records.Content{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := records.ContentOf(img, d.Steps.Version())
	if newer, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		newer.Path = d.Database
		return records.Content{}, err
	}
	if err != nil {
		return records.Content{}, &statefile.DamagedError{Path: d.Database, Err: err}
	}
	return c, nil
}

// ReadBackup reads the registry from the bytes of a backup, which need not be in a file. Single records that cannot
// be read are in Snapshot.Bad; any other damage is an error.
func ReadBackup(r io.ReaderAt, size int64) (records.Snapshot, error) {
	c, err := records.ReadContent(r, size, migrations.Current())
	if err != nil {
		return records.Snapshot{}, fmt.Errorf("read a backup: %w", err)
	}
	return c.Snapshot, nil
}

// NextStart is the state that the next Open will start from.
type NextStart struct {
	records.Snapshot
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
	release, err := statedir.ReadLock(dir, statedir.DyingFor)
	if err != nil {
		return NextStart{}, err
	}
	defer release()
	d := dirOf(dir, opts.withDefaults(), seams{steps: migrations.All})
	found, err := rebuild.ReadDiskState(d)
	if err != nil {
		return NextStart{}, err
	}
	var next NextStart
	next.Snapshot, _, err = readDatabase(dir, d.Database)
	if err == nil && !d.Recover {
		err = refused(d.Database, next.Bad, found)
	}
	if missing := errors.Is(err, fs.ErrNotExist); missing && !found.Used(d) {
		return NextStart{}, fmt.Errorf("no state to read: %w", err)
	} else if missing {
		next.Lost, err = errors.New("it is missing"), nil
	} else {
		next.Lost, err = d.Tolerate(err)
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
func refused(path string, bad map[string]error, found rebuild.DiskState) error {
	err := bad[string(migrations.BucketCounters)+"/"+string(records.KeyProcessed)]
	if found.ID == "" {
		err = errors.Join(err, bad[string(migrations.BucketMeta)+"/"+string(records.KeyMeta)])
	}
	if err == nil {
		return nil
	}
	return &statefile.DamagedError{Path: path, Err: err}
}

// takeBackup reads the backup from which a lost database would be restored.
func (n *NextStart) takeBackup(d *statedir.Dir, found rebuild.DiskState) error {
	good, _, err := backups.Of(d).Candidates(found.ID)
	if err != nil {
		return err
	}
	if len(good) > 0 {
		n.Snapshot, n.Backup = good[0].Snapshot, good[0].Path
		return nil
	}
	here, err := DirID(d.Path)
	if err != nil {
		return err
	}
	n.Snapshot = records.Snapshot{
		SchemaVersion: d.Steps.Version(), Meta: records.Meta{StateDir: here}, Processed: found.Count.Newest.Processed,
	}
	return nil
}

// findID finds the master's id as Open does, but does not generate a new one.
func (n *NextStart) findID(d *statedir.Dir, found rebuild.DiskState) error {
	switch {
	case found.ID != "":
		n.Meta.MasterID = found.ID
	case n.Meta.MasterID == "":
		n.Meta.MasterID = backups.Of(d).Newest("").Meta.MasterID
	}
	if n.Meta.MasterID != "" || d.LostID == nil || !found.Used(d) {
		return nil
	}
	id, err := d.LostID()
	if err != nil {
		return err
	}
	if records.ValidUUID(id) {
		n.Meta.MasterID = id
	}
	return nil
}
