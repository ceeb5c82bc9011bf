package once

import (
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

// A commit that fails may leave its results in the file until that is rewritten.
func TestResultThatWasNotAcknowledgedIsNoneWhileOthersAreUnread(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
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
	defer func() { _ = file.Close() }()
	limits := Limits{
		TTL: time.Minute, Most: 1e6, MostSize: 1e9, BootTime: func() time.Duration { return time.Hour }, BootID: "b",
	}
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
