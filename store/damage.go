package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/internal/crashpoint"
)

// OnDamage says what Open does about a file that cannot be trusted.
type OnDamage int

const (
	// Refuse returns a [DamagedError] and leaves every file as it is.
	Refuse OnDamage = iota
	// Recover keeps the file aside under another name and goes on from the newest
	// good backup, or without one from an empty registry. What is newer than that,
	// the living workers tell.
	Recover
)

const (
	damagedInfix  = ".damaged-"  // state.db.damaged-20260203T040506.000007Z
	replacedInfix = ".replaced-" // the same of a file that Restore has replaced

	// Of times in names. They sort.
	stampLayout = "20060102T150405Z"
	asideLayout = "20060102T150405.000000Z"

	// maxAside bounds how many damaged files of one name are kept, so that a disk
	// that goes bad does not fill itself: the first one, which shows what has begun
	// it, and the newest.
	maxAside = 8
)

// finding is what a start has found besides the database.
type finding struct {
	id    string // from master-id, empty where it is missing or damaged
	idErr error  // it is damaged

	count      reading // of counter.dat; nothing where it is missing or damaged
	counterErr error   // it is damaged, both slots of it

	// Of the database that was opened.
	countErr  error     // its count cannot be read
	countedAt time.Time // see tables.countedAt
	rescued   bool      // it was just made, and says itself whether the count may be short
}

// look reads the small files.
func (db *DB) look() (f finding, err error) {
	f.id, err = readMasterID(db.dir)
	if f.idErr, err = db.tolerate(err); err != nil {
		return f, err
	}
	f.count, err = readCounter(db.dir)
	f.counterErr, err = db.tolerate(err)
	return f, err
}

// tolerate tells damage that is recovered from, from errors that end the start.
func (db *DB) tolerate(err error) (damage, rest error) {
	if _, ok := errors.AsType[*DamagedError](err); ok && db.opts.OnDamage == Recover {
		return err, nil
	}
	return nil, err
}

// used tells whether there was a master before, that came beyond its first start.
func (db *DB) used(f finding) bool {
	if f.count.slot.processed > 0 || f.counterErr != nil || f.count.damaged != nil {
		return true
	}
	if backups, err := listBackups(db.dir); err == nil && len(backups) > 0 {
		return true
	}
	for _, pattern := range []string{dbName + damagedInfix + "*", masterIDName + damagedInfix + "*", counterName + damagedInfix + "*", "logs", "admin.path"} {
		if there, _ := filepath.Glob(filepath.Join(escapeGlob(db.dir), pattern)); len(there) > 0 {
			return true
		}
	}
	return false
}

// escapeGlob makes a path match itself only.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// keepAsideSmall keeps the damaged ones of the small files aside.
func (db *DB) keepAsideSmall(f *finding) error {
	for path, damage := range map[string]error{
		filepath.Join(db.dir, masterIDName): f.idErr,
		filepath.Join(db.dir, counterName):  f.counterErr,
	} {
		if damage == nil {
			continue
		}
		if _, err := db.keepAside(path, damage); err != nil {
			return err
		}
	}
	return nil
}

// keepAside renames a damaged file, so that nothing overwrites it, and returns its
// new name.
func (db *DB) keepAside(path string, damage error) (string, error) {
	aside := asideName(path, damagedInfix)
	err := db.do(crashpoint.Quarantine, func() error { return os.Rename(path, aside) })
	if err == nil {
		err = db.do(crashpoint.QuarantineSync, func() error { return syncDir(db.dir) })
	}
	if err != nil {
		return "", fmt.Errorf("keep the damaged %s aside: %w", path, err)
	}
	db.opts.Logger.Warn("state file is damaged, kept aside", "path", path, "kept", aside, "error", cause(damage))
	db.dropAside(path, aside)
	return aside, nil
}

// keepCopyAside is keepAside for a file that is of use all the same.
func (db *DB) keepCopyAside(path string, damage error) error {
	src, _, err := openRegular(path)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	aside := asideName(path, damagedInfix)
	err = db.replaceFile(crashpoint.QuarantineCopy, aside, func(f *os.File) error {
		_, err := io.Copy(onlyWriter{f}, src)
		return err
	})
	if err != nil {
		return fmt.Errorf("keep a copy of the damaged %s: %w", path, err)
	}
	db.opts.Logger.Warn("state file is damaged in part, a copy is kept aside", "path", path, "kept", aside, "error", cause(damage))
	db.dropAside(path, aside)
	return nil
}

// onlyWriter keeps io.Copy from calls of the kernel's that copy files, and that not
// every file system has.
type onlyWriter struct{ io.Writer }

// cause is what is wrong with the file, without its name.
func cause(damage error) error {
	if d, ok := errors.AsType[*DamagedError](damage); ok {
		return d.Err
	}
	return damage
}

// asideName is a name for the file at path that is not taken.
func asideName(path, infix string) string {
	name := path + infix + time.Now().UTC().Format(asideLayout)
	for n, free := 2, name; ; n++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			return free
		}
		free = fmt.Sprintf("%s-%d", name, n)
	}
}

// dropAside removes the files kept aside that are too many. That they stay is no
// reason not to start.
func (db *DB) dropAside(path, newest string) {
	kept, err := listAside(path, damagedInfix)
	// The names tell the time, and the clock may have been set back since the last.
	kept = append(slices.DeleteFunc(kept, func(name string) bool { return name == newest }), newest)
	if err == nil && len(kept) > maxAside {
		for _, old := range kept[1 : 1+len(kept)-maxAside] {
			err = errors.Join(err, db.do(crashpoint.Prune, func() error { return os.Remove(old) }))
		}
	}
	if err != nil {
		db.opts.Logger.Warn("damaged files that are too many not removed", "path", path, "error", err)
	}
}

// listAside returns what was kept aside of the file at path, the oldest first.
func listAside(path, infix string) ([]string, error) {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+infix) && !strings.HasSuffix(e.Name(), tempSuffix) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

// firstCounter makes the counter of a new state.
func (db *DB) firstCounter(f *finding) error {
	if f.count.slot.sequence > 0 {
		return nil
	}
	counter, err := db.createCounter(db.dir, tally{}, time.Time{})
	if err != nil {
		return err
	}
	f.count.slot = slot{sequence: counter.sequence}
	return counter.close()
}

// countShort returns since when the count may be short, for want of the counter;
// zero where it is what was acknowledged.
func (db *DB) countShort(f finding) time.Time {
	switch {
	case f.rescued:
		return time.Time{}
	case f.count.good(): // it is never behind
	case db.found.CleanShutdown && f.countErr == nil: // all of it was brought into the database
	default:
		return earliest(f.count.short, db.sinceOr(f.countedAt))
	}
	return f.count.short
}

// sinceOr is at, or where that is not known, the oldest time there is.
func (db *DB) sinceOr(at time.Time) time.Time {
	if at.IsZero() {
		return db.oldest()
	}
	return at
}

// oldest is the time of the oldest file of the state: where nothing else is known,
// everything since then may be lost.
func (db *DB) oldest() time.Time {
	oldest := time.Now()
	entries, _ := os.ReadDir(db.dir)
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.ModTime().Before(oldest) {
			oldest = fi.ModTime()
		}
	}
	return time.Unix(oldest.Unix(), 0).UTC()
}
