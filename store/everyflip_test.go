package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// quickDir returns a directory in memory if there is one, where syncs cost nothing.
func quickDir(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "hsu-store"); err == nil { //nolint:usetesting // see above
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// damageOf damages a small database in each possible way in turn: it changes each byte of the pages in use (or,
// with step, those at the start of each page and every stepth other one), truncates the file at each page and
// zeroes each page.
func damageOf(t *testing.T, content []byte, step int, try func(what string, damaged []byte)) {
	const size, beginning = 4096, pageHeaderSize + leafElementSize
	chance := rand.New(rand.NewPCG(seedOf(t), 0))
	b := bytes.Clone(content)
	first := chance.IntN(step)
	for at := range usedBytes(t, content) {
		if at%step != first && at%size >= beginning {
			continue
		}
		flip := byte(1 + chance.IntN(255))
		b[at] ^= flip
		try(fmt.Sprintf("byte %d ^ %#x", at, flip), b)
		b[at] ^= flip
	}
	for at := 0; at < len(content); at += size {
		try(fmt.Sprintf("cut off at %d", at), content[:at])
		try(fmt.Sprintf("cut off at %d", at+size/2), content[:at+size/2])
		clear(b[at : at+size])
		try(fmt.Sprintf("page %d zeroed", at/size), b)
		copy(b[at:], content[at:at+size])
	}
}

// withoutErrors removes the error values of bad records and keeps their keys.
func withoutErrors(s records.Snapshot) records.Snapshot {
	bad := make(map[string]error)
	for key := range s.Bad {
		bad[key] = nil
	}
	s.Bad = bad
	return s
}

func usedBytes(t testing.TB, content []byte) int {
	t.Helper()
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return int(img.Meta.HighWater * img.Meta.PageSize)
}

// Whichever byte is changed, the result is an error or a snapshot, and reading with bbolt agrees with reading
// without it.
func TestEveryByteOfADatabaseFlipped(t *testing.T) {
	t.Parallel()
	dir := quickDir(t)
	path := filepath.Join(dir, statedir.DatabaseName)
	content := readFile(t, filepath.Join(killed(t), statedir.DatabaseName))
	tried, refused := 0, 0
	damageOf(t, content, pick(t, 31, 1, 1), func(what string, damaged []byte) {
		tried++
		c, err := records.ReadContent(bytes.NewReader(damaged), int64(len(damaged)), migrations.Current())
		overwrite(t, path, damaged)
		s, readErr := ReadSnapshot(dir)
		var newer *records.NewerSchemaError
		var broken *DamagedError
		switch {
		case err != nil && readErr == nil && strings.Contains(err.Error(), "free"):
			// A reader does not need the freelist.
		case (err == nil) != (readErr == nil):
			t.Errorf("%s: %v without bbolt, %v with it", what, err, readErr)
		case err != nil && !errors.As(readErr, &broken) && !(errors.As(err, &newer) && errors.As(readErr, &newer)):
			t.Errorf("%s: %v", what, readErr)
		case err == nil && !cmp.Equal(withoutErrors(c.Snapshot), withoutErrors(s)):
			t.Errorf("%s: read differently without bbolt: %s",
				what, cmp.Diff(withoutErrors(c.Snapshot), withoutErrors(s)))
		}
		if err != nil {
			refused++
		}
	})
	t.Logf("SEED=%d: %d changes, %d refused", seedOf(t), tried, refused)
}

// As above, and then a master recovers: it keeps the damaged file aside, restores the backup, and loses no count.
func TestStateDamagedAnywhereIsRecovered(t *testing.T) {
	t.Parallel()
	from := killed(t)
	content := readFile(t, filepath.Join(from, statedir.DatabaseName))
	root := quickDir(t)
	tried, recovered := 0, 0
	damageOf(t, content, pick(t, 997, 1, 1), func(what string, damaged []byte) {
		tried++
		dir := filepath.Join(root, fmt.Sprint(tried))
		defer func() { remove(t, dir) }()
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, statedir.DatabaseName)
		overwrite(t, path, damaged)
		sound, refusal := Open(dir, Options{OnDamage: Refuse, LockWait: 1})
		if refusal == nil { // the change is in no part that a page or record uses
			if got := sound.Processed(); got < countAll {
				t.Errorf("%s: processed %d, want %d at least", what, got, countAll)
			}
			_ = sound.Close()
			return
		}
		db, err := Open(dir, recovering)
		if newer := (*records.NewerSchemaError)(nil); errors.As(refusal, &newer) && errors.As(err, &newer) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		s, err := db.Snapshot()
		if err != nil || s.Processed != countAll || len(s.Workers) != 3 && len(s.Workers) != 4 ||
			!s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: %d workers, processed %d, short since %s, %v",
				what, len(s.Workers), s.Processed, s.Meta.CountShortSince, err)
		}
		if kept, err := statefile.ListAside(path, statefile.DamagedInfix); err != nil || len(kept) != 1 ||
			!bytes.Equal(readFile(t, kept[0]), damaged) {
			t.Errorf("%s: kept aside: %v, %v", what, kept, err)
		}
		if err := errors.Join(db.Apply(t.Context(), records.PutWorker(fullWorker("worker-9"))),
			db.AddProcessed(t.Context(), 1), db.Close()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		recovered++
	})
	t.Logf("SEED=%d: %d changes, %d recovered from", seedOf(t), tried, recovered)
}
