package rebuild

import (
	"path/filepath"
	"time"

	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// DiskState is the state of the files besides the database, and the result of opening the database.
type DiskState struct {
	ID    string // from master-id, empty if the file is missing or damaged
	idErr error  // the damage of master-id

	Count      counterfile.Reading // of counter.dat; zero if the file is missing or damaged
	counterErr error               // the damage of counter.dat, if both copies are damaged

	// These describe the opened database.
	CountErr  error     // why its count cannot be read
	CountedAt time.Time // see records.Tables.CountedAt
	rescued   bool      // it was just made, and itself records whether the count may be short
}

// ReadDiskState reads the small files.
func ReadDiskState(dir *statedir.Dir) (f DiskState, err error) {
	f.ID, err = statedir.ReadMasterID(dir.Path)
	if f.idErr, err = dir.Tolerate(err); err != nil {
		return f, err
	}
	f.Count, err = counterfile.Read(dir.Counter)
	f.counterErr, err = dir.Tolerate(err)
	return f, err
}

// Used reports whether an earlier master got beyond its first start in the directory.
func (f *DiskState) Used(dir *statedir.Dir) bool {
	if f.Count.Newest.Processed > 0 || f.counterErr != nil || f.Count.Damaged != nil {
		return true
	}
	if list, err := backups.List(dir.Path); err == nil && len(list) > 0 {
		return true
	}
	for _, pattern := range []string{
		statedir.DatabaseName + statefile.DamagedInfix + "*", statedir.MasterIDName + statefile.DamagedInfix + "*",
		statedir.CounterName + statefile.DamagedInfix + "*", "logs", "admin.path",
	} {
		if there, _ := filepath.Glob(filepath.Join(statedir.EscapeGlob(dir.Path), pattern)); len(there) > 0 {
			return true
		}
	}
	return false
}

// KeepAsideSmall keeps aside those of the small files that are damaged.
func (f *DiskState) KeepAsideSmall(dir *statedir.Dir) error {
	for path, damage := range map[string]error{
		filepath.Join(dir.Path, statedir.MasterIDName): f.idErr,
		dir.Counter: f.counterErr,
	} {
		if damage == nil {
			continue
		}
		if _, err := dir.Ops.KeepAside(path, damage, dir.Log); err != nil {
			return err
		}
	}
	return nil
}

// CountShort returns since when the count may be short because the counter was lost. It returns zero if the count is
// exact. record is the record of the opened database as found.
func (f *DiskState) CountShort(dir *statedir.Dir, record records.Meta) time.Time {
	switch {
	case f.rescued:
		return time.Time{}
	case f.Count.Good(): // the counter is never behind
	case record.CleanShutdown && f.CountErr == nil: // the whole count was brought into the database
	default:
		return records.Earliest(f.Count.Short, dir.SinceOr(f.CountedAt))
	}
	return f.Count.Short
}
