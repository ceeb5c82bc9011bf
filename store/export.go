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

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// Summary describes a database.
type Summary struct {
	Path          string
	Size          int64 // in bytes
	SchemaVersion uint64
	// Sequence is the number of its last transaction. Of two databases of the same state, the one with the higher
	// number is newer.
	Sequence  uint64
	MasterID  string
	Processed int64
	// CountShortSince is as in [records.Meta].
	CountShortSince time.Time
	// AsOf is the time when the count was written: everything acknowledged before is included. Zero if the database
	// does not record it.
	AsOf    time.Time
	Workers int
	Events  int
	// Bad is the number of records that cannot be read.
	Bad int
}

func describe(c records.Content, path string, size int64) Summary {
	return Summary{
		Path: path, Size: size, SchemaVersion: c.SchemaVersion, Sequence: c.Sequence, MasterID: c.Meta.MasterID,
		Processed: c.Processed, CountShortSince: c.Meta.CountShortSince, AsOf: c.CountedAt,
		Workers: len(c.Workers), Events: len(c.Events), Bad: len(c.Bad),
	}
}

// openBackup opens a backup file named by the user and checks all of it.
func openBackup(path string) (*os.File, records.Content, Summary, error) {
	f, size, err := statefile.OpenInput(path)
	if damaged, ok := errors.AsType[*statefile.DamagedError](err); ok {
		damaged.Backup = true
	}
	if err != nil {
		return nil, records.Content{}, Summary{}, fmt.Errorf("read the backup: %w", err)
	}
	c, err := checkBackup(f, size, path)
	if err != nil {
		return nil, records.Content{}, Summary{}, errors.Join(err, f.Close())
	}
	return f, c, describe(c, path, size), nil
}

func checkBackup(f *os.File, size int64, path string) (records.Content, error) {
	c, err := records.ReadContent(f, size, migrations.Current())
	if newer, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		newer.Path = path
		return records.Content{}, err
	}
	if err != nil {
		return records.Content{}, &statefile.DamagedError{Path: path, Err: err, Backup: true}
	}
	return c, nil
}

// Export writes a copy of the state in dir to dst, which must be an empty file with a name, while no master runs.
// The copy has the complete count. Errors are those of [ReadSnapshot].
func Export(dir string, dst *os.File) error {
	d := offline(dir, 0)
	if _, err := os.Stat(d.Database); err != nil {
		return fmt.Errorf("no state to back up: %w", err)
	}
	release, err := statedir.ReadLock(dir, statedir.DyingFor)
	if err != nil {
		return err
	}
	defer release()
	src, img, err := boltfile.Load(d.Database)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	c, err := records.ContentOf(img, d.Steps.Version())
	if newer, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		newer.Path = d.Database
		return err
	}
	if err != nil {
		return &statefile.DamagedError{Path: d.Database, Err: err}
	}
	count, err := counterfile.Read(d.Counter)
	if err != nil {
		return err
	}
	merged := counterfile.Merged(count, c.Count)
	if merged == c.Count {
		return img.CopyTo(dst)
	}
	return boltfile.Edit(dst, img, img.Meta.TxID, d.LockWait, func(tx *bolt.Tx) error {
		return records.PutProcessed(tx, merged)
	})
}

// ErrExists means that a file exists and replacing it was not allowed.
var ErrExists = errors.New("file exists")

// SaveBackup creates the file path from a backup that write produces: under a temporary name beside path, synced,
// checked and renamed. The file has mode 0600. If path exists, it is replaced only if replace is set; otherwise the
// error is [ErrExists].
func SaveBackup(path string, replace bool, write func(*os.File) error) (_ Summary, err error) {
	switch fi, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	case !replace:
		return Summary{}, fmt.Errorf("write the backup: %s: %w", path, ErrExists)
	case !fi.Mode().IsRegular():
		return Summary{}, fmt.Errorf("write the backup: %s is no regular file: name another one", path)
	}
	var ops statefile.Ops
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+statefile.TempSuffix)
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	temp := f.Name()
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			err = errors.Join(err, statefile.Remove(temp))
		}
	}()
	if err := ops.Perform(crashpoint.Export.Write(), func() error { return write(f) }); err != nil {
		return Summary{}, err
	}
	if err := ops.Perform(crashpoint.Export.Sync(), f.Sync); err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	sum, err := summaryOf(f, path)
	if err != nil {
		return Summary{}, err
	}
	closing := f
	f = nil
	if err := closing.Close(); err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	err = name(ops, temp, path, replace)
	if err == nil {
		err = ops.Perform(crashpoint.Export.SyncFolder(), func() error { return safefile.SyncDir(filepath.Dir(path)) })
	}
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	return sum, nil
}

// summaryOf checks the database that was written to f.
func summaryOf(f *os.File, path string) (Summary, error) {
	fi, err := f.Stat()
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	c, err := checkBackup(f, fi.Size(), path)
	if err != nil {
		return Summary{}, err
	}
	return describe(c, path, fi.Size()), nil
}

// name gives the file its name. If replacing is not allowed, it uses a link, which fails if another process has
// created the file in the meantime. If the file system has no links, it falls back to a rename.
func name(ops statefile.Ops, temp, path string, replace bool) error {
	return ops.Perform(crashpoint.Export.Rename(), func() error {
		if !replace {
			switch err := os.Link(temp, path); {
			case err == nil:
				return os.Remove(temp)
			case errors.Is(err, fs.ErrExist):
				return fmt.Errorf("%s: %w", path, ErrExists)
			}
		}
		return os.Rename(temp, path)
	})
}

// StreamBackup is SaveBackup to a stream: it checks the whole backup before it writes anything to w.
func StreamBackup(w io.Writer, write func(*os.File) error) (_ Summary, err error) {
	f, err := os.CreateTemp("", "hsu-master-backup-*"+statefile.TempSuffix)
	if err != nil {
		return Summary{}, fmt.Errorf("make the backup: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := write(f); err != nil {
		return Summary{}, err
	}
	sum, err := summaryOf(f, "-")
	if err != nil {
		return Summary{}, err
	}
	if _, err := io.Copy(w, io.NewSectionReader(f, 0, sum.Size)); err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	return sum, nil
}
