// Package statedir has the state directory as a place: its names, the lock whose holder is the master, and the ids of
// the master and of the directory. It knows nothing of the content of state.db, except the database's own record.
package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/internal/safefile"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/statefile"
)

// Names in the state directory.
const (
	DatabaseName = "state.db"
	LockName     = "master.lock"
	MasterIDName = "master-id"
	CounterName  = "counter.dat"
	BackupsName  = "backups"
	// SecretKeyName is the file with the key of the environments in the records.
	SecretKeyName = "secret.key"
)

// Dir is a state directory and how to treat it. It does not change while the state is open.
type Dir struct {
	Path     string // as given to Open
	Database string // path of state.db
	Counter  string // path of counter.dat
	Lock     string // path of master.lock
	Steps    migrations.List
	Ops      statefile.Ops
	Log      *slog.Logger

	LockWait    time.Duration                      // for another master to release the lock
	Recover     bool                               // keep a damaged file aside and continue; otherwise it is an error
	MaxEvents   int                                // number of events kept in the registry
	KeepBackups int                                // number of newest backups to keep
	LostID      func() (string, error)             // asks the living workers for the master's id; may be nil
	Repaired    func(since time.Time, cause error) // see the options of package store; may be nil
}

// New returns the state directory at path, whose other fields the caller sets.
func New(path string) *Dir {
	return &Dir{
		Path:     path,
		Database: filepath.Join(path, DatabaseName), Counter: filepath.Join(path, CounterName),
		Lock: filepath.Join(path, LockName),
	}
}

// Tolerate separates damage that is recovered from (the first result) from errors that make the caller fail (the
// second).
func (d *Dir) Tolerate(err error) (damage, rest error) {
	if _, ok := errors.AsType[*statefile.DamagedError](err); ok && d.Recover {
		return err, nil
	}
	return nil, err
}

// SinceOr returns at or, if it is not known, the time of the oldest file.
func (d *Dir) SinceOr(at time.Time) time.Time {
	if at.IsZero() {
		return d.Oldest()
	}
	return at
}

// Oldest returns the modification time of the oldest file of the state. If nothing else is known, everything
// counted since then may be lost.
func (d *Dir) Oldest() time.Time {
	oldest := time.Now()
	entries, _ := os.ReadDir(d.Path)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.ModTime().Before(oldest) {
			oldest = fi.ModTime()
		}
	}
	return time.Unix(oldest.Unix(), 0).UTC()
}

// ID returns the device and inode of a directory, which identify it on this machine. They distinguish a state
// directory from a copy of it.
func ID(dir string) (identity.FileID, error) {
	device, inode, err := statefile.Identify(dir)
	return identity.FileID{Device: device, Inode: inode}, err
}

// Make creates the state directory if it is missing. Missing parents are created with the same mode.
func Make(ops statefile.Ops, dir string) error {
	if err := safefile.CheckFolder(dir); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	fi, err := os.Stat(dir)
	switch {
	case err == nil && !fi.IsDir():
		return fmt.Errorf("state directory %s: it is a file: choose another one", dir)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("state directory: %w: choose one that can be written to", err)
	}
	// SyncPath makes it durable later.
	if err := ops.Perform(crashpoint.StateFolder, func() error { return safefile.MkdirAll(dir) }); err != nil {
		return fmt.Errorf("create the state directory: %w: choose one that can be written to", err)
	}
	return nil
}

// SyncPath makes the directories that lead to dir durable, up to the root of its file system: any of them may have
// been created by Make, in this run or in an earlier one that was killed right after.
func SyncPath(ops statefile.Ops, dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	here, err := ID(dir)
	if err != nil {
		return err
	}
	return ops.Perform(crashpoint.FolderSync, func() error {
		for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
			// The master did not create a directory that it cannot see or read, nor any above it.
			if there, err := ID(parent); err != nil || there.Device != here.Device {
				return nil //nolint:nilerr // see above
			}
			if err := safefile.SyncDir(parent); errors.Is(err, fs.ErrPermission) {
				return nil
			} else if err != nil {
				return fmt.Errorf("make the state directory durable: %w", err)
			}
		}
		return nil
	})
}

// EscapeGlob makes a path match only itself.
func EscapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
