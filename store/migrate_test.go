package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

var bucketNew = []byte("new")

// nextSchema is a schema that does not exist yet, two steps beyond the current one: it adds a bucket and drops
// every event.
func nextSchema(last func(*bolt.Tx) error) migrations.List {
	return append(slices.Clone(migrations.All),
		migrations.Step{Change: func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(bucketNew)
			return err
		}},
		migrations.Step{Change: func(tx *bolt.Tx) error {
			err := tx.DeleteBucket(migrations.BucketEvents)
			_, err2 := tx.CreateBucket(migrations.BucketEvents)
			return errors.Join(err, err2, last(tx))
		}})
}

func succeed(*bolt.Tx) error { return nil }

// firstRelease acts as a program that knows only schema version 1.
func firstRelease() seams { return seams{steps: migrations.All[:1]} }

// oldState returns a state written by firstRelease.
func oldState(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	db := openSeams(t, dir, Options{}, firstRelease())
	put(t, db, records.PutWorker(fullWorker("worker-0")), records.AppendEvent(records.Event{Type: "x"}))
	add(t, db, 3)
	mustClose(t, db)
	return copyState(t, dir)
}

func backupsIn(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, statedir.BackupsName, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOlderSchemaIsMigratedAfterACopy(t *testing.T) {
	dir := oldState(t)
	var order []string
	steps := nextSchema(func(*bolt.Tx) error {
		if copies := backupsIn(t, dir); len(copies) != 1 {
			t.Errorf("while migrating there are the copies %v, want 1", copies)
		}
		order = append(order, "step")
		return nil
	})
	at := func(moment string) error {
		if moment == "commit" {
			order = append(order, moment)
		}
		return nil
	}
	db, err := open(dir, Options{}, seams{steps: steps, at: at})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order[:2], []string{"step", "commit"}) {
		t.Errorf("order: %v", order)
	}
	s := snapshot(t, db)
	if s.SchemaVersion != steps.Version() || len(s.Workers) != 1 || len(s.Events) != 0 || s.Processed != 3 {
		t.Errorf("migrated: schema %d, workers %v, %d events, processed %d",
			s.SchemaVersion, ids(s), len(s.Events), s.Processed)
	}
	mustClose(t, db)

	// The copy is a complete state of the old schema.
	copies := backupsIn(t, dir)
	if len(copies) != 1 || !strings.Contains(copies[0], "schema1") {
		t.Fatalf("copies: %v", copies)
	}
	old := t.TempDir()
	if err := os.WriteFile(filepath.Join(old, statedir.DatabaseName), readFile(t, copies[0]), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := checkFiles(t, old); s.SchemaVersion != 1 || len(s.Workers) != 1 || len(s.Events) != 1 || s.Processed != 3 {
		t.Errorf("copy: schema %d, workers %v, %d events, processed %d",
			s.SchemaVersion, ids(s), len(s.Events), s.Processed)
	}

	// A second start neither migrates nor copies.
	db, err = open(dir, Options{}, seams{steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	if again := backupsIn(t, dir); len(again) != 1 {
		t.Errorf("copies after a second start: %v", again)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	failed := errors.New("step failed")
	for name, s := range map[string]seams{
		"last step": {steps: nextSchema(func(*bolt.Tx) error { return failed })},
		"commit": {steps: nextSchema(succeed), at: func(act string) error {
			if act == "commit" {
				return failed
			}
			return nil
		}},
	} {
		dir := oldState(t)
		_, err := open(dir, Options{}, s)
		copies := backupsIn(t, dir)
		if !errors.Is(err, failed) || len(copies) != 1 || !strings.Contains(err.Error(), copies[0]) {
			t.Fatalf("%s: %v, copies %v", name, err, copies)
		}
		db := openSeams(t, dir, Options{}, firstRelease())
		if s := snapshot(t, db); s.SchemaVersion != 1 || len(s.Workers) != 1 || len(s.Events) != 1 || s.Processed != 3 {
			t.Errorf("%s: schema %d, workers %v, %d events, processed %d",
				name, s.SchemaVersion, ids(s), len(s.Events), s.Processed)
		}
		mustClose(t, db)
	}
}

func TestNoMigrationWithoutACopy(t *testing.T) {
	dir := oldState(t)
	before := readFile(t, filepath.Join(dir, statedir.DatabaseName))
	if err := os.WriteFile(filepath.Join(dir, statedir.BackupsName), nil, 0o600); err != nil { // blocks the folder
		t.Fatal(err)
	}
	if _, err := open(dir, Options{}, seams{steps: nextSchema(succeed)}); err == nil ||
		!strings.Contains(err.Error(), "before its migration") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(before, readFile(t, filepath.Join(dir, statedir.DatabaseName))) {
		t.Error("the database was changed")
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	dir := oldState(t)
	steps := nextSchema(succeed)
	db, err := open(dir, Options{}, seams{steps: steps})
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	path := filepath.Join(dir, statedir.DatabaseName)
	before := readFile(t, path)
	_, openErr := Open(dir, Options{})
	_, readErr := ReadSnapshot(dir)
	for what, err := range map[string]error{"open": openErr, "read": readErr} {
		var newer *records.NewerSchemaError
		if !errors.As(err, &newer) || newer.Found != steps.Version() ||
			newer.Known != migrations.Current() || newer.Path != path {
			t.Fatalf("%s: %v, want a NewerSchemaError with %d and %d", what, err, steps.Version(), migrations.Current())
		}
		for _, part := range []string{
			fmt.Sprint("version ", migrations.Current()+2), fmt.Sprint("up to ", migrations.Current()), path,
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q lacks %q", what, err, part)
			}
		}
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Error("the database was changed")
	}
}
