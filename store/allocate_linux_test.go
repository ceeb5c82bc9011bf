package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The registry has space to grow into before it needs it.
func TestSpaceIsKeptForTheRegistry(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	f, err := os.Open(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := allocate(db.handle.file, 1); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system cannot keep space")
	}
	kept := func() int64 {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if got := kept(); got < reserveSize {
		t.Errorf("after the start: %d bytes are kept, want %d", got, reserveSize)
	}
	detail := string(make([]byte, 16<<10))
	for range 200 { // some 3 MiB, more than was kept at first
		put(t, db, AppendEvent(Event{Type: "test", Detail: detail}))
		if got, used := kept(), db.handle.highWater(); got < used+reserveSize/4 {
			t.Fatalf("%d bytes are kept and %d used, want more", got, used)
		}
	}
}
