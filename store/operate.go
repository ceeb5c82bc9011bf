package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/commit"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/rebuild"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// operateWait is how long an operator's command waits for a master to terminate.
const operateWait = 500 * time.Millisecond

// operation is the change of a state by an operator's command while no master runs. It holds mastership over the state
// and exists only while the command runs.
type operation struct {
	dir   *statedir.Dir
	lock  *statedir.Mastership
	dirID identity.FileID
}

// operate runs do with mastership over the state in path. It returns errors of do unchanged.
func operate(path string, do func(*operation) error) (err error) {
	op := operation{dir: offline(path, operateWait)}
	if op.dirID, err = DirID(path); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if op.lock, err = statedir.AcquireMastership(op.dir.Ops, path, operateWait, nil); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, op.dir.Ops.Perform(crashpoint.Unlock, op.lock.Release)) }()
	err = do(&op)
	// If the last master left the state unsettled, the next master must make it durable. The same applies after a
	// failure here: a file may have its name only in the kernel's cache.
	op.lock.Orderly = !op.lock.Unsettled && err == nil
	return err
}

// RestoreOptions are the options of [Restore]; the zero value works.
type RestoreOptions struct {
	// CountOfBackup makes Restore take the count of the backup even if that of the state is larger.
	CountOfBackup bool
	// Incomplete makes Restore accept a backup with records that cannot be read.
	Incomplete bool
}

// Restored is the outcome of [Restore].
type Restored struct {
	Backup Summary
	// Replaced is the path at which the previous database is kept; empty if there was none.
	Replaced string
	// CountBefore is the count of the replaced state, -1 if it is not known.
	CountBefore int64
	// Count is the count after the restore.
	Count int64
	// CountShortSince is as in [Meta].
	CountShortSince time.Time
	// Foreign is set if the backup is from another master, whose id was not taken over.
	Foreign bool
	// Elsewhere is set if the backup was made in another directory, so that none of its processes are touched.
	Elsewhere bool
}

// Restore replaces the state in dir by the backup at path, while no master runs. It checks the whole backup before
// it changes anything, and keeps the database that it replaces. The master keeps the id by which its living workers
// know it. The next start finds living workers that are not in the backup.
//
// Its error is a [DamagedError] with Backup set, a [NewerSchemaError], a [LockedError], or an error of the
// operating system.
func Restore(dir, path string, opts RestoreOptions) (Restored, error) {
	src, c, sum, err := openBackup(path)
	if err != nil {
		return Restored{}, err
	}
	defer func() { _ = src.Close() }()
	if len(c.Bad) > 0 && !opts.Incomplete {
		return Restored{}, &statefile.DamagedError{
			Path:   path,
			Err:    fmt.Errorf("%d records cannot be read, the first is %s", len(c.Bad), records.FirstBad(c.Bad)),
			Backup: true,
		}
	}
	made := offline(dir, operateWait)
	if err := errors.Join(statedir.Make(made.Ops, dir), statedir.SyncPath(made.Ops, dir)); err != nil {
		return Restored{}, err
	}
	out := Restored{Backup: sum}
	err = operate(dir, func(op *operation) error {
		if there, err := os.Stat(op.dir.Database); err == nil {
			if fi, err := src.Stat(); err == nil && os.SameFile(fi, there) {
				return fmt.Errorf("restore %s: it is the state itself: name a copy of it", path)
			}
		}
		return op.restore(src, c, opts, &out)
	})
	return out, err
}

// restore replaces the database by the backup in src, whose content is c.
func (op *operation) restore(src *os.File, c records.Content, opts RestoreOptions, out *Restored) error {
	found, err := rebuild.ReadDiskState(op.dir)
	if err != nil {
		return err
	}
	var short time.Time
	out.CountBefore, short = op.countNow(found, c)
	if err := found.KeepAsideSmall(op.dir); err != nil {
		return err
	}
	out.Foreign = found.ID != "" && found.ID != c.Meta.MasterID
	out.Elsewhere = c.Meta.StateDir != op.dirID
	b := rebuild.Rebuilder{Dir: op.dir, DirID: op.dirID, Found: &found}
	if err := b.EnsureID(c.Meta); err != nil {
		return err
	}
	record := c.Meta
	record.MasterID, record.CleanShutdown = found.ID, false
	out.Count = max(out.CountBefore, c.Processed)
	if opts.CountOfBackup {
		out.Count = c.Processed
	}
	if out.Count < out.CountBefore {
		short = op.dir.SinceOr(c.CountedAt)
	}
	record.CountShortSince = records.Earliest(record.CountShortSince, short)
	out.CountShortSince = record.CountShortSince
	sequence := max(c.Sequence, boltfile.LastTx(op.dir.Database))
	if list, err := backups.List(op.dir.Path); err == nil && len(list) > 0 {
		sequence = max(sequence, list[len(list)-1].Sequence)
	}
	if out.Replaced, err = op.keepReplaced(); err != nil {
		return err
	}
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	img, err := boltfile.OpenImage(src, fi.Size())
	if err != nil {
		return &statefile.DamagedError{Path: out.Backup.Path, Err: err, Backup: true}
	}
	detail := fmt.Sprintf("an operator has restored %s", out.Backup.Path)
	err = rebuild.ReplaceDatabase(op.dir, img, sequence+1, counterfile.StartedAnew(out.Count), record, detail)
	if err != nil {
		return fmt.Errorf("restore %s: %w", out.Backup.Path, err)
	}
	// The counter is made after the database: in between, the larger count of the two is the valid one.
	if !found.Count.Good() || found.Count.Newest.Tally != counterfile.StartedAnew(out.Count) ||
		!found.Count.Short.Equal(record.CountShortSince) {
		count := counterfile.StartedAnew(out.Count)
		counter, err := counterfile.Create(op.dir.Ops, op.dir.Counter, count, record.CountShortSince)
		if err != nil {
			return err
		}
		return counter.Close()
	}
	return nil
}

// countNow returns the count of the existing state, -1 if it cannot be read. short is the time since when the
// larger of that count and the backup's may be short; zero means that it is exact.
func (op *operation) countNow(found rebuild.DiskState, backup records.Content) (count int64, short time.Time) {
	count, short = -1, found.Count.Short
	if found.Count.Newest.Sequence > 0 {
		count = found.Count.Newest.Processed
	}
	exact := found.Count.Good()
	c, err := loadContent(op.dir)
	switch {
	case err == nil && !c.Countless():
		count, short = max(count, c.Processed), records.Earliest(short, c.Meta.CountShortSince)
		if !exact && !c.Meta.CleanShutdown {
			short = records.Earliest(short, op.dir.SinceOr(c.CountedAt))
		}
	case !exact && !backup.Meta.CleanShutdown:
		short = op.dir.SinceOr(backup.CountedAt)
	}
	return count, short
}

// keepReplaced keeps the file at the database's path and returns the name under which it is kept. A regular file is
// copied, so that there is a database at every moment.
func (op *operation) keepReplaced() (string, error) {
	fi, err := os.Stat(op.dir.Database)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("keep the state that is replaced: %w", err)
	}
	kept := statefile.AsideName(op.dir.Database, statefile.ReplacedInfix)
	if fi.Mode().IsRegular() {
		err = op.dir.Ops.Replace(crashpoint.Replaced, kept, func(dst *os.File) error {
			src, err := safefile.Open(op.dir.Database)
			if err != nil {
				return err
			}
			defer func() { _ = src.Close() }()
			return statefile.CopyTo(dst, src)
		})
	} else {
		err = op.dir.Ops.Publish(crashpoint.Replaced, op.dir.Database, kept)
	}
	if err != nil {
		return "", fmt.Errorf("keep the state that is replaced: %w", err)
	}
	return kept, nil
}

// Compacted holds the size of the file before and after [Compact], in bytes.
type Compacted struct{ Before, After int64 }

// errNothingGained ends a compaction that would not make the file smaller.
var errNothingGained = errors.New("nothing gained")

// Compact rewrites the database of the state in dir without its unused space, while no master runs. If that does
// not make the file smaller, the file is left unchanged. Errors are those of [ReadSnapshot].
func Compact(dir string) (Compacted, error) {
	var out Compacted
	if _, err := os.Stat(filepath.Join(dir, statedir.DatabaseName)); err != nil {
		return out, fmt.Errorf("no state to compact: %w", err)
	}
	err := operate(dir, func(op *operation) error {
		before, err := loadContent(op.dir)
		if err != nil {
			return err
		}
		fi, err := os.Stat(op.dir.Database)
		if err != nil {
			return err
		}
		out = Compacted{fi.Size(), fi.Size()}
		src, err := boltfile.OpenReadOnly(op.dir.Database, operateWait)
		if err != nil {
			return err
		}
		defer func() { _ = src.Close() }()
		temp := op.dir.Database + statefile.TempSuffix
		err = op.dir.Ops.Place(crashpoint.Compact, temp, func(dst *os.File) (string, error) {
			return op.dir.Database, fillCompact(dst, src, before.Sequence)
		}, func(dst *os.File) error {
			fi, err := dst.Stat()
			if err != nil {
				return err
			}
			if fi.Size() >= out.Before {
				return errNothingGained
			}
			out.After = fi.Size()
			after, err := records.ReadContent(dst, fi.Size(), op.dir.Steps.Version())
			if err == nil && !before.Tables.Equal(after.Tables) {
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
func fillCompact(dst *os.File, src *boltfile.File, sequence uint64) error {
	if err := src.CompactTo(dst.Name(), operateWait); err != nil {
		return err
	}
	return boltfile.Renumber(dst, sequence+1)
}

// Migration is the outcome of [Migrate], or the plan that [RehearseMigration] has tried.
type Migration struct {
	From, To uint64   // schema versions; equal if there is nothing to do
	Steps    []string // a description of each step from one version to the next
	// Copy is the backup made before the migration; empty if nothing was done.
	Copy string
}

func newMigration(from uint64) Migration {
	m := Migration{From: from, To: migrations.Current()}
	for v := from + 1; v <= m.To; v++ {
		m.Steps = append(m.Steps, migrations.Describe(v))
	}
	return m
}

// Migrate brings the state in dir up to the schema of this release while no master runs. It does what the next
// start would do, including the backup that precedes the migration. Errors are those of [ReadSnapshot].
func Migrate(dir string) (Migration, error) {
	var out Migration
	if _, err := os.Stat(filepath.Join(dir, statedir.DatabaseName)); err != nil {
		return out, fmt.Errorf("no state to migrate: %w", err)
	}
	err := operate(dir, func(op *operation) error {
		before, err := loadContent(op.dir)
		if err != nil {
			return err
		}
		out = newMigration(before.SchemaVersion)
		if out.From == out.To {
			return nil
		}
		out.Copy, err = commit.Migrate(op.dir, op.lock, op.dirID)
		return err
	})
	if err != nil {
		return Migration{}, fmt.Errorf("migrate the state: %w", err)
	}
	return out, nil
}

// RehearseMigration performs the steps of [Migrate] on a temporary copy of the database at path. No process may
// have the database open for writing.
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
	img, err := boltfile.OpenImage(src, fi.Size())
	if err != nil {
		return Migration{}, err
	}
	f, err := os.CreateTemp("", "hsu-master-migration-*"+statefile.TempSuffix)
	if err != nil {
		return Migration{}, fmt.Errorf("rehearse the migration: %w", err)
	}
	dir := offline(filepath.Dir(path), operateWait)
	err = rebuild.FillFrom(dir, f, img, img.Meta.TxID, c.Count)
	if err == nil {
		err = records.CheckCopy(f, dir.Steps.Version())
	}
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return Migration{}, fmt.Errorf("rehearse the migration from schema version %d to %d: %w", out.From, out.To, err)
	}
	return out, nil
}
