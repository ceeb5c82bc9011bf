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
)

// quickDir is a folder in memory where there is one: syncs cost nothing there.
func quickDir(t testing.TB) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "hsu-store"); err == nil { //nolint:usetesting // see above
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}

// everyFlip tells that every byte is to be tried, and not every few.
func everyFlip() bool { return os.Getenv("HSU_DAMAGE") == "full" }

// damageOf changes each part of a small database in turn: each byte of the pages in
// use, each page cut off, each page zeroed.
func damageOf(content []byte, used, step int, try func(what string, damaged []byte)) {
	chance := rand.New(rand.NewPCG(5, 6))
	at := 0
	if step > 1 {
		at = chance.IntN(step)
	}
	b := bytes.Clone(content)
	for ; at < used; at += step {
		flip := byte(1 + chance.IntN(255))
		b[at] ^= flip
		try(fmt.Sprintf("byte %d ^ %#x", at, flip), b)
		b[at] ^= flip
	}
	const size = 4096
	for at := 0; at < len(content); at += size {
		try(fmt.Sprintf("cut off at %d", at), content[:at])
		try(fmt.Sprintf("cut off at %d", at+size/2), content[:at+size/2])
		clear(b[at : at+size])
		try(fmt.Sprintf("page %d zeroed", at/size), b)
		copy(b[at:], content[at:at+size])
	}
}

// withoutErrors leaves of the errors that there are some.
func withoutErrors(s Snapshot) Snapshot {
	bad := make(map[string]error)
	for key := range s.Bad {
		bad[key] = nil
	}
	s.Bad = bad
	return s
}

func usedBytes(t testing.TB, content []byte) int {
	t.Helper()
	img, err := openImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return int(img.meta.HighWater * img.meta.PageSize)
}

// Every byte of every page: what is made of it is an error or a snapshot, and bbolt
// agrees with what was read without it.
func TestEveryByteOfADatabaseFlipped(t *testing.T) {
	t.Parallel()
	dir := quickDir(t)
	path := filepath.Join(dir, dbName)
	content := readFile(t, filepath.Join(killed(t), dbName))
	step := 11
	if everyFlip() {
		step = 1
	}
	tried, refused := 0, 0
	damageOf(content, usedBytes(t, content), step, func(what string, damaged []byte) {
		tried++
		c, err := readContent(bytes.NewReader(damaged), int64(len(damaged)), migrations.Current())
		overwrite(t, path, damaged)
		s, readErr := ReadSnapshot(dir)
		var newer *NewerSchemaError
		var broken *DamagedError
		switch {
		case err != nil && readErr == nil && strings.Contains(err.Error(), "free"):
			// A reader needs no list of free pages.
		case (err == nil) != (readErr == nil):
			t.Errorf("%s: %v without bbolt, %v with it", what, err, readErr)
		case err != nil && !errors.As(readErr, &broken) && !(errors.As(err, &newer) && errors.As(readErr, &newer)):
			t.Errorf("%s: %v", what, readErr)
		case err == nil && !cmp.Equal(withoutErrors(c.Snapshot), withoutErrors(s)):
			t.Errorf("%s: read differently without bbolt: %s", what, cmp.Diff(withoutErrors(c.Snapshot), withoutErrors(s)))
		}
		if err != nil {
			refused++
		}
	})
	t.Logf("%d changes, %d refused", tried, refused)
}

// The same, and the master that comes goes on: it keeps the file as it is, takes
// the backup, and counts no less than was counted.
func TestStateDamagedAnywhereIsRecovered(t *testing.T) {
	t.Parallel()
	from := killed(t)
	content := readFile(t, filepath.Join(from, dbName))
	step := 499
	if everyFlip() {
		step = 1
	}
	root := quickDir(t)
	tried, recovered := 0, 0
	damageOf(content, usedBytes(t, content), step, func(what string, damaged []byte) {
		tried++
		dir := filepath.Join(root, fmt.Sprint(tried))
		defer func() { remove(t, dir) }()
		if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, dbName)
		overwrite(t, path, damaged)
		sound, refusal := Open(dir, Options{OnDamage: Refuse, LockWait: 1})
		if refusal == nil { // it is nothing that a page or a record shows
			if got := sound.Processed(); got < countAll {
				t.Errorf("%s: processed %d, want %d at least", what, got, countAll)
			}
			_ = sound.Close()
			return
		}
		db, err := Open(dir, recovering)
		if newer := (*NewerSchemaError)(nil); errors.As(refusal, &newer) && errors.As(err, &newer) {
			return
		}
		if err != nil {
			t.Errorf("%s: %v", what, err)
			return
		}
		s, err := db.Snapshot()
		if err != nil || s.Processed != countAll || len(s.Workers) != 3 && len(s.Workers) != 4 || !s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: %d workers, processed %d, short since %s, %v", what, len(s.Workers), s.Processed, s.Meta.CountShortSince, err)
		}
		if kept, err := listAside(path, damagedInfix); err != nil || len(kept) != 1 || !bytes.Equal(readFile(t, kept[0]), damaged) {
			t.Errorf("%s: kept aside: %v, %v", what, kept, err)
		}
		if err := errors.Join(db.Apply(t.Context(), PutWorker(fullWorker("worker-9"))), db.AddProcessed(t.Context(), 1), db.Close()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		recovered++
	})
	t.Logf("%d changes, %d recovered from", tried, recovered)
}
