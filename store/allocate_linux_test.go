package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// Space for the registry is allocated before it is needed.
func TestSpaceIsKeptForTheRegistry(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	f, err := os.OpenFile(filepath.Join(dir, statedir.DatabaseName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, 1); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system cannot keep space")
	}
	kept := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if got := kept(); got < boltfile.ReserveSize {
		t.Errorf("after the start: %d bytes are kept, want %d", got, boltfile.ReserveSize)
	}
	detail := string(make([]byte, 16<<10))
	for range 200 { // about 3 MiB, more than was allocated at first
		put(t, db, records.AppendEvent(records.Event{Type: "test", Detail: detail}))
		var used int64
		if err := db.flow.View(func(tx *bolt.Tx) error {
			used = tx.Size()
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := kept(); got < used+boltfile.ReserveSize/4 {
			t.Fatalf("%d bytes are kept and %d used, want more", got, used)
		}
	}
}
