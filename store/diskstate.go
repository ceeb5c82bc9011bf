package store

import (
	"path/filepath"
	"time"

	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// diskState is the state of the files besides the database, and the result of opening the database.
type diskState struct {
	id    string // from master-id, empty if the file is missing or damaged
	idErr error  // the damage of master-id

	count      counterfile.Reading // of counter.dat; zero if the file is missing or damaged
	counterErr error               // the damage of counter.dat, if both slots are damaged

	// These describe the opened database.
	countErr  error     // why its count cannot be read
	countedAt time.Time // see tables.countedAt
	rescued   bool      // it was just made, and itself records whether the count may be short
}

// readDiskState reads the small files.
func readDiskState(dir *stateDir) (f diskState, err error) {
	f.id, err = readMasterID(dir.path)
	if f.idErr, err = dir.tolerate(err); err != nil {
		return f, err
	}
	f.count, err = counterfile.Read(dir.counter)
	f.counterErr, err = dir.tolerate(err)
	return f, err
}

// used reports whether an earlier master got beyond its first start in the directory.
func (f *diskState) used(dir *stateDir) bool {
	if f.count.Slot.Processed > 0 || f.counterErr != nil || f.count.Damaged != nil {
		return true
	}
	if list, err := listBackups(dir.path); err == nil && len(list) > 0 {
		return true
	}
	for _, pattern := range []string{
		dbName + statefile.DamagedInfix + "*", masterIDName + statefile.DamagedInfix + "*",
		counterName + statefile.DamagedInfix + "*", "logs", "admin.path",
	} {
		if there, _ := filepath.Glob(filepath.Join(escapeGlob(dir.path), pattern)); len(there) > 0 {
			return true
		}
	}
	return false
}

// keepAsideSmall keeps aside those of the small files that are damaged.
func (f *diskState) keepAsideSmall(dir *stateDir) error {
	for path, damage := range map[string]error{
		filepath.Join(dir.path, masterIDName): f.idErr,
		dir.counter:                           f.counterErr,
	} {
		if damage == nil {
			continue
		}
		if _, err := dir.ops.KeepAside(path, damage, dir.log); err != nil {
			return err
		}
	}
	return nil
}

// countShort returns since when the count may be short because the counter was lost. It returns zero if the count is
// exact. record is the record of the opened database as found.
func (f *diskState) countShort(dir *stateDir, record Meta) time.Time {
	switch {
	case f.rescued:
		return time.Time{}
	case f.count.Good(): // the counter is never behind
	case record.CleanShutdown && f.countErr == nil: // the whole count was brought into the database
	default:
		return earliest(f.count.Short, dir.sinceOr(f.countedAt))
	}
	return f.count.Short
}
