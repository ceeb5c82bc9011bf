package store

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
	dbName       = "state.db"
	lockName     = "master.lock"
	masterIDName = "master-id"
	counterName  = "counter.dat"
	backupsName  = "backups"
)

// stateDir is a state directory and how to treat it. It does not change while the state is open.
type stateDir struct {
	path    string // as given to Open
	db      string // path of state.db
	counter string // path of counter.dat
	steps   migrations.List
	ops     statefile.Ops
	log     *slog.Logger

	lockWait    time.Duration          // for another master to release the lock
	recover     bool                   // keep a damaged file aside and continue; otherwise it is an error
	maxEvents   int                    // number of events kept in the registry
	keepBackups int                    // number of newest backups to keep
	lostID      func() (string, error) // asks the living workers for the master's id; may be nil
}

// newStateDir returns the state directory at path, whose other fields the caller sets.
func newStateDir(path string) *stateDir {
	return &stateDir{path: path, db: filepath.Join(path, dbName), counter: filepath.Join(path, counterName)}
}

// tolerate separates damage that is recovered from (the first result) from errors that make the caller fail (the second).
func (d *stateDir) tolerate(err error) (damage, rest error) {
	if _, ok := errors.AsType[*statefile.DamagedError](err); ok && d.recover {
		return err, nil
	}
	return nil, err
}

// sinceOr returns at or, if it is not known, the time of the oldest file.
func (d *stateDir) sinceOr(at time.Time) time.Time {
	if at.IsZero() {
		return d.oldest()
	}
	return at
}

// oldest returns the modification time of the oldest file of the state. If nothing else is known, everything
// counted since then may be lost.
func (d *stateDir) oldest() time.Time {
	oldest := time.Now()
	entries, _ := os.ReadDir(d.path)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.ModTime().Before(oldest) {
			oldest = fi.ModTime()
		}
	}
	return time.Unix(oldest.Unix(), 0).UTC()
}

// DirID returns the device and inode of a directory, which identify it on this machine. They distinguish a state
// directory from a copy of it.
func DirID(dir string) (identity.FileID, error) {
	device, inode, err := statefile.Identify(dir)
	return identity.FileID{Device: device, Inode: inode}, err
}

// makeDir creates the state directory if it is missing. Missing parents are created with the same mode.
func makeDir(ops statefile.Ops, dir string) error {
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
	// syncPath makes it durable later.
	if err := ops.Perform(crashpoint.StateFolder, func() error { return safefile.MkdirAll(dir) }); err != nil {
		return fmt.Errorf("create the state directory: %w: choose one that can be written to", err)
	}
	return nil
}

// syncPath makes the directories that lead to dir durable, up to the root of its file system: any of them may have
// been created by makeDir, in this run or in an earlier one that was killed right after.
func syncPath(ops statefile.Ops, dir string) error {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return err
	}
	here, err := DirID(dir)
	if err != nil {
		return err
	}
	return ops.Perform(crashpoint.FolderSync, func() error {
		for parent := filepath.Dir(dir); parent != dir; dir, parent = parent, filepath.Dir(parent) {
			// The master did not create a directory that it cannot see or read, nor any above it.
			if there, err := DirID(parent); err != nil || there.Device != here.Device {
				return nil //nolint:nilerr // see above
			}
			if err := statefile.SyncDir(parent); errors.Is(err, fs.ErrPermission) {
				return nil
			} else if err != nil {
				return fmt.Errorf("make the state directory durable: %w", err)
			}
		}
		return nil
	})
}

// escapeGlob makes a path match only itself.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
