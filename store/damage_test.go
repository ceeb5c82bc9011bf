package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// damagedState makes a state with many pages (branches, overflow, free pages) and returns the bytes of its
// database.
func damagedState(t testing.TB) (dir string, content []byte) {
	t.Helper()
	dir = t.TempDir()
	db := openTest(t, dir, Options{})
	var muts []records.Mutation
	for i := range 30 {
		muts = append(muts, records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
	}
	for i := range 200 {
		muts = append(muts, records.AppendEvent(records.Event{
			Time: testTime, Worker: "worker-0", Type: "x", Detail: strings.Repeat("detail ", i%20),
		}))
	}
	big := fullWorker("worker-big")
	big.Reason = strings.Repeat("a reason of several pages ", 500)
	put(t, db, append(muts, records.PutWorker(big))...)
	put(t, db, records.DeleteWorker("worker-3"), records.DeleteWorker("worker-4"))
	mustClose(t, db)
	content, err := os.ReadFile(filepath.Join(dir, statedir.DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	return copyState(t, dir), content // return a copy: the damaged files must not be checked when the test ends
}

// tryDamaged reads and opens a state with this database. The outcome must be a DamagedError for that file or a
// snapshot; a refused file must stay unchanged.
func tryDamaged(t *testing.T, dir, what string, content []byte, write bool) (refused bool) {
	t.Helper()
	path := filepath.Join(dir, statedir.DatabaseName)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	rightly := func(err error) bool {
		if _, ok := errors.AsType[*records.NewerSchemaError](err); ok {
			return true // the flip may have hit the schema version
		}
		damaged, ok := errors.AsType[*DamagedError](err)
		return ok && damaged.Path == path
	}
	_, err := ReadSnapshot(dir)
	if err != nil && !rightly(err) {
		t.Errorf("%s: read: %v, want a DamagedError of %s", what, err, path)
	}
	refused = err != nil
	if !write {
		return refused
	}
	db, err := Open(dir, Options{LockWait: time.Millisecond})
	if err != nil {
		if !rightly(err) {
			t.Errorf("%s: open: %v, want a DamagedError of %s", what, err, path)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s: the refused file was changed (%v)", what, err)
		}
		return true
	}
	// It opened, so it must be usable.
	if _, err := db.Snapshot(); err != nil {
		t.Errorf("%s: snapshot: %v", what, err)
	}
	if err := db.Apply(t.Context(), records.PutWorker(fullWorker("worker-new"))); err != nil {
		t.Errorf("%s: apply: %v", what, err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("%s: close: %v", what, err)
	}
	return refused
}

func TestEmptyOrForeignFileIsDamaged(t *testing.T) {
	dir, content := damagedState(t)
	foreign := func(change func(*bolt.Tx) error) []byte {
		path := filepath.Join(t.TempDir(), "x")
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(change), db.Close()); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for what, b := range map[string][]byte{
		"empty":      {},
		"text":       []byte("a letter to the editor\n"),
		"long text":  bytes.Repeat([]byte("a letter to the editor\n"), 4096),
		"zeroes":     make([]byte, 1<<16),
		"one more":   append(bytes.Clone(content), 0),
		"no buckets": foreign(func(*bolt.Tx) error { return nil }),
		"another's": foreign(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("meta"))
			return err
		}),
	} {
		if !tryDamaged(t, dir, what, b, true) {
			t.Errorf("%s: accepted", what)
		}
	}
	if tryDamaged(t, dir, "the original", content, true) {
		t.Error("the original is refused")
	}
}

func TestTruncatedAnywhere(t *testing.T) {
	dir, content := damagedState(t)
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	size := int(img.Meta.PageSize)
	for n := 0; n < len(content); n += size {
		for _, n := range []int{n, n + 1, n + size/2} {
			refused := tryDamaged(t, dir, fmt.Sprintf("truncated to %d", n), content[:n], true)
			if used := int(img.Meta.HighWater) * size; !refused && (n < used || n%size != 0) {
				t.Errorf("truncated to %d of %d: accepted", n, used)
			}
		}
	}
}

func TestZeroedPages(t *testing.T) {
	dir, content := damagedState(t)
	const size = 4096
	for at := 0; at < len(content); at += size {
		b := bytes.Clone(content)
		clear(b[at:min(at+size, len(b))])
		tryDamaged(t, dir, fmt.Sprintf("page %d zeroed", at/size), b, true)
	}
}

func TestFlippedBytes(t *testing.T) {
	dir, content := damagedState(t)
	chance := rand.New(rand.NewPCG(seedOf(t), 0))
	for round := range pick(t, 100, 600, 20_000) {
		b := bytes.Clone(content)
		at := chance.IntN(len(b))
		if round%2 == 0 { // in the headers and elements of a page
			at = at/4096*4096 + chance.IntN(200)
		}
		at = min(at, len(b)-1)
		flip := byte(1 + chance.IntN(255))
		b[at] ^= flip
		tryDamaged(t, dir, fmt.Sprintf("byte %d ^ %#x", at, flip), b, round%4 == 0)
	}
}

// Structures that would end a process that follows them: bbolt would recurse without end over the first and
// allocate without bound for the second.
func TestMaliciousPages(t *testing.T) {
	dir, content := damagedState(t)
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	size := img.Meta.PageSize
	page := func(b []byte, id uint64) []byte { return b[id*size : (id+1)*size] }
	for what, change := range map[string]func(b []byte){
		"a root that is its own child": func(b []byte) {
			p := page(b, img.Meta.Root)
			order.PutUint16(p[8:], branchPage)
			order.PutUint16(p[10:], 1)
			order.PutUint32(p[16:], 16)
			order.PutUint32(p[20:], 1)
			order.PutUint64(p[24:], img.Meta.Root)
		},
		"a freelist of 2^60": func(b []byte) {
			p := page(b, img.Meta.Freelist)
			order.PutUint16(p[10:], 0xFFFF)
			order.PutUint64(p[16:], 1<<60)
		},
		"a page in use that is free": func(b []byte) {
			p := page(b, img.Meta.Freelist)
			order.PutUint16(p[10:], 1)
			order.PutUint64(p[16:], img.Meta.Root)
		},
	} {
		b := bytes.Clone(content)
		change(b)
		f := bytes.NewReader(b)
		img, err := boltfile.OpenImage(f, int64(len(b)))
		if err == nil {
			err = img.Check(true)
		}
		if err == nil {
			t.Errorf("%s: accepted", what)
		}
		tryDamaged(t, dir, what, b, true)
	}
}

// If one meta page is damaged, the state before the last commit may be the one that remains. The last commit here
// is that of Close, so the workers are complete either way.
func TestDamagedMetaPage(t *testing.T) {
	dir, content := damagedState(t)
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(2) {
		b := bytes.Clone(content)
		b[i*img.Meta.PageSize+pageHeaderSize+50] ^= 1
		if err := os.WriteFile(filepath.Join(dir, statedir.DatabaseName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		db := openTest(t, dir, Options{Logger: logTo(&log)})
		if got := len(snapshot(t, db).Workers); got != 29 {
			t.Errorf("meta page %d damaged: %d workers, want 29", i, got)
		}
		mustClose(t, db)
		if !strings.Contains(log.String(), "meta page damaged") {
			t.Errorf("meta page %d damaged: not logged: %s", i, &log)
		}
	}
}

// The file is truncated while it is open: access to its mapping then faults.
func TestTruncatedUnderWay(t *testing.T) {
	for _, left := range []int64{0, 4096, 8192} {
		dir := t.TempDir()
		db, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		put(t, db, records.PutWorker(fullWorker("worker-0")))
		if err := os.Truncate(filepath.Join(dir, statedir.DatabaseName), left); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if _, err := db.Snapshot(); !errors.As(err, &damaged) || damaged.Path != filepath.Join(
			dir, statedir.DatabaseName,
		) {
			t.Errorf("%d bytes left: snapshot: %v, want a DamagedError", left, err)
		}
		if err := db.Apply(t.Context(), records.PutWorker(fullWorker("worker-1"))); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%d bytes left: apply: %v, want ErrUnavailable", left, err)
		}
		if err := db.Alive(t.Context()); err != nil {
			t.Errorf("%d bytes left: alive: %v", left, err)
		}
		if err := db.Close(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%d bytes left: close: %v, want ErrUnavailable", left, err)
		}
		// The lock was released: the next Open gets as far as the damage.
		if _, err := Open(dir, Options{LockWait: time.Millisecond}); !errors.As(err, &damaged) {
			t.Errorf("%d bytes left: open: %v, want a DamagedError", left, err)
		}
	}
}

// If recovery is allowed, service resumes by itself, with the newest backup and with the count, which is still in
// memory.
func TestDamageUnderWayIsRecoveredFrom(t *testing.T) {
	for what, c := range map[string]struct {
		opts  Options
		spoil func(t *testing.T, path string)
		aside int
	}{
		"cut off": {recovering, func(t *testing.T, path string) {
			if err := os.Truncate(path, 4096); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"emptied": {recovering, func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, 1},
		"cut off and removed": {Options{}, func(t *testing.T, path string) {
			if err := errors.Join(os.Truncate(path, 4096), os.Remove(path)); err != nil {
				t.Fatal(err)
			}
		}, 0},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, statedir.DatabaseName)
		db := openTest(t, dir, c.opts)
		put(t, db, records.PutWorker(fullWorker("worker-0")))
		add(t, db, 3)
		mustBackUp(t, db)
		put(t, db, records.PutWorker(fullWorker("worker-1")))
		add(t, db, 4)
		c.spoil(t, path)
		waitUntil(t, what, func() bool {
			return db.Apply(t.Context(), records.PutWorker(fullWorker("worker-2"))) == nil
		})
		add(t, db, 1)
		s := snapshot(t, db)
		if diff := cmp.Diff([]string{"worker-0", "worker-2"}, ids(s)); diff != "" || s.Processed != 8 ||
			!s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: processed %d, short since %s: %s", what, s.Processed, s.Meta.CountShortSince, diff)
		}
		if kept, err := statefile.ListAside(path, statefile.DamagedInfix); err != nil || len(kept) != c.aside ||
			len(events(s, eventtype.FromBackup)) != 1 {
			t.Errorf("%s: kept aside: %v, %v, events %+v", what, kept, err, s.Events)
		}
		mustBackUp(t, db)
		mustClose(t, db)
		if s := snapshot(t, openTest(t, dir, Options{})); len(s.Workers) != 2 || s.Processed != 8 ||
			!s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: at the next start: %v, processed %d", what, ids(s), s.Processed)
		}
	}
}

// waitUntil polls for at most a minute.
func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for a minute: ", what)
		}
	}
}

// At first, the rewrite after a failure cannot create its temporary file.
func TestRepairIsRetried(t *testing.T) {
	var a acts
	dir := t.TempDir()
	db := openSeams(t, dir, Options{}, a.seams())
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 3)
	obstacle := filepath.Join(dir, statedir.DatabaseName+statefile.TempSuffix)
	if err := os.MkdirAll(filepath.Join(obstacle, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.set("after-commit", errDisk)
	if err := db.Apply(t.Context(), records.PutWorker(fullWorker("worker-1"))); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	a.set("after-commit", nil)
	if err := db.Alive(t.Context()); err != nil { // one attempt has ended
		t.Fatal(err)
	}
	if _, err := db.Snapshot(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("snapshot: %v, want ErrUnavailable", err)
	}
	if err := os.RemoveAll(obstacle); err != nil {
		t.Fatal(err)
	}
	counted(t, db)
	if s := snapshot(t, db); s.Processed != 4 || len(s.Workers) != 1 {
		t.Errorf("processed %d, workers %v; want 4 and worker-0 only", s.Processed, ids(s))
	}
}

func TestDamagedCounter(t *testing.T) {
	good := make([]byte, counterSize)
	counterfile.Copy{Sequence: 8, Tally: counterfile.Tally{Processed: 41}}.Put(good, time.Time{})
	counterfile.Copy{Sequence: 9, Tally: counterfile.Tally{Processed: 42}}.Put(good[copyDistance:], time.Time{})
	spoil := func(at ...int) []byte {
		b := bytes.Clone(good)
		for _, i := range at {
			b[i] ^= 0x10
		}
		return b
	}
	for what, c := range map[string]struct {
		content []byte
		want    int64 // -1 means damaged
	}{
		"whole":        {good, 42},
		"older copy":   {spoil(16), 42},
		"newer copy":   {spoil(copyDistance + 20), 41},
		"both copies":  {spoil(3, copyDistance+33), -1},
		"empty":        {nil, -1},
		"short":        {good[:counterSize-1], -1},
		"long":         {append(bytes.Clone(good), 0), -1},
		"zeroes":       {make([]byte, counterSize), -1},
		"between them": {spoil(100), 42},
	} {
		dir := t.TempDir()
		mustClose(t, openTest(t, dir, Options{}))
		path := filepath.Join(dir, statedir.CounterName)
		if err := os.WriteFile(path, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		s, readErr := ReadSnapshot(dir)
		db, openErr := Open(dir, Options{})
		if c.want < 0 {
			for _, err := range []error{readErr, openErr} {
				var damaged *DamagedError
				if !errors.As(err, &damaged) || damaged.Path != path {
					t.Errorf("%s: %v, want a DamagedError of %s", what, err, path)
				}
			}
			if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, c.content) {
				t.Errorf("%s: the refused file was changed (%v)", what, err)
			}
			if err := os.Remove(path); err != nil { // so that checkFiles passes
				t.Fatal(err)
			}
			continue
		}
		if readErr != nil || openErr != nil {
			t.Fatalf("%s: %v, %v", what, readErr, openErr)
		}
		add(t, db, 1)
		if s.Processed != c.want || db.Processed() != c.want+1 {
			t.Errorf("%s: read %d, want %d; and one more %d", what, s.Processed, c.want, db.Processed())
		}
		mustClose(t, db)
	}
}

func TestDamagedMasterID(t *testing.T) {
	dir := t.TempDir()
	mustClose(t, openTest(t, dir, Options{}))
	path := filepath.Join(dir, statedir.MasterIDName)
	for _, content := range []string{
		"", "no id\n", strings.Repeat("x", 1<<16), "00000000-0000-0000-0000-00000000000g\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		if _, err := Open(dir, Options{}); !errors.As(err, &damaged) || damaged.Path != path {
			t.Errorf("%.20q: %v, want a DamagedError of %s", content, err, path)
		}
	}
}

// spoilID makes db write a record of itself that cannot be read.
func spoilID(db *DB) {
	record := db.self.Get()
	record.MasterID = "garbage"
	db.self.Set(record)
}

// If only the database's own record is damaged, the id comes from the file master-id and the state counts as moved.
func TestDamagedMetaRecord(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	id := db.MasterID()
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	spoilID(db)
	mustClose(t, db)
	if s, err := ReadSnapshot(dir); err != nil || s.Bad["meta/record"] == nil || len(s.Workers) != 1 {
		t.Fatalf("read: %v, bad %v, workers %v", err, s.Bad, ids(s))
	}
	db = openTest(t, dir, Options{})
	if db.MasterID() != id || !db.Moved() || len(snapshot(t, db).Workers) != 1 {
		t.Errorf("opened: id %s, moved %t", db.MasterID(), db.Moved())
	}
	spoilID(db)
	mustClose(t, db)
	if err := os.Remove(filepath.Join(dir, statedir.MasterIDName)); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := Open(dir, Options{}); !errors.As(err, &damaged) {
		t.Errorf("without master-id: %v, want a DamagedError", err)
	}
	if err := statedir.WriteMasterID((statefile.Ops{}), dir, id); err != nil {
		t.Fatal(err)
	}
	openTest(t, dir, Options{})
}

func TestDamagedCountRecord(t *testing.T) {
	for _, value := range [][]byte{{1, 2, 3}, binary.BigEndian.AppendUint64(nil, 1<<63)} {
		dir := t.TempDir()
		db, err := Open(dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		h, err := boltfile.Open(filepath.Join(dir, statedir.DatabaseName), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		err = h.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(migrations.BucketCounters).Put(records.KeyProcessed, value)
		}, (*bolt.Tx).Commit)
		if err := errors.Join(err, h.Close()); err != nil {
			t.Fatal(err)
		}
		if s, err := ReadSnapshot(dir); err != nil || s.Bad["counters/processed_count"] == nil {
			t.Errorf("%x: read: %v, bad %v", value, err, s.Bad)
		}
		var damaged *DamagedError
		if _, err := Open(dir, Options{}); !errors.As(err, &damaged) {
			t.Errorf("%x: open: %v, want a DamagedError", value, err)
		}
	}
}
