package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
)

// Backup writes a copy of the registry, with the count as it is now, to path:
// under a temporary name, synced, checked and renamed. The master goes on
// meanwhile. A file that was at path is replaced.
func (db *DB) Backup(path string) error {
	err := db.flush()
	if err == nil {
		err = db.place(crashpoint.Backup, path+tempSuffix, func(f *os.File) (string, error) {
			return path, db.view(func(tx *bolt.Tx) error { return writeTx(tx, f) })
		}, func(f *os.File) error { return checkCopy(f, db.steps.Version()) })
	}
	if err != nil {
		return fmt.Errorf("back up the state to %s: %w", path, err)
	}
	return nil
}

// WriteBackup writes a copy of the registry, with the count as it is now, to w. It
// is for a w that takes it at once, such as a buffer: for as long as it is written
// the database can reuse no page.
func (db *DB) WriteBackup(w io.Writer) error {
	err := db.flush()
	if err == nil {
		err = db.view(func(tx *bolt.Tx) error { return writeTx(tx, w) })
	}
	if err != nil {
		return fmt.Errorf("back up the state: %w", err)
	}
	return nil
}

// flush brings the count into the database.
func (db *DB) flush() error { return db.join(context.Background(), request{flush: true}) }

func writeTx(tx *bolt.Tx, w io.Writer) error {
	_, err := tx.WriteTo(w)
	return err
}

// checkCopy checks a database that was just written to f: every page, and that
// there are records in it.
func checkCopy(f *os.File, known uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := openImage(f, fi.Size())
	if err == nil {
		err = img.damaged
	}
	if err == nil {
		_, err = img.content(known)
	}
	if err != nil {
		return fmt.Errorf("the copy is damaged: %w", err)
	}
	return nil
}

// backupFile is a backup by its name, which sorts as it was made.
type backupFile struct {
	path     string
	sequence uint64 // the last transaction in it
	schema   uint64
	made     time.Time
}

var backupName = regexp.MustCompile(`^state-([0-9]{16})-schema([0-9]{1,9})-([0-9]{8}T[0-9]{6}Z)\.db$`)

func (b backupFile) name() string {
	return fmt.Sprintf("state-%016d-schema%d-%s.db", b.sequence, b.schema, b.made.UTC().Format(stampLayout))
}

func parseBackupName(name string) (backupFile, bool) {
	parts := backupName.FindStringSubmatch(name)
	if parts == nil {
		return backupFile{}, false
	}
	sequence, err1 := strconv.ParseUint(parts[1], 10, 64)
	schema, err2 := strconv.ParseUint(parts[2], 10, 64)
	made, err3 := time.Parse(stampLayout, parts[3])
	if errors.Join(err1, err2, err3) != nil {
		return backupFile{}, false
	}
	b := backupFile{sequence: sequence, schema: schema, made: made}
	if b.name() != name {
		return backupFile{}, false
	}
	return b, true
}

// listBackups returns the backups of the state in dir, the oldest first. Files with
// other names are none of ours.
func listBackups(dir string) ([]backupFile, error) {
	folder := filepath.Join(dir, backupsName)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []backupFile
	for _, e := range entries {
		if b, ok := parseBackupName(e.Name()); ok {
			b.path = filepath.Join(folder, e.Name())
			list = append(list, b)
		}
	}
	slices.SortStableFunc(list, func(a, b backupFile) int {
		return cmp.Or(cmp.Compare(a.sequence, b.sequence), a.made.Compare(b.made))
	})
	return list, nil
}

// BackUp puts a backup into the backups folder and returns its path, or "" where
// nothing has changed since the last one. Of those that are too many the oldest are
// removed: see Options.KeepBackups.
func (db *DB) BackUp() (string, error) {
	path, err := db.backUp()
	if err != nil {
		return "", fmt.Errorf("back up the state: %w", err)
	}
	return path, nil
}

func (db *DB) backUp() (string, error) {
	if err := db.flush(); err != nil {
		return "", err
	}
	var now uint64
	if err := db.view(func(tx *bolt.Tx) error {
		now = uint64(tx.ID())
		return nil
	}); err != nil {
		return "", err
	}
	before, err := listBackups(db.dir)
	if err != nil {
		return "", err
	}
	if len(before) > 0 && before[len(before)-1].sequence == now {
		// It may be one whose name could not be made durable.
		return "", db.makeBackupsFolder(true)
	}
	path, err := db.copyTo(crashpoint.Backup, db.view)
	if err != nil {
		return "", err
	}
	return path, db.prune()
}

// makeBackupsFolder makes the backups folder, durably; with names, also those of the
// backups in it. That there is one does not tell that the last attempt to make it
// durable succeeded.
func (db *DB) makeBackupsFolder(names bool) error {
	folder := filepath.Join(db.dir, backupsName)
	return db.do(crashpoint.BackupsFolder, func() error {
		if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if names {
			if err := syncDir(folder); err != nil {
				return err
			}
		}
		return syncDir(db.dir)
	})
}

// copyTo puts a copy of what view shows into the backups folder.
func (db *DB) copyTo(point crashpoint.Point, view func(func(*bolt.Tx) error) error) (string, error) {
	folder := filepath.Join(db.dir, backupsName)
	if err := db.makeBackupsFolder(false); err != nil {
		return "", err
	}
	var path string
	// The same temporary name each time, so that a crash leaves one at most.
	err := db.place(point, filepath.Join(folder, dbName+tempSuffix), func(f *os.File) (string, error) {
		err := view(func(tx *bolt.Tx) error {
			schema, err := migrations.Version(tx)
			if err != nil {
				return err
			}
			b := backupFile{sequence: uint64(tx.ID()), schema: schema, made: time.Now()}
			path = filepath.Join(folder, b.name())
			return writeTx(tx, f)
		})
		return path, err
	}, func(f *os.File) error { return checkCopy(f, db.steps.Version()) })
	if err != nil {
		return "", err
	}
	return path, nil
}

// prune removes the oldest backups that are too many. The newest of each earlier
// schema stays: an earlier release can go on from it. It is called after a backup
// that was checked, so that there is always a good one.
func (db *DB) prune() error {
	all, err := listBackups(db.dir)
	if err != nil || len(all) <= db.opts.KeepBackups {
		return err
	}
	newest := make(map[uint64]string) // by schema
	for _, b := range all {
		newest[b.schema] = b.path
	}
	for _, b := range all[:len(all)-db.opts.KeepBackups] {
		if newest[b.schema] == b.path {
			continue
		}
		err = errors.Join(err, db.do(crashpoint.Prune, func() error { return os.Remove(b.path) }))
	}
	return err
}

const (
	// youngBackup is how old a backup is at least before a start makes the next: a
	// master that crashes again and again must not push out all of an earlier time.
	youngBackup = time.Minute
	// backupRetry is how soon one that has failed is tried again, at the latest.
	backupRetry = time.Minute
)

// ServeBackups makes a backup at once, unless there is one that is younger than a
// minute, and then one each interval in which something has changed, until ctx
// ends. That one cannot be made is logged, once, and does no other harm. An
// interval of 0 makes none.
func (db *DB) ServeBackups(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		return
	}
	timer := time.NewTimer(db.firstBackup(min(interval, youngBackup)))
	defer timer.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		path, err := db.BackUp()
		switch {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			if !failing {
				db.opts.Logger.Warn("backup not made, trying again", "error", err)
			}
			failing = true
			timer.Reset(min(interval, backupRetry))
			continue
		case failing:
			db.opts.Logger.Info("backups are made again", "backup", path)
		case path != "":
			db.opts.Logger.Info("state backed up", "backup", path)
		}
		failing = false
		timer.Reset(interval)
	}
}

// firstBackup is how long the first backup of a run waits. A clock that was set back
// does not make it wait.
func (db *DB) firstBackup(young time.Duration) time.Duration {
	list, err := listBackups(db.dir)
	if err != nil || len(list) == 0 {
		return 0
	}
	age := time.Since(list[len(list)-1].made)
	if age < 0 || age >= young {
		return 0
	}
	return young - age
}

// copyBeforeMigration puts a copy into the backups folder and returns its path.
func (db *DB) copyBeforeMigration() (string, error) {
	return db.copyTo(crashpoint.MigrationCopy, db.handle.view)
}
