package once

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
)

// openFile returns an open database without results.
func openFile(t *testing.T) (file *boltfile.File, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "db")
	if err := boltfile.Create(path, time.Second, func(db *bolt.DB) error {
		return db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(migrations.BucketRequests)
			return err
		})
	}); err != nil {
		t.Fatal(err)
	}
	file, err := boltfile.Open(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, path
}

var limits = Limits{
	TTL: time.Minute, Most: 1e6, MostSize: 1e9, BootTime: func() time.Duration { return time.Hour }, BootID: "b",
}

// A commit that fails may leave its results in the file until that is rewritten.
func TestResultThatWasNotAcknowledgedIsNoneWhileOthersAreUnread(t *testing.T) {
	file, path := openFile(t)
	index := New(limits, slog.New(slog.DiscardHandler))
	put := func(list ...*Pending) (c Changes) {
		t.Helper()
		if err := file.Update(func(tx *bolt.Tx) (err error) {
			c, err = index.Put(tx, list)
			return err
		}, (*bolt.Tx).Commit); err != nil {
			t.Fatal(err)
		}
		return c
	}
	pending := func(id string) *Pending { return index.NewPending(records.Result{ID: id}, nil) }
	var list []*Pending
	for i := range readAtOnce + 2 {
		list = append(list, pending(fmt.Sprint(i)))
	}
	index.Committed(put(list...))

	index = New(limits, slog.New(slog.DiscardHandler))
	if err := file.View(func(tx *bolt.Tx) error {
		index.Open(tx, path)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	changes := put(pending("new"))
	found := func(id string) (found bool) {
		t.Helper()
		if err := file.View(func(tx *bolt.Tx) (err error) {
			_, found, err = index.Read(tx, id)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return found && index.MayHave(id)
	}
	last := fmt.Sprint(readAtOnce + 1)
	if !found(last) || found("new") {
		t.Errorf("found the last one: %t, the one that was not acknowledged: %t", found(last), found("new"))
	}
	index.Committed(changes)
	if !found("new") {
		t.Error("it is not found after it was acknowledged")
	}
}

// faulty is the log of an index. Its first message panics, as a page does that cannot be read.
type faulty struct {
	slog.Handler
	failed *bool
}

func (f faulty) Enabled(context.Context, slog.Level) bool { return true }

func (f faulty) Handle(context.Context, slog.Record) error {
	if !*f.failed {
		*f.failed = true
		panic("the page cannot be read")
	}
	return nil
}

// After a fault, the reading goes on, and no result is in the index twice.
func TestReadingThatAFaultInterrupts(t *testing.T) {
	const n = readAtOnce + 100
	file, path := openFile(t)
	if err := file.Update(func(tx *bolt.Tx) error {
		for i := range n {
			value := []byte("none") // is no result
			if i != readAtOnce+50 {
				var err error
				if value, err = records.EncodeResult(records.StoredResult{Sequence: uint64(i + 1)}); err != nil {
					return err
				}
			}
			if err := tx.Bucket(migrations.BucketRequests).Put(fmt.Appendf(nil, "%06d", i), value); err != nil {
				return err
			}
		}
		return nil
	}, (*bolt.Tx).Commit); err != nil {
		t.Fatal(err)
	}
	failed := false
	index := New(limits, slog.New(faulty{slog.DiscardHandler, &failed}))
	read := func(some func(tx *bolt.Tx, path string)) error {
		return file.View(func(tx *bolt.Tx) error {
			some(tx, path)
			return nil
		})
	}
	if err := read(index.Open); err != nil {
		t.Fatal(err)
	}
	if err := read(index.ReadSome); err == nil || !failed {
		t.Fatalf("no fault: %v", err)
	}
	for _, unread := index.Unread(); unread; _, unread = index.Unread() {
		if err := read(index.ReadSome); err != nil {
			t.Fatal(err)
		}
	}
	if index.Count() != n {
		t.Errorf("%d results are in the index, want %d", index.Count(), n)
	}
}
