package store

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// smallImages returns databases with the smallest page size, so that most changes hit used bytes: an empty one, one
// with each kind of record, one with branches, free pages and a value of several pages, and one with a record that
// cannot be read.
func smallImages(t testing.TB) [][]byte {
	t.Helper()
	big := fullWorker("worker-big")
	big.Reason = strings.Repeat("a reason of several pages ", 60)
	few := []records.Mutation{
		records.PutWorker(fullWorker("worker-0")), records.PutWorker(goldenV1().Workers[1]),
		records.AppendEvent(records.Event{Time: testTime, Worker: "worker-0", Type: "started"}),
	}
	many := append(slices.Clip(few), records.PutWorker(big))
	for i := range 12 {
		many = append(many, records.AppendEvent(records.Event{
			Time: testTime.Add(time.Duration(i)), Type: "x", Detail: strings.Repeat("detail ", i),
		}))
	}
	var images [][]byte
	for _, c := range []struct {
		muts []records.Mutation
		bad  bool // with a record that cannot be read
	}{{}, {muts: few}, {muts: append(many, records.DeleteWorker("worker-1"))}, {muts: few, bad: true}} {
		path := filepath.Join(quickDir(t), statedir.DatabaseName)
		db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: minPageSize, FreelistType: bolt.FreelistMapType})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			if err := migrations.All.Apply(tx, 0); err != nil {
				return err
			}
			return records.PutMeta(goldenV1().Meta).Apply(tx, 100)
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error {
			for _, m := range c.muts {
				if err := m.Apply(tx, 100); err != nil {
					return err
				}
			}
			if c.bad {
				if err := tx.Bucket(migrations.BucketWorkers).Put([]byte("worker-bad"), []byte("\xff")); err != nil {
					return err
				}
			}
			return tx.Bucket(migrations.BucketCounters).Put(records.KeyProcessed, []byte{0, 0, 0, 0, 0, 0, 0, 9})
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := boltfile.OpenImage(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, b[:img.Meta.HighWater*img.Meta.PageSize])
	}
	return images
}

// A page whose elements overlap could claim many times its size in time and memory: each of 65,535 elements could
// cover the whole page.
func TestElementsThatShareTheirBytesAreRefused(t *testing.T) {
	b := bytes.Clone(smallImages(t)[0])
	img, err := boltfile.OpenImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	p := b[img.Meta.Root*minPageSize:][:minPageSize]
	order.PutUint16(p[8:], leafPage)
	order.PutUint16(p[10:], 2)
	for i, size := range []uint32{1, 2} { // the keys "a" and "ab", then the rest of the page
		e := p[pageHeaderSize+i*leafElementSize:]
		order.PutUint32(e, 0)
		order.PutUint32(e[4:], uint32(100-pageHeaderSize-i*leafElementSize))
		order.PutUint32(e[8:], size)
		order.PutUint32(e[12:], minPageSize-100-size)
	}
	copy(p[100:], "ab")
	if err := img.Check(true); err == nil || !strings.Contains(err.Error(), "more than it holds") {
		t.Errorf("checked: %v", err)
	}
}
