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
		wantBuckets(t, tx, Current())
		return nil
	})
}

// wantBuckets checks that the database has the buckets of the schema version, and no others.
func wantBuckets(t *testing.T, tx *bolt.Tx, version uint64) {
	t.Helper()
	var want, got []string
	for _, name := range Buckets(version) {
		want = append(want, string(name))
	}
	_ = tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		got = append(got, string(name))
		return nil
	})
	slices.Sort(want)
	if !slices.Equal(got, want) { // the names in a database are sorted
		t.Errorf("schema version %d has the buckets %v, want %v", version, got, want)
	}
}

// Each step starts from the previous version with data in it, and keeps that data.
func TestEachStepAlone(t *testing.T) {
	for from := uint64(1); from < Current(); from++ {
		db := openDB(t)
		if err := db.Update(func(tx *bolt.Tx) error {
			return errors.Join(All[:from].Apply(tx, 0),
				tx.Bucket(BucketWorkers).Put([]byte("worker-0"), []byte("record")))
		}); err != nil {
			t.Fatal(err)
		}
		_ = db.View(func(tx *bolt.Tx) error {
			wantBuckets(t, tx, from)
			return nil
		})
		if err := db.Update(func(tx *bolt.Tx) error { return All[:from+1].Apply(tx, from) }); err != nil {
			t.Fatal(err)
		}
		if v, err := version(t, db); err != nil || v != from+1 {
			t.Errorf("version %d, %v, want %d", v, err, from+1)
		}
		_ = db.View(func(tx *bolt.Tx) error {
			wantBuckets(t, tx, from+1)
			if got := string(tx.Bucket(BucketWorkers).Get([]byte("worker-0"))); got != "record" {
				t.Errorf("from version %d: a worker's record is %q", from, got)
			}
			return nil
		})
	}
}

func TestEachStepIsDescribed(t *testing.T) {
	for v := range Current() + 2 {
		if known, says := v >= 1 && v <= Current(), Describe(v); (says != "unknown to this release") != known {
			t.Errorf("step to version %d: %q", v, says)
		}
	}
}

func TestOnlyPendingStepsRunInOrder(t *testing.T) {
	var ran []int
	var list List
	for i := range 4 {
		list = append(list, Step{Change: func(*bolt.Tx) error { ran = append(ran, i+1); return nil }})
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
		Step{Change: func(tx *bolt.Tx) error { return tx.DeleteBucket(BucketWorkers) }},
		Step{Change: func(*bolt.Tx) error { return failed }})
	err := db.Update(func(tx *bolt.Tx) error { return list.Apply(tx, Current()) })
	if want := fmt.Sprintf("migrate to schema version %d: failed", list.Version()); !errors.Is(err, failed) ||
		err.Error() != want {
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

func TestBucketOfALaterVersion(t *testing.T) {
	db := openDB(t)
	err := db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(BucketServices)
		return errors.Join(All[:1].Apply(tx, 0), err)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bolt.Tx) error { return All.Apply(tx, 1) }); !errors.Is(err, ErrNotAsSaid) {
		t.Errorf("%v, want ErrNotAsSaid", err)
	}
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
