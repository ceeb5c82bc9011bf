package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

func replacedIn(t *testing.T, dir string) []string {
	t.Helper()
	kept, err := statefile.ListAside(filepath.Join(dir, statedir.DatabaseName), statefile.ReplacedInfix)
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

func TestRestoreKeepsWhatItReplacesAndTheLargerCount(t *testing.T) {
	for what, c := range map[string]struct {
		opts  RestoreOptions
		spoil []string
		want  int64
		short bool
	}{
		"the larger count":        {want: countAll},
		"that of the backup":      {opts: RestoreOptions{CountOfBackup: true}, want: 10, short: true},
		"the database is damaged": {spoil: []string{statedir.DatabaseName}, want: countAll},
		"the counter is damaged":  {spoil: []string{statedir.CounterName}, want: 10, short: true}, // at least 10
		"database and counter are": {
			spoil: []string{statedir.DatabaseName, statedir.CounterName}, want: 10, short: true,
		},
		"and the id": {
			spoil: []string{statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName}, want: 10, short: true,
		},
	} {
		dir := killed(t)
		id := strings.TrimSpace(string(readFile(t, filepath.Join(dir, statedir.MasterIDName))))
		oldest := filepath.Join(t.TempDir(), "copy")
		overwrite(t, oldest, readFile(t, backupsIn(t, dir)[0]))
		lose(t, dir, c.spoil...)
		before := readFile(t, filepath.Join(dir, statedir.DatabaseName))
		out, err := Restore(dir, oldest, c.opts)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if kept := replacedIn(t, dir); len(kept) != 1 || kept[0] != out.Replaced ||
			!bytes.Equal(readFile(t, kept[0]), before) {
			t.Errorf("%s: replaced files: %v, said %q", what, kept, out.Replaced)
		}
		db := openTest(t, dir, Options{}) // no damage is left, so Open needs no recovery
		s := snapshot(t, db)
		exact := c.want == countAll || c.opts.CountOfBackup || len(c.spoil) > 1
		if len(s.Workers) != 1 || s.Processed != out.Count || exact && s.Processed != c.want || s.Processed < c.want {
			t.Errorf("%s: workers %v, processed %d, said %d, want %d", what, ids(s), s.Processed, out.Count, c.want)
		}
		if exact && s.Meta.CountShortSince.IsZero() == c.short || !s.Meta.CountShortSince.Equal(out.CountShortSince) {
			t.Errorf("%s: short since %s, said %s", what, s.Meta.CountShortSince, out.CountShortSince)
		}
		if db.MasterID() != id || out.Foreign || out.Backup.Processed != 10 || out.Backup.Workers != 1 {
			t.Errorf("%s: id %s, said %+v", what, db.MasterID(), out)
		}
		// The restored database is newer than every backup. Otherwise the next recovery would use one of those.
		made, err := db.Backup()
		if err != nil || made < backupsIn(t, dir)[2] {
			t.Errorf("%s: the next backup is %q, %v", what, made, err)
		}
		mustClose(t, db)
		lose(t, dir, statedir.DatabaseName)
		if s := snapshot(t, openTest(t, dir, recovering)); len(s.Workers) != 1 {
			t.Errorf("%s: after the next damage there are %v", what, ids(s))
		}
	}
}

func TestRestoreIntoANewFolder(t *testing.T) {
	from := killed(t)
	backup := backupsIn(t, from)[2]
	dir := filepath.Join(t.TempDir(), "a", "b")
	out, err := Restore(dir, backup, RestoreOptions{})
	if err != nil || out.Replaced != "" || out.CountBefore != -1 || out.Count != countBackedUp || !out.Elsewhere ||
		out.CountShortSince.IsZero() {
		t.Fatalf("%+v, %v", out, err)
	}
	db := openTest(t, dir, Options{})
	if s := snapshot(t, db); len(s.Workers) != 3 || s.Processed != countBackedUp || !db.Moved() ||
		db.MasterID() != out.Backup.MasterID {
		t.Errorf("workers %v, processed %d, moved %t", ids(s), s.Processed, db.Moved())
	}
}

// The master keeps its id, by which its living workers know it.
func TestRestoreOfAnothersBackupKeepsTheID(t *testing.T) {
	dir := killed(t)
	id := strings.TrimSpace(string(readFile(t, filepath.Join(dir, statedir.MasterIDName))))
	out, err := Restore(dir, killedOf(t, "8a9b3c1d-0000-4000-8000-000000000001"), RestoreOptions{})
	if err != nil || !out.Foreign || !out.Elsewhere || out.Count != countAll {
		t.Errorf("%+v, %v", out, err)
	}
	if p, err := Check(dir); err != nil ||
		slices.ContainsFunc(p, func(p Problem) bool { return p.Where == statedir.MasterIDName }) {
		t.Errorf("check: %+v, %v", p, err)
	}
	db := openTest(t, dir, Options{})
	if s := snapshot(t, db); s.Meta.MasterID != id || db.MasterID() != id || len(s.Workers) != 9 || !db.Moved() {
		t.Errorf("id %s, want %s; workers %v, moved %t", db.MasterID(), id, ids(s), db.Moved())
	}
}

// A state that was closed in order has the whole count.
func TestRestoreOfAFinishedStateKnowsTheCount(t *testing.T) {
	from := killed(t)
	mustClose(t, openTest(t, from, Options{}))
	path := filepath.Join(t.TempDir(), "copy")
	if _, err := SaveBackup(path, false, func(f *os.File) error { return Export(from, f) }); err != nil {
		t.Fatal(err)
	}
	out, err := Restore(t.TempDir(), path, RestoreOptions{})
	if err != nil || out.Count != countAll || !out.CountShortSince.IsZero() {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestRestoreRefusesBeforeItTouchesAnything(t *testing.T) {
	dir := killed(t)
	good := backupsIn(t, dir)[1]
	bad := filepath.Join(t.TempDir(), "bad")
	overwrite(t, bad, spoil(readFile(t, good)))
	newer := filepath.Join(t.TempDir(), "newer")
	overwrite(t, newer, readFile(t, good))
	setVersion(t, newer, 5)
	partly := filepath.Join(t.TempDir(), "partly")
	overwrite(t, partly, readFile(t, good))
	change(t, partly, func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketWorkers).Put([]byte("worker-7"), []byte{0xff})
	})
	remove(t, filepath.Join(dir, statedir.LockName))
	before := withoutDirTime(tree(t, dir))
	var damaged *DamagedError
	var tooNew *records.NewerSchemaError
	refused := func(what, path string, as func(error) bool) {
		t.Helper()
		if _, err := Restore(dir, path, RestoreOptions{}); err == nil || !as(err) {
			t.Errorf("%s: %v", what, err)
		}
		remove(t, filepath.Join(dir, statedir.LockName))
		if withoutDirTime(tree(t, dir)) != before {
			t.Errorf("%s: the folder was changed", what)
		}
	}
	isDamaged := func(err error) bool { return errors.As(err, &damaged) && damaged.Backup }
	refused("damaged", bad, func(err error) bool { return isDamaged(err) && damaged.Path == bad })
	refused("damaged in part", partly, isDamaged)
	refused("a folder", t.TempDir(), isDamaged)
	refused("missing", filepath.Join(dir, "nothing"), func(err error) bool { return errors.Is(err, fs.ErrNotExist) })
	refused("newer", newer, func(err error) bool { return errors.As(err, &tooNew) && tooNew.Path == newer })
	refused("the state itself", filepath.Join(dir, statedir.DatabaseName), func(err error) bool {
		return strings.Contains(err.Error(), "the state itself")
	})
	if out, err := Restore(copyTree(t, dir), partly, RestoreOptions{Incomplete: true}); err != nil ||
		out.Backup.Bad != 1 {
		t.Errorf("what can be read of it: %+v, %v", out, err)
	}
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	if _, err := Restore(nowhere, bad, RestoreOptions{}); !isDamaged(err) {
		t.Errorf("damaged, to a new folder: %v", err)
	}
	if _, err := os.Stat(nowhere); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestNothingIsOperatedOnUnderAMaster(t *testing.T) {
	dir := killed(t)
	backup := backupsIn(t, dir)[0]
	openTest(t, dir, Options{})
	before := tree(t, dir)
	var locked *LockedError
	for what, err := range map[string]error{
		"restore": second(Restore(dir, backup, RestoreOptions{})),
		"compact": second(Compact(dir)),
		"migrate": second(Migrate(dir)),
	} {
		if !errors.As(err, &locked) || locked.PID != os.Getpid() {
			t.Errorf("%s: %v, want a LockedError", what, err)
		}
	}
	if tree(t, dir) != before {
		t.Error("something was changed")
	}
}

func second[T any](_ T, err error) error { return err }

// If a restore is interrupted after any operation, the state is complete: it is either the previous or the restored
// one, and the count is never smaller.
func TestRestoreThatIsCutOffLeavesAWholeState(t *testing.T) {
	for what, spoilt := range map[string][]string{"sound": nil, "without counter": {statedir.CounterName}} {
		for n, ended := 1, false; !ended; n++ {
			dir := killed(t)
			lose(t, dir, spoilt...)
			backup := filepath.Join(t.TempDir(), "copy")
			overwrite(t, backup, readFile(t, backupsIn(t, dir)[0]))
			src, c, sum, err := openBackup(backup)
			if err != nil {
				t.Fatal(err)
			}
			passed := 0
			op := operation{dir: offline(dir, time.Second)}
			op.dir.Ops.At = func(string) error {
				if passed++; passed >= n {
					return errDisk
				}
				return nil
			}
			if op.dirID, err = DirID(dir); err != nil {
				t.Fatal(err)
			}
			out := Restored{Backup: sum}
			err = op.restore(src, c, RestoreOptions{}, &out)
			if err != nil && !errors.Is(err, errDisk) {
				t.Fatal(err)
			}
			ended = err == nil
			_ = src.Close()
			s := snapshot(t, openTest(t, dir, recovering))
			if len(s.Workers) != 4 && len(s.Workers) != 1 || s.Processed < countBackedUp ||
				spoilt == nil && s.Processed != countAll || ended != (len(s.Workers) == 1 && ended) {
				t.Errorf("%s: after act %d: workers %v, processed %d", what, n, ids(s), s.Processed)
			}
			if spoilt != nil && s.Meta.CountShortSince.IsZero() {
				t.Errorf("%s: after act %d: the count of %d is not said to be short", what, n, s.Processed)
			}
		}
	}
}

func TestCompactedStateHoldsTheSameInLess(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	big := fullWorker("worker-0")
	for i := range 50 {
		big.Reason = strings.Repeat("long ", 5000*(i%3))
		put(t, db, records.PutWorker(big), records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i+1))))
	}
	big.Reason = ""
	put(t, db, records.PutWorker(big))
	add(t, db, 9)
	mustClose(t, db)
	before, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	old := boltfile.LastTx(filepath.Join(dir, statedir.DatabaseName))
	out, err := Compact(dir)
	if err != nil || out.After >= out.Before/2 {
		t.Errorf("%+v, %v", out, err)
	}
	after, err := ReadSnapshot(dir)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("%v, %s", err, diff)
	}
	if now := boltfile.LastTx(filepath.Join(dir, statedir.DatabaseName)); now <= old {
		t.Errorf("it counts as older than its backups: %d after %d", now, old)
	}
	checkFiles(t, dir)
	// A second compaction gains nothing, and the file is unchanged.
	content := readFile(t, filepath.Join(dir, statedir.DatabaseName))
	again, err := Compact(dir)
	if err != nil || again.Before != out.After || again.After != out.After ||
		!bytes.Equal(content, readFile(t, filepath.Join(dir, statedir.DatabaseName))) {
		t.Errorf("again: %+v, %v", again, err)
	}
	db = openTest(t, dir, Options{})
	if s := snapshot(t, db); s.Processed != 9 || len(s.Workers) != 51 {
		t.Errorf("opened: %d workers, processed %d", len(s.Workers), s.Processed)
	}
	mustClose(t, db)
	if _, err := Compact(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	lose(t, dir, statedir.DatabaseName)
	var damaged *DamagedError
	if _, err := Compact(dir); !errors.As(err, &damaged) {
		t.Errorf("of garbage: %v", err)
	}
	remove(t, filepath.Join(dir, statedir.DatabaseName)) // so that checkFiles passes
	mustClose(t, openTest(t, dir, Options{}))
}

func TestMigrateWithoutAMaster(t *testing.T) {
	defer func(all migrations.List) { migrations.All = all }(migrations.All)
	dir, last := oldState(t), migrations.Current()
	setMeta(t, dir, func(m *records.Meta) { m.CleanShutdown = false }) // as a crash leaves it
	path := filepath.Join(dir, statedir.DatabaseName)
	before := readFile(t, path)
	steps := []string{
		"make the buckets services and requests",
		"make the bucket units, and record the units of the known workers",
	}
	out, err := RehearseMigration(path)
	if err != nil || out.From != 1 || out.To != last || !slices.Equal(out.Steps, steps) || out.Copy != "" {
		t.Errorf("rehearsed: %+v, %v", out, err)
	}
	current := copyState(t, dir)
	if out, err = Migrate(current); err != nil || out.From != 1 || out.To != last ||
		!slices.Equal(out.Steps, steps) || out.Copy == "" {
		t.Errorf("migrated: %+v, %v", out, err)
	}
	if out, err = Migrate(current); err != nil || out.From != last || out.To != last || out.Copy != "" {
		t.Errorf("nothing to do: %+v, %v", out, err)
	}
	checkFiles(t, current)
	migrations.All = nextSchema(succeed)
	out, err = RehearseMigration(path)
	if err != nil || out.From != 1 || out.To != last+2 || len(out.Steps) != len(steps)+2 || out.Copy != "" {
		t.Errorf("rehearsed: %+v, %v", out, err)
	}
	if !bytes.Equal(before, readFile(t, path)) || len(backupsIn(t, dir)) != 0 {
		t.Error("the rehearsal has changed something")
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "hsu-master-migration-*")); len(left) > 0 {
		t.Errorf("the rehearsal has left %v", left)
	}
	if out, err = Migrate(dir); err != nil || out.From != 1 || out.To != last+2 || out.Copy != backupsIn(t, dir)[0] {
		t.Errorf("migrated: %+v, %v", out, err)
	}
	s, err := ReadSnapshot(dir)
	if err != nil || s.SchemaVersion != last+2 || s.Meta.CleanShutdown || len(s.Workers) != 1 || s.Processed != 3 {
		t.Errorf("schema %d, clean %t, workers %v: %v", s.SchemaVersion, s.Meta.CleanShutdown, ids(s), err)
	}
	failing := migrations.Step{Change: func(*bolt.Tx) error { return errDisk }}
	migrations.All = append(migrations.All[:last:last], failing)
	if _, err := RehearseMigration(out.Copy); !errors.Is(err, errDisk) ||
		!strings.Contains(err.Error(), fmt.Sprintf("from schema version 1 to %d", last+1)) {
		t.Errorf("a step that fails: %v", err)
	}
}

func TestExportHoldsTheWholeCount(t *testing.T) {
	dir := killed(t)
	before := tree(t, dir)
	path := filepath.Join(t.TempDir(), "copy")
	sum, err := SaveBackup(path, false, func(f *os.File) error { return Export(dir, f) })
	if err != nil || sum.Processed != countAll || sum.Workers != 4 || sum.Path != path {
		t.Fatalf("%+v, %v", sum, err)
	}
	if tree(t, dir) != before {
		t.Error("the export has changed the state")
	}
	if again, err := inspect(path); err != nil || again != sum {
		t.Errorf("%+v, %v, want %+v", again, err, sum)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %s, %v", fi.Mode(), err)
	}
	// A master can start from the export.
	s := snapshot(t, openTest(t, restoredFrom(t, path), Options{}))
	if s.Processed != countAll || len(s.Workers) != 4 {
		t.Errorf("workers %v, processed %d", ids(s), s.Processed)
	}
	var damaged *DamagedError
	lose(t, dir, statedir.DatabaseName)
	if err := export(t, dir); !errors.As(err, &damaged) || damaged.Backup {
		t.Errorf("of a damaged state: %v", err)
	}
	if err := export(t, t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of none: %v", err)
	}
}

func restoredFrom(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if _, err := Restore(dir, path, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func export(t *testing.T, dir string) error {
	t.Helper()
	to := t.TempDir()
	_, err := SaveBackup(filepath.Join(to, "x"), false, func(f *os.File) error { return Export(dir, f) })
	if left, _ := os.ReadDir(to); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return err
}

func TestSavedBackupReplacesNothingUnasked(t *testing.T) {
	dir := killed(t)
	path := filepath.Join(t.TempDir(), "copy")
	overwrite(t, path, []byte("mine"))
	save := func(path string, replace bool) error {
		return second(SaveBackup(path, replace, func(f *os.File) error { return Export(dir, f) }))
	}
	if err := save(path, false); !errors.Is(err, ErrExists) || string(readFile(t, path)) != "mine" {
		t.Errorf("there is one: %v", err)
	}
	if err := save(path, true); err != nil {
		t.Errorf("replaced: %v", err)
	}
	if _, err := inspect(path); err != nil {
		t.Error(err)
	}
	if err := save(t.TempDir(), true); err == nil {
		t.Error("a folder was replaced")
	}
	// Another process creates the file in the meantime.
	path += "2"
	_, err := SaveBackup(path, false, func(f *os.File) error {
		overwrite(t, path, []byte("mine"))
		return Export(dir, f)
	})
	if !errors.Is(err, ErrExists) || string(readFile(t, path)) != "mine" {
		t.Errorf("made meanwhile: %v", err)
	}
	// The written data is checked before the file gets its name.
	_, err = SaveBackup(path+"3", false, func(f *os.File) error { _, err := f.WriteString("garbage"); return err })
	if _, damaged := errors.AsType[*DamagedError](err); !damaged {
		t.Errorf("garbage: %v", err)
	}
	var out bytes.Buffer
	if _, err := StreamBackup(&out, func(f *os.File) error {
		_, err := f.WriteString("garbage")
		return err
	}); err == nil || out.Len() > 0 {
		t.Errorf("garbage to a stream: %v, %d bytes", err, out.Len())
	}
	sum, err := StreamBackup(&out, func(f *os.File) error { return Export(dir, f) })
	if err != nil || int64(out.Len()) != sum.Size {
		t.Errorf("to a stream: %v, %d bytes of %d", err, out.Len(), sum.Size)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 2 {
		t.Errorf("there are %v", left)
	}
}
