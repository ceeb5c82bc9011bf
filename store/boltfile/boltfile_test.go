package boltfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/store/statefile"
)

var bucketName = []byte("bucket")

// create makes a database with n pairs, one per transaction.
func create(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	err := Create(path, time.Second, func(b *bolt.DB) error {
		for i := range n {
			if err := b.Update(put(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func put(i int) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketName)
		if err != nil {
			return err
		}
		return b.Put(fmt.Appendf(nil, "key-%03d", i), []byte(strings.Repeat("value ", 100)))
	}
}

func mustOpen(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func load(t *testing.T, path string) *Image {
	t.Helper()
	f, img, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := img.Check(true); err != nil {
		t.Fatal(err)
	}
	return img
}

// keys returns the keys that the pages of an image have.
func keys(t *testing.T, img *Image) (keys []string) {
	t.Helper()
	err := img.Walk(true, func(path []string, key, _ []byte) {
		if len(path) == 1 && key != nil {
			keys = append(keys, string(key))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// An image can be taken of the last transaction and of the one before it, and of no other.
func TestImageOfAnEarlierTransaction(t *testing.T) {
	path := create(t, 60)
	img := load(t, path)
	last := img.Meta.TxID
	for back, want := range []int{60, 59} {
		then, err := img.At(last - uint64(back))
		if err != nil {
			t.Fatal(err)
		}
		copied, err := os.Create(filepath.Join(t.TempDir(), "copy"))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(then.CopyTo(copied), copied.Close()); err != nil {
			t.Fatal(err)
		}
		again := load(t, copied.Name())
		if got := keys(t, again); len(got) != want || again.Meta.TxID != last-uint64(back) || again.Damaged != nil {
			t.Errorf("%d back: %d keys, transaction %d, damage %v", back, len(got), again.Meta.TxID, again.Damaged)
		}
		if err := mustOpen(t, copied.Name()).Update(put(100), (*bolt.Tx).Commit); err != nil {
			t.Errorf("%d back: the copy cannot be written: %v", back, err)
		}
	}
	if _, err := img.At(last - 2); err == nil {
		t.Error("an image of a transaction that is overwritten")
	}
}

func TestRenumber(t *testing.T) {
	for _, txid := range []uint64{1000, 1001} {
		path := create(t, 3)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(Renumber(f, txid), f.Close()); err != nil {
			t.Fatal(err)
		}
		if got := LastTx(path); got != txid {
			t.Errorf("transaction %d, want %d", got, txid)
		}
		if err := mustOpen(t, path).Update(put(3), (*bolt.Tx).Commit); err != nil {
			t.Fatal(err)
		}
		if img := load(t, path); img.Meta.TxID != txid+1 || len(keys(t, img)) != 4 {
			t.Errorf("after a commit: transaction %d, keys %v", img.Meta.TxID, keys(t, img))
		}
	}
}

func TestOpenCreatesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	if _, err := Open(path, time.Second); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a file now: %v", err)
	}
}

func TestOpenFileIsLocked(t *testing.T) {
	path := create(t, 1)
	f := mustOpen(t, path)
	if _, err := Open(path, 10*time.Millisecond); !errors.Is(err, statefile.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, path)
}

// A panic in a transaction becomes an error. A file that it leaves locked says so, and closing it releases the file.
func TestPanicBecomesAnError(t *testing.T) {
	path := create(t, 1)
	f := mustOpen(t, path)
	var damaged *statefile.DamagedError
	err := f.View(func(*bolt.Tx) error { panic("damage") })
	if !errors.As(err, &damaged) || damaged.Path != path || f.Stuck() {
		t.Errorf("a reader: %v, stuck %t", err, f.Stuck())
	}
	err = f.Update(put(1), func(*bolt.Tx) error { panic("damage") })
	if !errors.As(err, &damaged) || f.Stuck() {
		t.Errorf("a writer: %v, stuck %t", err, f.Stuck())
	}
	if err := f.View(func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), errors.New("mine")) }); err == nil ||
		err.Error() != "mine" || f.Stuck() {
		t.Errorf("an error: %v, stuck %t", err, f.Stuck())
	}
}

func TestSyncMetaChangesNothing(t *testing.T) {
	path := create(t, 5)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, path).SyncMeta(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %v", err)
	}
}
