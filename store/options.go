package store

import (
	"cmp"
	"log/slog"
	"os"
	"time"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

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
	MaxEvents int           // number of newest events kept; 0 means 3000
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
	// Repaired is called when the state can be written again, with the time since when it could not and the reason. It
	// must not block or use the state. May be nil.
	Repaired func(since time.Time, cause error)
	// Lock is what [DB.HandOver] of an earlier program of this process has returned; nil if there was none. Open
	// closes it if it fails.
	Lock   *os.File
	Logger *slog.Logger // nil discards
}

func (o Options) withDefaults() Options {
	o.Interval = cmp.Or(max(o.Interval, 0), 100*time.Millisecond)
	o.LockWait = cmp.Or(max(o.LockWait, 0), 2*time.Second)
	o.MaxEvents = cmp.Or(max(o.MaxEvents, 0), 3000)
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

// seams are the parts that tests replace.
type seams struct {
	steps migrations.List
	at    func(moment string) error // see [statefile.Ops]
}

// dirOf returns the state directory at path for these options, which have their defaults.
func dirOf(path string, o Options, s seams) *statedir.Dir {
	d := statedir.New(path)
	d.Steps, d.Ops, d.Log = s.steps, statefile.Ops{At: s.at}, o.Logger
	d.LockWait, d.Recover = o.LockWait, o.OnDamage == Recover
	d.MaxEvents, d.KeepBackups, d.LostID, d.Repaired = o.MaxEvents, o.KeepBackups, o.LostID, o.Repaired
	return d
}

// offline returns the state directory for operations while no master runs.
func offline(path string, wait time.Duration) *statedir.Dir {
	return dirOf(path, Options{LockWait: wait, OnDamage: Recover}.withDefaults(), seams{steps: migrations.All})
}

// DirID returns the device and inode of a directory, which identify it on this machine. They distinguish a state
// directory from a copy of it.
func DirID(dir string) (identity.FileID, error) { return statedir.ID(dir) }
