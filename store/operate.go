package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// operateWait is how long what an operator does waits for a master to end.
const operateWait = 500 * time.Millisecond

// operate takes mastership for as long as do takes. Errors of do come as they are.
func operate(dir string, do func(*DB) error) (err error) {
	db := offline(dir, operateWait)
	if db.dirID, err = dirID(dir); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if db.lock, err = db.acquireMastership(dir, operateWait); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.closeFiles(), db.do(crashpoint.Unlock, db.lock.release)) }()
	err = do(db)
	// What the last master has left unsettled is for the next one to settle, and so is
	// what has failed here: a file may have its name in the kernel's cache alone.
	db.lock.orderly = !db.lock.unsettled && err == nil
	return err
}

// RestoreOptions say what [Restore] does; the zero value works.
type RestoreOptions struct {
	// CountOfBackup takes the count of the backup, also where that of the state is
	// larger.
	CountOfBackup bool
	// Incomplete takes a backup of which single records cannot be read.
	Incomplete bool
}

// Restored is what [Restore] has done.
type Restored struct {
	Backup Summary
	// Replaced is where the database is kept that was there; empty where none was.
	Replaced string
	// CountBefore is that of the state that was replaced, -1 where it is not known.
	CountBefore int64
	// Count is the one now.
	Count int64
	// CountShortSince is as in [Meta].
	CountShortSince time.Time
	// Foreign: the backup is that of another master, whose id was not taken over.
	Foreign bool
	// Elsewhere: it was made in another directory, so that no process that it names
	// is touched.
	Elsewhere bool
}

// Restore puts the backup at path in the place of the state in dir, while no master
// runs. All of the backup is checked before anything is touched, and the database
// that it replaces is kept. The master keeps the id that its living workers know it
// by; what lives and is not in the backup the next start finds.
//
// Its error is a [DamagedError] with Backup set, a [NewerSchemaError], a
// [LockedError], or one of the operating system.
func Restore(dir, path string, opts RestoreOptions) (Restored, error) {
	src, c, sum, err := openBackup(path)
	if err != nil {
		return Restored{}, err
	}
	defer func() { _ = src.Close() }()
	if len(c.Bad) > 0 && !opts.Incomplete {
		return Restored{}, &DamagedError{Path: path, Err: fmt.Errorf("%d records cannot be read, the first is %s", len(c.Bad), firstBad(c.Bad)), Backup: true}
	}
	made := offline(dir, operateWait)
	if err := errors.Join(made.makeDir(dir), made.syncWay(dir)); err != nil {
		return Restored{}, err
	}
	out := Restored{Backup: sum}
	err = operate(dir, func(db *DB) error {
		if there, err := os.Stat(db.path); err == nil {
			if fi, err := src.Stat(); err == nil && os.SameFile(fi, there) {
				return fmt.Errorf("restore %s: it is the state itself: name a copy of it", path)
			}
		}
		return db.replaceBy(src, c, opts, &out)
	})
	return out, err
}

func firstBad(bad map[string]error) string {
	keys := make([]string, 0, len(bad))
	for key := range bad {
		keys = append(keys, key)
	}
	return slices.Min(keys)
}

// replaceBy makes the backup in src, which holds c, the database.
func (db *DB) replaceBy(src *os.File, c content, opts RestoreOptions, out *Restored) error {
	found, err := db.look()
	if err != nil {
		return err
	}
	var short time.Time
	out.CountBefore, short = db.countNow(found, c)
	if err := db.keepAsideSmall(&found); err != nil {
		return err
	}
	out.Foreign = found.id != "" && found.id != c.Meta.MasterID
	out.Elsewhere = c.Meta.StateDir != db.dirID
	if err := db.settleID(&found, c.Meta); err != nil {
		return err
	}
	record := c.Meta
	record.MasterID, record.CleanShutdown = found.id, false
	out.Count = max(out.CountBefore, c.Processed)
	if opts.CountOfBackup {
		out.Count = c.Processed
	}
	if out.Count < out.CountBefore {
		short = db.sinceOr(c.CountedAt)
	}
	record.CountShortSince = earliest(record.CountShortSince, short)
	out.CountShortSince = record.CountShortSince
	sequence := max(c.Sequence, sequenceOf(db.path))
	if backups, err := listBackups(db.dir); err == nil && len(backups) > 0 {
		sequence = max(sequence, backups[len(backups)-1].sequence)
	}
	if out.Replaced, err = db.keepReplaced(); err != nil {
		return err
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	img, err := openImage(src, fi.Size())
	if err != nil {
		return &DamagedError{Path: out.Backup.Path, Err: err, Backup: true}
	}
	event := AppendEvent(Event{
		Time: time.Now(), Type: EventFromBackup, Detail: fmt.Sprintf("an operator has restored %s", out.Backup.Path),
	})
	err = db.place(crashpoint.Restore, db.path+tempSuffix, func(dst *os.File) (string, error) {
		return db.path, db.fillFrom(dst, img, sequence+1, startedAnew(out.Count), putMeta(record), event)
	}, func(f *os.File) error { return checkCopy(f, db.steps.Version()) })
	if err != nil {
		return fmt.Errorf("restore %s: %w", out.Backup.Path, err)
	}
	// After the database: on the way the count is the larger one of the two.
	if !found.count.good() || found.count.slot.tally != startedAnew(out.Count) || !found.count.short.Equal(record.CountShortSince) {
		counter, err := db.createCounter(db.dir, startedAnew(out.Count), record.CountShortSince)
		if err != nil {
			return err
		}
		return counter.close()
	}
	return nil
}

// countNow is the count of the state that there is, -1 where it cannot be told, and
// since when the larger one of it and the backup's may be short; zero: it is exact.
func (db *DB) countNow(found finding, backup content) (count int64, short time.Time) {
	count, short = -1, found.count.short
	if found.count.slot.sequence > 0 {
		count = found.count.slot.processed
	}
	exact := found.count.good()
	c, err := db.readOwn()
	switch {
	case err == nil && !c.countless():
		count, short = max(count, c.Processed), earliest(short, c.Meta.CountShortSince)
		if !exact && !c.Meta.CleanShutdown {
			short = earliest(short, db.sinceOr(c.CountedAt))
		}
	case !exact && !backup.Meta.CleanShutdown:
		short = db.sinceOr(backup.CountedAt)
	}
	return count, short
}

// keepReplaced keeps what is in the place of the database, and returns its name.
// It is copied, so that at no moment there is no database.
func (db *DB) keepReplaced() (string, error) {
	fi, err := os.Stat(db.path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("keep the state that is replaced: %w", err)
	}
	kept := asideName(db.path, replacedInfix)
	if fi.Mode().IsRegular() {
		err = db.replaceFile(crashpoint.Replaced, kept, func(dst *os.File) error {
			src, err := os.Open(db.path)
			if err != nil {
				return err
			}
			defer func() { _ = src.Close() }()
			_, err = io.Copy(onlyWriter{dst}, src)
			return err
		})
	} else {
		err = db.publish(crashpoint.Replaced, db.path, kept)
	}
	if err != nil {
		return "", fmt.Errorf("keep the state that is replaced: %w", err)
	}
	return kept, nil
}

// Compacted is what [Compact] has done, in bytes.
type Compacted struct{ Before, After int64 }

// errNothingGained ends a compaction that would make the file no smaller.
var errNothingGained = errors.New("nothing gained")

// Compact writes the database of the state in dir anew without the room in it that
// is not used, while no master runs. Where that gains nothing the file stays as it
// is. Errors are those of [ReadSnapshot].
func Compact(dir string) (Compacted, error) {
	var out Compacted
	if _, err := os.Stat(filepath.Join(dir, dbName)); err != nil {
		return out, fmt.Errorf("no state to compact: %w", err)
	}
	err := operate(dir, func(db *DB) error {
		before, err := db.readOwn()
		if err != nil {
			return err
		}
		fi, err := os.Stat(db.path)
		if err != nil {
			return err
		}
		out = Compacted{fi.Size(), fi.Size()}
		src, err := openHandle(db.path, false, operateWait)
		if err != nil {
			return err
		}
		defer func() { _ = src.close() }()
		err = db.place(crashpoint.Compact, db.path+tempSuffix, func(dst *os.File) (string, error) {
			return db.path, fillCompact(dst, src, before.Sequence)
		}, func(dst *os.File) error {
			fi, err := dst.Stat()
			if err != nil {
				return err
			}
			if fi.Size() >= out.Before {
				return errNothingGained
			}
			out.After = fi.Size()
			after, err := readContent(dst, fi.Size(), db.steps.Version())
			if err == nil && !before.tables.equal(after.tables) {
				err = errors.New("the compacted file holds something else")
			}
			return err
		})
		if errors.Is(err, errNothingGained) {
			return nil
		}
		return err
	})
	if err != nil {
		return Compacted{}, fmt.Errorf("compact the state: %w", err)
	}
	return out, nil
}

// fillCompact copies every pair of src into dst, an empty file.
func fillCompact(dst *os.File, src *handle, sequence uint64) error {
	b, err := bolt.Open(dst.Name(), 0o600, &bolt.Options{Timeout: operateWait, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	err = guard(src.path, func() error { return bolt.Compact(b, src.bolt, 0) })
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	return renumber(dst, sequence+1)
}

func (t tables) equal(other tables) bool {
	if len(t) != len(other) {
		return false
	}
	for name, rows := range t {
		more, ok := other[name]
		if !ok || !slices.EqualFunc(rows, more, func(a, b pair) bool {
			return bytes.Equal(a.key, b.key) && bytes.Equal(a.value, b.value)
		}) {
			return false
		}
	}
	return true
}

// readOwn reads all of the database.
func (db *DB) readOwn() (content, error) {
	f, img, err := loadImage(db.path)
	if err != nil {
		return content{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := img.content(db.steps.Version())
	if newer, ok := errors.AsType[*NewerSchemaError](err); ok {
		newer.Path = db.path
		return content{}, err
	}
	if err != nil {
		return content{}, &DamagedError{Path: db.path, Err: err}
	}
	return c, nil
}

// Migration is what [Migrate] has done, or [RehearseMigration] has shown to be
// possible.
type Migration struct {
	From, To uint64   // versions of the schema; equal where there is nothing to do
	Steps    []string // what each step from one version to the next does, for people
	// Copy is the backup of what there was before; empty where nothing was done.
	Copy string
}

func newMigration(from uint64) Migration {
	m := Migration{From: from, To: migrations.Current()}
	for v := from + 1; v <= m.To; v++ {
		m.Steps = append(m.Steps, migrations.Describe(v))
	}
	return m
}

// Migrate brings the state in dir up to the schema of this release while no master
// runs, as the next start would, after it has made a backup. Errors are those of
// [ReadSnapshot].
func Migrate(dir string) (Migration, error) {
	var out Migration
	if _, err := os.Stat(filepath.Join(dir, dbName)); err != nil {
		return out, fmt.Errorf("no state to migrate: %w", err)
	}
	err := operate(dir, func(db *DB) error {
		before, err := db.readOwn()
		if err != nil {
			return err
		}
		out = newMigration(before.SchemaVersion)
		if out.From == out.To {
			return nil
		}
		if err := db.openExisting(&finding{}); err != nil {
			return err
		}
		if err := db.settle(); err != nil {
			return err
		}
		out.Copy, err = db.migrate()
		return err
	})
	if err != nil {
		return Migration{}, fmt.Errorf("migrate the state: %w", err)
	}
	return out, nil
}

// RehearseMigration does what [Migrate] would on a copy of the database at path,
// which it removes again. Nobody may have the database open for writing.
func RehearseMigration(path string) (Migration, error) {
	src, c, _, err := openBackup(path)
	if err != nil {
		return Migration{}, err
	}
	defer func() { _ = src.Close() }()
	out := newMigration(c.SchemaVersion)
	if out.From == out.To {
		return out, nil
	}
	fi, err := src.Stat()
	if err != nil {
		return Migration{}, err
	}
	img, err := openImage(src, fi.Size())
	if err != nil {
		return Migration{}, err
	}
	f, err := os.CreateTemp("", "hsu-master-migration-*"+tempSuffix)
	if err != nil {
		return Migration{}, fmt.Errorf("rehearse the migration: %w", err)
	}
	db := offline(filepath.Dir(path), operateWait)
	err = db.fillFrom(f, img, img.meta.TxID, c.count)
	if err == nil {
		err = checkCopy(f, db.steps.Version())
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return Migration{}, fmt.Errorf("rehearse the migration from schema version %d to %d: %w", out.From, out.To, err)
	}
	return out, nil
}
