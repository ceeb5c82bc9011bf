package migrations

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func openDB(t *testing.T) *bolt.DB {
	t.Helper()
	db, err := bolt.Open(filepath.Join(t.TempDir(), "db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func version(t *testing.T, db *bolt.DB) (v uint64, err error) {
	t.Helper()
	_ = db.View(func(tx *bolt.Tx) error {
		v, err = Version(tx)
		return nil
	})
	return v, err
}

func TestAllMakesTheBuckets(t *testing.T) {
	db := openDB(t)
	if _, err := version(t, db); !errors.Is(err, ErrNoVersion) {
		t.Errorf("an empty database: %v, want ErrNoVersion", err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { return All.Apply(tx, 0) }); err != nil {
		t.Fatal(err)
	}
	if v, err := version(t, db); err != nil || v != Current() {
		t.Errorf("version %d, %v, want %d", v, err, Current())
	}
	_ = db.View(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{BucketMeta, BucketWorkers, BucketCounters, BucketEvents} {
			if tx.Bucket(name) == nil {
				t.Errorf("bucket %s is missing", name)
			}
		}
		return nil
	})
}

func TestOnlyPendingStepsRunInOrder(t *testing.T) {
	var ran []int
	var list List
	for i := range 4 {
		list = append(list, func(*bolt.Tx) error { ran = append(ran, i+1); return nil })
	}
	for from, want := range [][]int{{1, 2, 3, 4}, {2, 3, 4}, {3, 4}, {4}, nil} {
		db, before := openDB(t), uint64(from)
		ran = nil
		if err := db.Update(func(tx *bolt.Tx) error { return list.Apply(tx, before) }); err != nil {
			t.Fatal(err)
		}
		if v, err := version(t, db); !slices.Equal(ran, want) || v != 4 || err != nil {
			t.Errorf("from %d: ran %v, want %v; version %d, %v", from, ran, want, v, err)
		}
	}
	if err := openDB(t).Update(func(tx *bolt.Tx) error { return list.Apply(tx, 5) }); err == nil {
		t.Error("migrated from a version that is not known")
	}
}

func TestAllStepsOrNone(t *testing.T) {
	failed := errors.New("failed")
	db := openDB(t)
	if err := db.Update(func(tx *bolt.Tx) error { return All.Apply(tx, 0) }); err != nil {
		t.Fatal(err)
	}
	list := append(slices.Clone(All),
		func(tx *bolt.Tx) error { return tx.DeleteBucket(BucketWorkers) },
		func(*bolt.Tx) error { return failed })
	err := db.Update(func(tx *bolt.Tx) error { return list.Apply(tx, Current()) })
	if want := fmt.Sprintf("migrate to schema version %d: failed", list.Version()); !errors.Is(err, failed) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if v, err := version(t, db); err != nil || v != Current() {
		t.Errorf("version %d, %v, want the one before", v, err)
	}
	_ = db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(BucketWorkers) == nil {
			t.Error("the step before the failed one was not undone")
		}
		return nil
	})
}

func TestUnreadableVersion(t *testing.T) {
	for _, value := range [][]byte{nil, {1}, make([]byte, 8), make([]byte, 9)} {
		db := openDB(t)
		if err := db.Update(func(tx *bolt.Tx) error {
			meta, err := tx.CreateBucket(BucketMeta)
			return errors.Join(err, meta.Put(KeyVersion, value))
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := version(t, db); !errors.Is(err, ErrNoVersion) {
			t.Errorf("%x: %v, want ErrNoVersion", value, err)
		}
	}
}
