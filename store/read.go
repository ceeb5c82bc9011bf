package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

// readWait bounds the wait for a process that has state.db open but not
// master.lock.
const readWait = 100 * time.Millisecond

// ReadSnapshot reads the registry in dir while no master runs. It creates and
// changes nothing, and waits for nobody.
//
// Its error is, or wraps, fs.ErrNotExist where there is no state, a
// [LockedError] where a master holds it, a [DamagedError] or a
// [NewerSchemaError].
func ReadSnapshot(dir string) (Snapshot, error) {
	path := filepath.Join(dir, dbName)
	if _, err := os.Stat(path); err != nil {
		return Snapshot{}, fmt.Errorf("no state to read: %w", err)
	}
	release, err := readLock(dir)
	if err != nil {
		return Snapshot{}, err
	}
	defer release()
	s, err := readDatabase(dir, path)
	if err != nil {
		return Snapshot{}, err
	}
	slot, _, err := readCounter(dir)
	if err != nil {
		return Snapshot{}, err
	}
	s.Processed = max(s.Processed, slot.count)
	return s, nil
}

func readDatabase(dir, path string) (s Snapshot, err error) {
	f, img, err := loadImage(path)
	if err != nil {
		return Snapshot{}, err
	}
	defer func() { _ = f.Close() }()
	if err := img.check(false); err != nil {
		return Snapshot{}, &DamagedError{Path: path, Err: err}
	}
	h, err := openHandle(path, false, readWait)
	if errors.Is(err, errLocked) {
		return Snapshot{}, &LockedError{Path: dir}
	}
	if err != nil {
		return Snapshot{}, fmt.Errorf("read the state: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	err = h.view(func(tx *bolt.Tx) error {
		found, err := migrations.Version(tx)
		if err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		if known := migrations.Current(); found > known {
			return &NewerSchemaError{Path: path, Found: found, Known: known}
		}
		if err := checkBuckets(tx); err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		s, err = readAll(tx)
		return err
	})
	if err != nil {
		return Snapshot{}, err
	}
	return s, nil
}
