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
	s, counted, err := readDatabase(dir, path)
	if err != nil {
		return Snapshot{}, err
	}
	count, err := readCounter(dir)
	if err != nil {
		return Snapshot{}, err
	}
	s.Processed = settled(count, counted).processed
	s.Meta.CountShortSince = earliest(s.Meta.CountShortSince, count.short)
	return s, nil
}

func readDatabase(dir, path string) (s Snapshot, counted tally, err error) {
	f, img, err := loadImage(path)
	if err != nil {
		return Snapshot{}, tally{}, err
	}
	defer func() { _ = f.Close() }()
	if err := img.check(false); err != nil {
		return Snapshot{}, tally{}, &DamagedError{Path: path, Err: err}
	}
	h, err := openHandle(path, false, readWait)
	if errors.Is(err, errLocked) {
		return Snapshot{}, tally{}, &LockedError{Path: dir}
	}
	if err != nil {
		return Snapshot{}, tally{}, fmt.Errorf("read the state: %w", err)
	}
	defer func() { err = errors.Join(err, h.close()) }()
	err = h.view(func(tx *bolt.Tx) error {
		t := allTablesOf(tx)
		found, err := t.version()
		if err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		if known := migrations.Current(); found > known {
			return &NewerSchemaError{Path: path, Found: found, Known: known}
		}
		if err := t.checkBuckets(); err != nil {
			return &DamagedError{Path: path, Err: err}
		}
		counted, _ = t.tally() // what is wrong with it is in Bad
		s, err = t.snapshot()
		return err
	})
	if err != nil {
		return Snapshot{}, tally{}, err
	}
	return s, counted, nil
}
