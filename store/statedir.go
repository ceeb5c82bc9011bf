package store

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
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
	opts    Options
	steps   migrations.List
	ops     statefile.Ops
}

func newStateDir(path string, opts Options, s seams) *stateDir {
	return &stateDir{
		path: path, db: filepath.Join(path, dbName), counter: filepath.Join(path, counterName),
		opts: opts.withDefaults(), steps: s.steps, ops: statefile.Ops{At: s.at},
	}
}

// offline returns the state directory for operations while no master runs.
func offline(path string, wait time.Duration) *stateDir {
	return newStateDir(path, Options{LockWait: wait, OnDamage: Recover}, seams{steps: migrations.All})
}

// seams are the parts that tests replace.
type seams struct {
	steps migrations.List
	at    func(moment string) error // see [statefile.Ops]
}

// SyncMode is the durability of a count when AddProcessed returns.
type SyncMode int

const (
	// SyncAlways means that the count survives a power cut.
	SyncAlways SyncMode = iota
	// SyncInterval means that the count survives the death of the process at once, and a power cut after at most
	// Options.Interval.
	SyncInterval
)

// Options are the options of Open; the zero value works.
type Options struct {
	Sync      SyncMode
	Interval  time.Duration // between syncs in SyncInterval mode; 0 means 100ms
	LockWait  time.Duration // for another master to release the lock; 0 means 2s
	MaxEvents int           // number of events kept in the registry; 0 means 1000
	OnDamage  OnDamage      // what to do about a damaged file of the state
	// KeepBackups is the number of newest backups to keep; 0 means 8.
	KeepBackups int
	// RequestTTL is how long the result of a request with an id is kept, see CountOnce; 0 means 10 minutes. A
	// reboot can extend it by up to the same time again.
	RequestTTL time.Duration
	// MaxResults and MaxResultBytes bound the number and total size of the stored results; when a bound is
	// exceeded, the oldest results are dropped first. 0 means 100,000 and 32 MiB.
	MaxResults     int
	MaxResultBytes int64
	// BootTime is a clock that never steps and keeps running across a restart of this process. BootID identifies
	// the boot in which its readings are valid. Together they give the age of a result after a restart. Without
	// them, the age starts again from zero at each restart.
	BootTime func() time.Duration
	BootID   string
	// LostID is called for the master's id if every record of it is lost: the living workers know it. It returns ""
	// if they do not. May be nil.
	LostID func() (string, error)
	Logger *slog.Logger // nil discards
}

func (o Options) withDefaults() Options {
	o.Interval = cmp.Or(max(o.Interval, 0), 100*time.Millisecond)
	o.LockWait = cmp.Or(max(o.LockWait, 0), 2*time.Second)
	o.MaxEvents = cmp.Or(max(o.MaxEvents, 0), 1000)
	o.KeepBackups = cmp.Or(max(o.KeepBackups, 0), 8)
	o.RequestTTL = cmp.Or(max(o.RequestTTL, 0), 10*time.Minute)
	o.MaxResults = cmp.Or(max(o.MaxResults, 0), 100_000)
	o.MaxResultBytes = cmp.Or(max(o.MaxResultBytes, 0), 32<<20)
	if o.BootTime == nil {
		began := time.Now()
		o.BootTime, o.BootID = func() time.Duration { return time.Since(began) }, ""
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// OnDamage specifies how Open treats a damaged file.
type OnDamage int

const (
	// Refuse makes Open return a [DamagedError] and leave every file unchanged.
	Refuse OnDamage = iota
	// Recover makes Open keep the file aside under another name and continue with the newest good backup or,
	// without one, with an empty registry. Anything newer than the backup is learned from the living workers.
	Recover
)

// tolerate separates damage that Open recovers from (the first result) from errors that make it fail (the second).
func (p OnDamage) tolerate(err error) (damage, rest error) {
	if _, ok := errors.AsType[*statefile.DamagedError](err); ok && p == Recover {
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

// ownRecord is the database's own record, and the directory that it belongs to.
//
// Invariant: record is the record as stored in the file, except in an opener, while a commit of it is under way, and
// from a start on a disk that cannot be written until the first repair.
type ownRecord struct {
	dir   string
	found Meta // the record as Open found it

	mu     sync.Mutex
	record Meta
	dirID  identity.FileID // of dir, as last read
}

func (o *ownRecord) get() Meta {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.record
}

func (o *ownRecord) set(record Meta) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.record = record
}

// currentDir returns the current device and inode of the directory, or the last known ones if it cannot be read.
func (o *ownRecord) currentDir() identity.FileID {
	id, err := DirID(o.dir)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.dirID = id
	}
	return o.dirID
}

// lastDir returns the last known device and inode of the directory.
func (o *ownRecord) lastDir() identity.FileID {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.dirID
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

// readMasterID returns the UUID from the file master-id, or "" if there is no such file.
func readMasterID(dir string) (string, error) {
	path := filepath.Join(dir, masterIDName)
	b, err := statefile.ReadFile(path, 256)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the master id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if !validUUID(id) {
		return "", &statefile.DamagedError{Path: path, Err: fmt.Errorf("%.64q is no UUID", id)}
	}
	return id, nil
}

func writeMasterID(ops statefile.Ops, dir, id string) error {
	err := ops.Replace(crashpoint.MasterID, filepath.Join(dir, masterIDName), func(f *os.File) error {
		_, err := io.WriteString(f, id+"\n")
		return err
	})
	if err != nil {
		return fmt.Errorf("write the master id: %w", err)
	}
	return nil
}

// newUUID returns a random UUID (version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // ends the program if there is no source of randomness
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// validUUID reports whether s is a UUID in its usual form.
func validUUID(s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	_, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	return err == nil && strings.Count(s, "-") == 4
}

// escapeGlob makes a path match only itself.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// earliest returns the earliest of the times that are not zero, or zero.
func earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
