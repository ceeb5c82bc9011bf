package store

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/statefile"
)

// stampLayout is the layout of the times in the names of backups. Such names sort by time.
const stampLayout = "20060102T150405Z"

// backupFile is a backup as described by its file name. The names sort in the order in which the backups were made.
type backupFile struct {
	path     string
	sequence uint64 // number of the last transaction in it
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

// listBackups returns the backups of the state in dir, the oldest first. It ignores files with other names.
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

// backups is the folder of the copies of state.db.
//
// Invariant: a file with the name of a backup is complete, was checked and is of the transaction that its name gives.
// An older one is removed only after a newer one has been checked, so that there is always a good one.
type backups struct {
	dir    *stateDir
	folder string
}

func backupsOf(d *stateDir) backups {
	return backups{dir: d, folder: filepath.Join(d.path, backupsName)}
}

// viewer runs a function in a read transaction of state.db.
type viewer func(func(*bolt.Tx) error) error

// add makes a backup of the database that view reads and returns its path, or "" if nothing has changed since the last
// backup. It then removes the oldest backups.
func (b backups) add(view viewer) (string, error) {
	var now uint64
	if err := view(func(tx *bolt.Tx) error {
		now = uint64(tx.ID())
		return nil
	}); err != nil {
		return "", err
	}
	before, err := listBackups(b.dir.path)
	if err != nil {
		return "", err
	}
	if len(before) > 0 && before[len(before)-1].sequence == now {
		// The last attempt may have failed to make the name of this backup durable.
		return "", b.makeFolder(true)
	}
	path, err := b.copy(crashpoint.Backup, view)
	if err != nil {
		return "", err
	}
	return path, b.prune()
}

// makeFolder creates the backups folder and makes it durable, even if it already exists: an earlier attempt may have
// created it but failed to sync it. If names is set, the names of the backups in it are made durable too.
func (b backups) makeFolder(names bool) error {
	return b.dir.ops.Perform(crashpoint.BackupsFolder, func() error {
		if err := safefile.Mkdir(b.folder); err != nil {
			return err
		}
		if names {
			if err := statefile.SyncDir(b.folder); err != nil {
				return err
			}
		}
		return statefile.SyncDir(b.dir.path)
	})
}

// copy puts a copy of the database that view reads into the folder and returns its path.
func (b backups) copy(point crashpoint.Point, view viewer) (string, error) {
	if err := b.makeFolder(false); err != nil {
		return "", err
	}
	var path string
	// Use the same temporary name each time, so that crashes leave at most one such file.
	temp := filepath.Join(b.folder, dbName+statefile.TempSuffix)
	err := b.dir.ops.Place(point, temp, func(f *os.File) (string, error) {
		err := view(func(tx *bolt.Tx) error {
			schema, err := migrations.Version(tx)
			if err != nil {
				return err
			}
			file := backupFile{sequence: uint64(tx.ID()), schema: schema, made: time.Now()}
			path = filepath.Join(b.folder, file.name())
			_, err = tx.WriteTo(f)
			return err
		})
		return path, err
	}, func(f *os.File) error { return checkCopy(f, b.dir.steps.Version()) })
	if err != nil {
		return "", err
	}
	return path, nil
}

// prune removes the oldest backups in excess of Options.KeepBackups. The newest backup of each earlier schema is kept,
// since an earlier release can use it.
func (b backups) prune() error {
	all, err := listBackups(b.dir.path)
	if err != nil || len(all) <= b.dir.keepBackups {
		return err
	}
	newest := make(map[uint64]string) // by schema
	for _, file := range all {
		newest[file.schema] = file.path
	}
	for _, file := range all[:len(all)-b.dir.keepBackups] {
		if newest[file.schema] == file.path {
			continue
		}
		err = errors.Join(err, b.dir.ops.Perform(crashpoint.Prune, func() error { return os.Remove(file.path) }))
	}
	return err
}

// untilOld returns the time until the newest backup has the age young, 0 if it has or if there is none. If the clock was
// set back, it counts as old.
func (b backups) untilOld(young time.Duration) time.Duration {
	list, err := listBackups(b.dir.path)
	if err != nil || len(list) == 0 {
		return 0
	}
	age := time.Since(list[len(list)-1].made)
	if age < 0 || age >= young {
		return 0
	}
	return young - age
}

// candidate is a backup from which a database could be restored.
type candidate struct {
	backupFile
	content
}

// asOf returns the time up to which every acknowledged count is in the backup.
func (c candidate) asOf() time.Time {
	if !c.CountedAt.IsZero() {
		return c.CountedAt
	}
	return c.backupFile.made
}

// candidates returns the usable backups, the best first: those with fewer unreadable records come first, and among
// equals the one with the newest transaction. Times are not compared, because clocks may step. highest is the
// highest transaction number of all backups, usable or not.
func (b backups) candidates(id string) (good []candidate, highest uint64, err error) {
	files, err := listBackups(b.dir.path)
	if statefile.IsTemporary(err) {
		return nil, 0, err
	}
	if err != nil {
		b.dir.log.Warn("backups not listed", "path", b.folder, "error", err)
		return nil, 0, nil
	}
	var newer *NewerSchemaError
	for _, file := range files {
		highest = max(highest, file.sequence)
		c, err := readBackup(file, b.dir.steps.Version())
		switch n, isNewer := errors.AsType[*NewerSchemaError](err); {
		case isNewer:
			newer = n
		case err == nil && id != "" && c.Meta.MasterID != "" && c.Meta.MasterID != id:
			err = fmt.Errorf("it is of another master, %s", c.Meta.MasterID)
		}
		if statefile.IsTemporary(err) {
			return nil, 0, err
		}
		if err != nil {
			b.dir.log.Warn("backup not used", "backup", file.path, "error", err)
			continue
		}
		highest = max(highest, c.Sequence)
		good = append(good, c)
	}
	if len(good) == 0 && newer != nil {
		return nil, 0, newer // the state is not lost, but only its own release can read it
	}
	slices.SortStableFunc(good, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(len(a.Bad), len(b.Bad)), cmp.Compare(b.Sequence, a.Sequence))
	})
	return good, highest, nil
}

// newest returns the best candidate of the master with this id or, if id is empty, of any master. If there is
// none, it returns a zero candidate.
func (b backups) newest(id string) candidate {
	good, _, err := b.candidates(id)
	if err != nil || len(good) == 0 {
		return candidate{}
	}
	return good[0]
}

// readBackup reads and checks a whole backup.
func readBackup(file backupFile, known uint64) (candidate, error) {
	f, size, err := statefile.Open(file.path)
	if err != nil {
		return candidate{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := readContent(f, size, known)
	if n, ok := errors.AsType[*NewerSchemaError](err); ok {
		n.Path = file.path
		return candidate{}, n
	}
	if err != nil {
		return candidate{}, &statefile.DamagedError{Path: file.path, Err: err}
	}
	return candidate{file, c}, nil
}
