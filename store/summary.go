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
	"github.com/core-tools/hsu-master/migrations"
)

// Summary is a database at a glance.
type Summary struct {
	Path          string
	Size          int64 // in bytes
	SchemaVersion uint64
	// Sequence is the number of the last transaction in it: of two databases of one
	// state the one with the higher number is newer.
	Sequence  uint64
	MasterID  string
	Processed int64
	// CountShortSince is as in [Meta].
	CountShortSince time.Time
	// AsOf is when it was what it is: what was acknowledged before is in it. Zero
	// where it does not say.
	AsOf    time.Time
	Workers int
	Events  int
	// Bad is the number of records that cannot be read.
	Bad int
}

func (c content) summary(path string, size int64) Summary {
	return Summary{
		Path: path, Size: size, SchemaVersion: c.SchemaVersion, Sequence: c.Sequence, MasterID: c.Meta.MasterID,
		Processed: c.Processed, CountShortSince: c.Meta.CountShortSince, AsOf: c.CountedAt,
		Workers: len(c.Workers), Events: len(c.Events), Bad: len(c.Bad),
	}
}

// Inspect checks every page of a database that nobody has open, a backup say, and
// decodes every record. Its error is a [DamagedError], a [NewerSchemaError], or one
// of the operating system.
func Inspect(path string) (Summary, error) {
	f, _, sum, err := openBackup(path)
	if err != nil {
		return Summary{}, err
	}
	return sum, f.Close()
}

// openBackup opens a file that was named to go on from, and checks all of it.
func openBackup(path string) (*os.File, content, Summary, error) {
	f, size, err := openRegular(path)
	if damaged, ok := errors.AsType[*DamagedError](err); ok {
		damaged.Backup = true
	}
	if err != nil {
		return nil, content{}, Summary{}, fmt.Errorf("read the backup: %w", err)
	}
	c, err := checkBackup(f, size, path)
	if err != nil {
		return nil, content{}, Summary{}, errors.Join(err, f.Close())
	}
	return f, c, c.summary(path, size), nil
}

func checkBackup(f *os.File, size int64, path string) (content, error) {
	c, err := readContent(f, size, migrations.Current())
	if newer, ok := errors.AsType[*NewerSchemaError](err); ok {
		newer.Path = path
		return content{}, err
	}
	if err != nil {
		return content{}, &DamagedError{Path: path, Err: err, Backup: true}
	}
	return c, nil
}

// offline is a DB for what is done while no master runs: it has neither mastership
// nor anything open.
func offline(dir string, wait time.Duration) *DB {
	return &DB{
		dir: dir, path: filepath.Join(dir, dbName), seams: seams{steps: migrations.All},
		opts: Options{LockWait: wait, OnDamage: Recover}.withDefaults(),
	}
}

// Export writes a copy of the state in dir to dst, an empty file with a name, while
// no master runs. The count in it is the whole one. Errors are those of
// [ReadSnapshot].
func Export(dir string, dst *os.File) error {
	db := offline(dir, 0)
	if _, err := os.Stat(db.path); err != nil {
		return fmt.Errorf("no state to back up: %w", err)
	}
	release, err := readLock(dir)
	if err != nil {
		return err
	}
	defer release()
	src, img, err := loadImage(db.path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	c, err := img.content(db.steps.Version())
	if newer, ok := errors.AsType[*NewerSchemaError](err); ok {
		newer.Path = db.path
		return err
	}
	if err != nil {
		return &DamagedError{Path: db.path, Err: err}
	}
	count, err := readCounter(dir)
	if err != nil {
		return err
	}
	whole := settled(count, c.count)
	if whole == c.count {
		return img.writeTo(dst)
	}
	return db.edit(dst, img, img.meta.TxID, func(tx *bolt.Tx) error { return putProcessed(tx, whole) })
}

// ErrExists means that there is a file that was not to be replaced.
var ErrExists = errors.New("file exists")

// SaveBackup makes a file of a backup that write writes: under a temporary name
// beside path, synced, checked and renamed. It has mode 0600. One that is there is
// replaced only with replace; else that is [ErrExists].
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
	s := seams{}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+tempSuffix)
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	temp := f.Name()
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			err = errors.Join(err, removeIfThere(temp))
		}
	}()
	if err := s.do(crashpoint.Export.Write(), func() error { return write(f) }); err != nil {
		return Summary{}, err
	}
	if err := s.do(crashpoint.Export.Sync(), f.Sync); err != nil {
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
	err = s.name(temp, path, replace)
	if err == nil {
		err = s.do(crashpoint.Export.SyncFolder(), func() error { return syncDir(filepath.Dir(path)) })
	}
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	return sum, nil
}

// summaryOf checks what was written to f.
func summaryOf(f *os.File, path string) (Summary, error) {
	fi, err := f.Stat()
	if err != nil {
		return Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	c, err := checkBackup(f, fi.Size(), path)
	if err != nil {
		return Summary{}, err
	}
	return c.summary(path, fi.Size()), nil
}

// name gives the file its name. Where nothing is to be replaced, a link is what
// fails if meanwhile somebody has made one; not every file system has links.
func (s seams) name(temp, path string, replace bool) error {
	return s.do(crashpoint.Export.Rename(), func() error {
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

// StreamBackup is SaveBackup to a stream: nothing is written to w before all of it
// was checked.
func StreamBackup(w io.Writer, write func(*os.File) error) (_ Summary, err error) {
	f, err := os.CreateTemp("", "hsu-master-backup-*"+tempSuffix)
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
