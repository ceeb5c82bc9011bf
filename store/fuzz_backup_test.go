package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

// Ways to use a file that is claimed to be a backup.
const (
	backupChecked  = iota // state check FILE
	backupRestored        // state restore FILE
	backupRescues         // used by recovery: the file is in the backups folder, and state.db is damaged
)

// FuzzBackup uses arbitrary bytes as a backup. The result must be either an error that names the file, with no file
// changed, or a state that opens and has lost no count.
func FuzzBackup(f *testing.F) {
	for _, b := range smallImages(f) {
		for how := range byte(3) {
			f.Add(b, how, true)
		}
		f.Add(b[:len(b)-minPageSize], byte(backupRestored), true)
	}
	f.Add([]byte("a letter to the editor\n"), byte(backupRestored), false)
	f.Add([]byte(nil), byte(backupRescues), false)
	root := quickDir(f)
	state := filepath.Join(root, "state")
	template := backupTemplate(f)
	file := filepath.Join(root, "file.db")
	f.Fuzz(func(t *testing.T, b []byte, how byte, mend bool) {
		if b = bytes.Clone(b); mend {
			mendMetas(b)
		}
		remove(t, state)
		if err := os.CopyFS(state, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		path, id := file, goldenV1().Meta.MasterID
		switch how %= 3; how {
		case backupRestored: // an operator may also restore the backup of another master
			id = "00000000-0000-4000-8000-000000000000"
			overwrite(t, filepath.Join(state, statedir.MasterIDName), []byte(id+"\n"))
		case backupRescues:
			overwrite(t, filepath.Join(state, statedir.DatabaseName), []byte("this was a database"))
			if err := os.Mkdir(filepath.Join(state, statedir.BackupsName), 0o700); err != nil {
				t.Fatal(err)
			}
			path = filepath.Join(state, statedir.BackupsName, "state-0000000000000009-schema1-20260203T040506Z.db")
		}
		overwrite(t, path, b)
		before := tree(t, state)
		_, unreadable := records.ReadContent(bytes.NewReader(b), int64(len(b)), migrations.Current())
		switch how {
		case backupChecked:
			checkFuzzed(t, path, unreadable)
		case backupRestored:
			done, err := Restore(state, path, RestoreOptions{Incomplete: mend})
			if err != nil {
				wantRefused(t, err, path)
				if tree(t, state) != before {
					t.Error("a backup that was refused has changed the state")
				}
				return
			}
			if unreadable != nil {
				t.Errorf("restored from what is unreadable: %v", unreadable)
			}
			if !bytes.Equal(readFile(t, done.Replaced), readFile(t, filepath.Join(template, statedir.DatabaseName))) {
				t.Error("what was replaced is not kept")
			}
		}
		db, err := Open(state, Options{OnDamage: Recover, LockWait: 1})
		if err != nil {
			if newer := (*records.NewerSchemaError)(nil); how != backupRescues || !errors.As(err, &newer) {
				t.Errorf("open: %v", err)
			}
			return
		}
		if s, err := db.Snapshot(); err != nil || s.Processed < countOfTemplate || s.Meta.MasterID != id {
			t.Errorf("processed %d, master %s, %v", s.Processed, s.Meta.MasterID, err)
		}
		if err := errors.Join(db.Apply(t.Context(), records.PutWorker(fullWorker("worker-new"))),
			db.AddProcessed(t.Context(), 1), db.Close()); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(readFile(t, path), b) {
			t.Error("the backup was changed")
		}
	})
}

// countOfTemplate is the number of requests processed before.
const countOfTemplate = 50

// backupTemplate returns a state of the master to which the backups in smallImages belong.
func backupTemplate(t testing.TB) string {
	t.Helper()
	dir := quickDir(t)
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, countOfTemplate)
	mustClose(t, db)
	if err := os.WriteFile(
		filepath.Join(dir, statedir.MasterIDName), []byte(goldenV1().Meta.MasterID+"\n"), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkFuzzed checks a file twice. Both checks must give the same result and change nothing.
func checkFuzzed(t *testing.T, path string, unreadable error) {
	t.Helper()
	problems, err := CheckFile(path)
	sum, inspectErr := inspect(path)
	if newer := (*records.NewerSchemaError)(nil); errors.As(err, &newer) && errors.As(inspectErr, &newer) {
		return
	}
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if problems.OK() && unreadable != nil || (inspectErr == nil) != (unreadable == nil) {
		t.Errorf("found %+v and %v, where reading gives %v", problems, inspectErr, unreadable)
	}
	if inspectErr != nil {
		wantRefused(t, inspectErr, path)
	} else if problems.OK() && sum.Bad > 0 {
		t.Errorf("%d records are bad, and none is told of", sum.Bad)
	}
	for _, p := range problems {
		if p.Where == "" || p.What == "" || !utf8.ValidString(p.Where+p.What) {
			t.Errorf("problem %+q", p)
		}
	}
	again, err := CheckFile(path)
	text1, err1 := json.Marshal(problems)
	text2, err2 := json.Marshal(again)
	if errors.Join(err, err1, err2) != nil || !bytes.Equal(text1, text2) {
		t.Errorf("checked again: %s %v, at first %s", text2, err, text1)
	}
}

// wantRefused checks that an error names the backup.
func wantRefused(t *testing.T, err error, path string) {
	t.Helper()
	var newer *records.NewerSchemaError
	damaged := (*DamagedError)(nil)
	switch {
	case errors.As(err, &newer) && newer.Path == path:
	case errors.As(err, &damaged) && damaged.Path == path && damaged.Backup && utf8.ValidString(fmt.Sprint(err)):
	default:
		t.Errorf("%v, want that %s is damaged", err, path)
	}
}
