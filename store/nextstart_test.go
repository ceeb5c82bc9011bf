package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// ReadNextStart returns the state that the next Open finds, whatever is damaged, and changes nothing.
func TestNextStartIsWhatOpenFinds(t *testing.T) {
	const livingID = "01234567-89ab-4cde-8f01-23456789abcd"
	remove := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	overwrite := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	change := func(bucket, key []byte, value string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			b, err := bolt.Open(filepath.Join(dir, statedir.DatabaseName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = b.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, []byte(value)) })
			if err := errors.Join(err, b.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	damages := map[string][]func(*testing.T, string){
		"nothing":                nil,
		"no database":            {remove(statedir.DatabaseName)},
		"no database and no id":  {remove(statedir.DatabaseName, statedir.MasterIDName)},
		"nothing but an id":      {remove(statedir.DatabaseName, statedir.CounterName, statedir.BackupsName)},
		"no database, no backup": {remove(statedir.DatabaseName, statedir.BackupsName)},
		"no database, no backup, no id": {
			remove(statedir.DatabaseName, statedir.BackupsName, statedir.MasterIDName),
		},
		"nothing at all": {
			remove(statedir.DatabaseName, statedir.CounterName, statedir.BackupsName, statedir.MasterIDName),
		},
		"database empty":   {overwrite(statedir.DatabaseName, "")},
		"database foreign": {overwrite(statedir.DatabaseName, "SQLite format 3")},
		"database foreign, no backup": {
			overwrite(statedir.DatabaseName, "SQLite format 3"), remove(statedir.BackupsName),
		},
		"database foreign, no id": {
			overwrite(statedir.DatabaseName, "SQLite format 3"), remove(statedir.MasterIDName),
		},
		"id damaged":                {overwrite(statedir.MasterIDName, "who knows")},
		"counter damaged":           {overwrite(statedir.CounterName, "who knows")},
		"one worker's record":       {change(migrations.BucketWorkers, []byte("worker-1"), "who knows")},
		"the database's own record": {change(migrations.BucketMeta, records.KeyMeta, "who knows")},
		"the database's own record, no id": {
			change(migrations.BucketMeta, records.KeyMeta, "who knows"), remove(statedir.MasterIDName),
		},
		"the count": {change(migrations.BucketCounters, records.KeyProcessed, "who")},
		"a newer schema": {
			change(migrations.BucketMeta, migrations.KeyVersion, "\x00\x00\x00\x00\x00\x00\x00\x63"),
		},
	}
	for name, damage := range damages {
		for policy, onDamage := range map[string]OnDamage{"refuse": Refuse, "recover": Recover} {
			t.Run(name+"/"+policy, func(t *testing.T) {
				dir := killed(t)
				for _, do := range damage {
					do(t, dir)
				}
				options := Options{OnDamage: onDamage, LostID: func() (string, error) { return livingID, nil }}
				before := filesBelow(t, dir)
				next, err := ReadNextStart(dir, options)
				if diff := cmp.Diff(before, filesBelow(t, dir)); diff != "" {
					t.Errorf("to read changed the state:\n%s", diff)
				}
				db, openErr := Open(dir, options)
				if errors.Is(err, fs.ErrNotExist) && openErr == nil {
					snap, snapErr := db.Snapshot()
					if len(snap.Workers) > 0 || db.Processed() > 0 || snapErr != nil {
						t.Errorf("there is no state, but Open finds %+v, %v", snap, snapErr)
					}
					closeDB(t, db)
					return
				}
				if kindOf(err) != kindOf(openErr) {
					t.Fatalf("to read ends with %v, to open with %v", err, openErr)
				}
				if err != nil {
					return
				}
				defer closeDB(t, db)
				found, err := db.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(found.Workers, next.Workers); diff != "" {
					t.Errorf("other workers (-open +read):\n%s", diff)
				}
				if db.MasterID() != next.Meta.MasterID && next.Meta.MasterID != "" {
					t.Errorf("the master is %s, read was %s", db.MasterID(), next.Meta.MasterID)
				}
				if next.Meta.MasterID == "" && db.MasterID() == livingID {
					t.Error("Open asked the living for the id")
				}
				rescued := slices.ContainsFunc(found.Events, func(e records.Event) bool {
					return e.Type == eventtype.FromBackup || e.Type == eventtype.FromProcesses
				})
				if (next.Lost != nil) != rescued {
					t.Errorf("lost: %v; Open began anew: %v", next.Lost, rescued)
				}
				if here, err := DirID(dir); err != nil || (next.Meta.StateDir != here) != db.Moved() {
					t.Errorf("moved: Open says %v of %v (%v)", db.Moved(), next.Meta.StateDir, err)
				}
			})
		}
	}
}

func TestNextStartIsNotReadBesideAMaster(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, Options{})
	if _, err := ReadNextStart(dir, Options{}); kindOf(err) != "locked" {
		t.Errorf("%v, want that another master holds it", err)
	}
}

func TestBackupIsReadFromItsBytes(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	if err := db.Apply(t.Context(), records.PutWorker(fullWorker("worker-0"))); err != nil {
		t.Fatal(err)
	}
	want, err := db.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := db.WriteBackup(&buf); err != nil {
		t.Fatal(err)
	}
	got, err := ReadBackup(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-master +backup):\n%s", err, diff)
	}
	short := buf.Bytes()[:buf.Len()/2]
	if _, err := ReadBackup(bytes.NewReader(short), int64(len(short))); err == nil {
		t.Error("half a backup is read")
	}
}

// kindOf classifies an error as the exit codes do.
func kindOf(err error) string {
	if _, ok := errors.AsType[*DamagedError](err); ok {
		return "damaged"
	}
	if _, ok := errors.AsType[*LockedError](err); ok {
		return "locked"
	}
	if _, ok := errors.AsType[*records.NewerSchemaError](err); ok {
		return "newer"
	}
	return fmt.Sprint(err)
}

func closeDB(t *testing.T, db *DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// filesBelow returns the content of the files below dir, by relative path.
func filesBelow(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
