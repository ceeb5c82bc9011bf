// Package backups keeps the copies of state.db in the folder backups. A file with the name of a backup is complete and
// was checked, and a newer one is durable before an older one is removed.
package backups

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
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// stampLayout is the layout of the times in the names of backups. Such names sort by time.
const stampLayout = "20060102T150405Z"

// File is a backup as described by its file name. The names sort in the order in which the backups were made.
type File struct {
	Path     string
	Sequence uint64 // number of the last transaction in it
	schema   uint64
	made     time.Time
}

var namePattern = regexp.MustCompile(`^state-([0-9]{16})-schema([0-9]{1,9})-([0-9]{8}T[0-9]{6}Z)\.db$`)

func (b File) name() string {
	return fmt.Sprintf("state-%016d-schema%d-%s.db", b.Sequence, b.schema, b.made.UTC().Format(stampLayout))
}

func parseName(name string) (File, bool) {
	parts := namePattern.FindStringSubmatch(name)
	if parts == nil {
		return File{}, false
	}
	sequence, err1 := strconv.ParseUint(parts[1], 10, 64)
	schema, err2 := strconv.ParseUint(parts[2], 10, 64)
	made, err3 := time.Parse(stampLayout, parts[3])
	if errors.Join(err1, err2, err3) != nil {
		return File{}, false
	}
	b := File{Sequence: sequence, schema: schema, made: made}
	if b.name() != name {
		return File{}, false
	}
	return b, true
}

// List returns the backups of the state in dir, the oldest first. It ignores files with other names.
func List(dir string) ([]File, error) {
	folder := filepath.Join(dir, statedir.BackupsName)
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []File
	for _, e := range entries {
		if b, ok := parseName(e.Name()); ok {
			b.Path = filepath.Join(folder, e.Name())
			list = append(list, b)
		}
	}
	slices.SortStableFunc(list, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Sequence, b.Sequence), a.made.Compare(b.made))
	})
	return list, nil
}

// Folder is the folder of the copies of state.db.
//
// Invariant: a file with the name of a backup is complete, was checked and is of the transaction that its name gives.
// An older one is removed only after a newer one has been checked, so that there is always a good one.
type Folder struct {
	dir    *statedir.Dir
	folder string
}

func Of(d *statedir.Dir) Folder {
	return Folder{dir: d, folder: filepath.Join(d.Path, statedir.BackupsName)}
}

// viewer runs a function in a read transaction of state.db.
type viewer func(func(*bolt.Tx) error) error

// Add makes a backup of the database that view reads and returns its path, or "" if nothing has changed since the last
// backup. It then removes the oldest backups.
func (b Folder) Add(view viewer) (string, error) {
	var now uint64
	if err := view(func(tx *bolt.Tx) error {
		now = uint64(tx.ID())
		return nil
	}); err != nil {
		return "", err
	}
	before, err := List(b.dir.Path)
	if err != nil {
		return "", err
	}
	if len(before) > 0 && before[len(before)-1].Sequence == now {
		// The last attempt may have failed to make the name of this backup durable.
		return "", b.makeFolder(true)
	}
	path, err := b.Copy(crashpoint.Backup, view)
	if err != nil {
		return "", err
	}
	return path, b.prune()
}

// makeFolder creates the backups folder and makes it durable, even if it already exists: an earlier attempt may have
// created it but failed to sync it. If names is set, the names of the backups in it are made durable too.
func (b Folder) makeFolder(names bool) error {
	return b.dir.Ops.Perform(crashpoint.BackupsFolder, func() error {
		if err := safefile.Mkdir(b.folder); err != nil {
			return err
		}
		if names {
			if err := safefile.SyncDir(b.folder); err != nil {
				return err
			}
		}
		return safefile.SyncDir(b.dir.Path)
	})
}

// Copy puts a copy of the database that view reads into the folder and returns its path.
func (b Folder) Copy(point crashpoint.Point, view viewer) (string, error) {
	if err := b.makeFolder(false); err != nil {
		return "", err
	}
	var path string
	// Use the same temporary name each time, so that crashes leave at most one such file.
	temp := filepath.Join(b.folder, statedir.DatabaseName+statefile.TempSuffix)
	err := b.dir.Ops.Place(point, temp, func(f *os.File) (string, error) {
		err := view(func(tx *bolt.Tx) error {
			schema, err := migrations.Version(tx)
			if err != nil {
				return err
			}
			file := File{Sequence: uint64(tx.ID()), schema: schema, made: time.Now()}
			path = filepath.Join(b.folder, file.name())
			_, err = tx.WriteTo(f)
			return err
		})
		return path, err
	}, func(f *os.File) error { return records.CheckCopy(f, b.dir.Steps.Version()) })
	if err != nil {
		return "", err
	}
	return path, nil
}

// prune removes the oldest backups in excess of Options.KeepBackups. The newest backup of each earlier schema is kept,
// since an earlier release can use it.
func (b Folder) prune() error {
	all, err := List(b.dir.Path)
	if err != nil || len(all) <= b.dir.KeepBackups {
		return err
	}
	newest := make(map[uint64]string) // by schema
	for _, file := range all {
		newest[file.schema] = file.Path
	}
	for _, file := range all[:len(all)-b.dir.KeepBackups] {
		if newest[file.schema] == file.Path {
			continue
		}
		err = errors.Join(err, b.dir.Ops.Perform(crashpoint.Prune, func() error { return os.Remove(file.Path) }))
	}
	return err
}

// UntilOld returns the time until the newest backup has the age young, 0 if it has or if there is none. If the clock
// was set back, it counts as old.
func (b Folder) UntilOld(young time.Duration) time.Duration {
	list, err := List(b.dir.Path)
	if err != nil || len(list) == 0 {
		return 0
	}
	age := time.Since(list[len(list)-1].made)
	if age < 0 || age >= young {
		return 0
	}
	return young - age
}

// Candidate is a backup from which a database could be restored.
type Candidate struct {
	File
	records.Content
}

// AsOf returns the time up to which every acknowledged count is in the backup.
func (c Candidate) AsOf() time.Time {
	if !c.CountedAt.IsZero() {
		return c.CountedAt
	}
	return c.File.made
}

// Candidates returns the usable backups, the best first: those with fewer unreadable records come first, and among
// equals the one with the newest transaction. Times are not compared, because clocks may step. highest is the
// highest transaction number of all backups, usable or not.
func (b Folder) Candidates(id string) (good []Candidate, highest uint64, err error) {
	files, err := List(b.dir.Path)
	if statefile.IsTemporary(err) {
		return nil, 0, err
	}
	if err != nil {
		b.dir.Log.Warn("backups not listed", "path", b.folder, "error", err)
		return nil, 0, nil
	}
	var newer *records.NewerSchemaError
	for _, file := range files {
		highest = max(highest, file.Sequence)
		c, err := Read(file, b.dir.Steps.Version())
		switch n, isNewer := errors.AsType[*records.NewerSchemaError](err); {
		case isNewer:
			newer = n
		case err == nil && id != "" && c.Meta.MasterID != "" && c.Meta.MasterID != id:
			err = fmt.Errorf("it is of another master, %s", c.Meta.MasterID)
		}
		if statefile.IsTemporary(err) {
			return nil, 0, err
		}
		if err != nil {
			b.dir.Log.Warn("backup not used", "backup", file.Path, "error", err)
			continue
		}
		highest = max(highest, c.Content.Sequence)
		good = append(good, c)
	}
	if len(good) == 0 && newer != nil {
		return nil, 0, newer // the state is not lost, but only its own release can read it
	}
	slices.SortStableFunc(good, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(len(a.Bad), len(b.Bad)), cmp.Compare(b.Content.Sequence, a.Content.Sequence))
	})
	return good, highest, nil
}

// Newest returns the best candidate of the master with this id or, if id is empty, of any master. If there is
// none, it returns a zero candidate.
func (b Folder) Newest(id string) Candidate {
	good, _, err := b.Candidates(id)
	if err != nil || len(good) == 0 {
		return Candidate{}
	}
	return good[0]
}

// Read reads and checks a whole backup.
func Read(file File, known uint64) (Candidate, error) {
	f, size, err := statefile.Open(file.Path)
	if err != nil {
		return Candidate{}, err
	}
	defer func() { _ = f.Close() }()
	c, err := records.ReadContent(f, size, known)
	if n, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		n.Path = file.Path
		return Candidate{}, n
	}
	if err != nil {
		return Candidate{}, &statefile.DamagedError{Path: file.Path, Err: err}
	}
	return Candidate{file, c}, nil
}
