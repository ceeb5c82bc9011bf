package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/internal/eventtype"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/backups"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// backedUp returns the state of a killed master. It has three backups, each with one worker and ten requests more
// than the one before. A fourth worker is only in the database, and seven further requests are only in the database
// and the counter.
var backedUp = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hsu-store")
	if err != nil {
		return "", err
	}
	atEnd = append(atEnd, func() { _ = os.RemoveAll(dir) })
	db, err := Open(filepath.Join(dir, "live"), Options{})
	if err != nil {
		return "", err
	}
	ctx := context.Background()
	for i := range 3 {
		w := fullWorker(fmt.Sprintf("worker-%d", i))
		_, backup := "", error(nil)
		err = errors.Join(err, db.Apply(
			ctx, records.PutWorker(w), records.AppendEvent(records.Event{Type: "x"}),
		), db.AddProcessed(ctx, 10))
		_, backup = db.Backup()
		err = errors.Join(err, backup)
	}
	err = errors.Join(err, db.Apply(ctx, records.PutWorker(fullWorker("worker-3"))), db.AddProcessed(ctx, 7))
	// The current files are what kill -9 would leave.
	err = errors.Join(err, os.CopyFS(filepath.Join(dir, "killed"), os.DirFS(filepath.Join(dir, "live"))), db.Close())
	return filepath.Join(dir, "killed"), err
})

const (
	countBackedUp = 30
	countAll      = 37
)

// killed returns a copy of the state that backedUp returns.
func killed(t testing.TB) string {
	t.Helper()
	from, err := backedUp()
	if err != nil {
		t.Fatal(err)
	}
	return copyTree(t, from)
}

// copyTree copies a whole state.
func copyTree(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "st")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	return to
}

func overwrite(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// spoil flips a bit in the header of each page.
func spoil(content []byte) []byte {
	b := bytes.Clone(content)
	for at := 0; at < len(b); at += 4096 {
		b[at+10] ^= 0x10
	}
	return b
}

// aside returns the single file that was kept aside for path.
func aside(t testing.TB, path string) string {
	t.Helper()
	kept, err := statefile.ListAside(path, statefile.DamagedInfix)
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept aside of %s: %v, %v, want one file", path, kept, err)
	}
	return kept[0]
}

func events(s records.Snapshot, kind string) []records.Event {
	return slices.DeleteFunc(slices.Clone(s.Events), func(e records.Event) bool { return e.Type != kind })
}

var recovering = Options{OnDamage: Recover}

func TestDamagedStateIsKeptAsideAndTheNewestBackupTaken(t *testing.T) {
	dir := killed(t)
	path := filepath.Join(dir, statedir.DatabaseName)
	damaged := spoil(readFile(t, path))
	overwrite(t, path, damaged)
	var log bytes.Buffer
	opts := recovering
	opts.Logger = logTo(&log)
	db := openTest(t, dir, opts)
	s := snapshot(t, db)
	if diff := cmp.Diff([]string{"worker-0", "worker-1", "worker-2"}, ids(s)); diff != "" {
		t.Error("workers:", diff)
	}
	if s.Processed != countAll || !s.Meta.CountShortSince.IsZero() {
		t.Errorf("processed %d, short since %s; want %d, which the counter knows",
			s.Processed, s.Meta.CountShortSince, countAll)
	}
	if !bytes.Equal(readFile(t, aside(t, path)), damaged) {
		t.Error("what was kept aside is not what was damaged")
	}
	told := events(s, eventtype.FromBackup)
	if len(told) != 1 || !strings.Contains(told[0].Detail, filepath.Base(aside(t, path))) ||
		!strings.Contains(told[0].Detail, "state-0000") {
		t.Errorf("events: %+v", s.Events)
	}
	for _, line := range []string{"state file damaged", "state restored from backup"} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log lacks %q: %s", line, &log)
		}
	}
	// The restored database is newer than all backups, so that the next backup is the newest.
	before := backupsIn(t, dir)
	made, err := db.Backup()
	if err != nil || made == "" {
		t.Fatalf("back up: %q, %v", made, err)
	}
	if made < slices.Max(before) {
		t.Errorf("backup %s sorts before %v", made, before)
	}
	// The next start finds nothing to repair.
	mustClose(t, db)
	if s := snapshot(t, openTest(t, dir, Options{})); len(
		events(s, eventtype.FromBackup),
	) != 1 || s.Processed != countAll {
		t.Errorf("at the next start: %+v", s)
	}
}

func TestRefusalChangesNoFile(t *testing.T) {
	for what, spoilt := range map[string][]string{
		"database":      {statedir.DatabaseName},
		"counter":       {statedir.CounterName},
		"master id":     {statedir.MasterIDName},
		"all":           {statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName},
		"and a missing": {statedir.MasterIDName},
	} {
		dir := killed(t)
		for _, name := range spoilt {
			overwrite(t, filepath.Join(dir, name), []byte("garbage"))
		}
		if what == "and a missing" {
			remove(t, filepath.Join(dir, statedir.DatabaseName))
		}
		remove(t, filepath.Join(dir, statedir.LockName))
		before := tree(t, dir)
		var damaged *DamagedError
		if _, err := Open(dir, Options{}); !errors.As(err, &damaged) {
			t.Errorf("%s: %v, want a DamagedError", what, err)
		}
		remove(t, filepath.Join(dir, statedir.LockName))
		if after := tree(t, dir); withoutDirTime(before) != withoutDirTime(after) {
			t.Errorf("%s: files were changed: %s", what, cmp.Diff(before, after))
		}
	}
}

// withoutDirTime removes the line of the directory itself, whose time changed when the lock file was created in it.
func withoutDirTime(listing string) string {
	_, rest, _ := strings.Cut(listing, "\n")
	return rest
}

// If a backup is damaged, an older one is used, regardless of names and times.
func TestNewestBackupThatIsGoodIsTaken(t *testing.T) {
	for what, c := range map[string]struct {
		change func(t *testing.T, backups []string)
		want   int // number of workers
	}{
		"the newest is damaged": {func(t *testing.T, b []string) { overwrite(t, b[2], spoil(readFile(t, b[2]))) }, 2},
		"the newest is cut off": {func(t *testing.T, b []string) { overwrite(t, b[2], readFile(t, b[2])[:4096]) }, 2},
		"the newest is empty":   {func(t *testing.T, b []string) { overwrite(t, b[2], nil) }, 2},
		"two are text": {func(t *testing.T, b []string) {
			overwrite(t, b[2], []byte("a letter"))
			overwrite(t, b[1], []byte("a letter"))
		}, 1},
		"one is a folder": {func(t *testing.T, b []string) {
			remove(t, b[2])
			if err := os.Mkdir(b[2], 0o700); err != nil {
				t.Fatal(err)
			}
		}, 2},
		"all are damaged": {func(t *testing.T, b []string) {
			for _, path := range b {
				overwrite(t, path, spoil(readFile(t, path)))
			}
		}, 0},
		"there is none": {func(t *testing.T, b []string) { remove(t, b...) }, 0},
		"a clock was set back": {func(t *testing.T, b []string) {
			// Both the time in the name and the time of the file are older.
			at := strings.Index(b[2], "-20") + 1
			old := b[2][:at] + "20010203T040506Z.db"
			if err := errors.Join(os.Rename(b[2], old), os.Chtimes(old, time.Time{}, time.Unix(1, 0))); err != nil {
				t.Fatal(err)
			}
		}, 3},
		"the names lie": {func(t *testing.T, b []string) {
			x, y := readFile(t, b[0]), readFile(t, b[2])
			overwrite(t, b[0], y)
			overwrite(t, b[2], x)
		}, 3},
		"a later one is of another master": {func(t *testing.T, b []string) {
			other := killedOf(t, "8a9b3c1d-0000-4000-8000-000000000001")
			overwrite(t, strings.Replace(b[2], "state-0", "state-9", 1), readFile(t, other))
		}, 3},
		"a later one is of a newer release": {func(t *testing.T, b []string) {
			newer := filepath.Join(filepath.Dir(b[2]), "state-0000000000099999-schema2-20260203T040506Z.db")
			overwrite(t, newer, readFile(t, b[2]))
			setVersion(t, newer, byte(migrations.Current()+1))
		}, 3},
	} {
		dir := killed(t)
		c.change(t, backupsIn(t, dir))
		overwrite(t, filepath.Join(dir, statedir.DatabaseName), []byte("garbage"))
		db := openTest(t, dir, recovering)
		s := snapshot(t, db)
		if len(s.Workers) != c.want || s.Processed != countAll || !s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: %d workers, processed %d, short since %s; want %d and %d",
				what, len(s.Workers), s.Processed, s.Meta.CountShortSince, c.want, countAll)
		}
		from := eventtype.FromBackup
		if c.want == 0 {
			from = eventtype.FromProcesses
		}
		if len(events(s, from)) != 1 {
			t.Errorf("%s: no event %s: %+v", what, from, s.Events)
		}
		put(t, db, records.PutWorker(fullWorker("worker-9")))
		if made, all := mustBackUp(t, db), backupFiles(t, dir); what != "the folder is a file" &&
			made != all[len(all)-1].Path {
			t.Errorf("%s: the next backup is %s, which is not the newest of %v", what, made, all)
		}
		mustClose(t, db)
	}
}

func backupFiles(t *testing.T, dir string) []backups.File {
	t.Helper()
	all, err := backups.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// killedOf returns a backup of another master.
func killedOf(t *testing.T, id string) string {
	t.Helper()
	dir := t.TempDir()
	overwrite(t, filepath.Join(dir, statedir.MasterIDName), []byte(id+"\n"))
	db := openTest(t, dir, Options{})
	for i := range 9 {
		put(t, db, records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
	}
	path, err := db.Backup()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func setVersion(t *testing.T, path string, version byte) {
	t.Helper()
	change(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketMeta).Put(migrations.KeyVersion, []byte{0, 0, 0, 0, 0, 0, 0, version})
	})
}

// change edits a database that no process has open.
func change(t testing.TB, path string, edit func(*bolt.Tx) error) {
	t.Helper()
	h, err := boltfile.Open(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Update(edit, (*bolt.Tx).Commit), h.Close()); err != nil {
		t.Fatal(err)
	}
}

// An unknown newer schema is not damage, neither in the database nor in the last remaining backup.
func TestNewerSchemaIsNotRecoveredFrom(t *testing.T) {
	dir := killed(t)
	path := filepath.Join(dir, statedir.DatabaseName)
	setVersion(t, path, byte(migrations.Current()+1))
	before := readFile(t, path)
	var newer *records.NewerSchemaError
	if _, err := Open(dir, recovering); !errors.As(err, &newer) {
		t.Errorf("%v, want a NewerSchemaError", err)
	}
	if !bytes.Equal(before, readFile(t, path)) {
		t.Error("the database was changed")
	}
	backups := backupsIn(t, dir)
	remove(t, backups[:2]...)
	setVersion(t, backups[2], byte(migrations.Current()+1))
	overwrite(t, path, []byte("garbage"))
	for range 2 {
		if _, err := Open(dir, recovering); !errors.As(err, &newer) || newer.Path != backups[2] {
			t.Errorf("%v, want a NewerSchemaError of the backup", err)
		}
	}
	if string(readFile(t, path)) != "garbage" {
		t.Error("the database was moved")
	}
}

// The database was removed, or a crash occurred between keeping the damaged one aside and making the next one.
func TestMissingStateIsTakenFromTheNewestBackup(t *testing.T) {
	for what, opts := range map[string]Options{"refuse": {}, "recover": recovering} {
		dir := killed(t)
		remove(t, filepath.Join(dir, statedir.DatabaseName))
		s := snapshot(t, openTest(t, dir, opts))
		if len(s.Workers) != 3 || s.Processed != countAll || len(events(s, eventtype.FromBackup)) != 1 {
			t.Errorf("%s: workers %v, processed %d, events %+v", what, ids(s), s.Processed, s.Events)
		}
	}
}

// If the count may have decreased, the state records that.
func TestLostCountIsSaidToBeShort(t *testing.T) {
	const none = -1
	for what, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   int64
		short  bool
	}{
		"the database is lost": {
			func(t *testing.T, dir string) { lose(t, dir, statedir.DatabaseName) }, countAll, false,
		},
		"the database and the counter": {
			func(t *testing.T, dir string) { lose(t, dir, statedir.DatabaseName, statedir.CounterName) },
			countBackedUp, true,
		},
		"both are missing": {
			func(t *testing.T, dir string) {
				remove(t, filepath.Join(dir, statedir.DatabaseName), filepath.Join(dir, statedir.CounterName))
			},
			countBackedUp, true,
		},
		"database, counter and every backup": {func(t *testing.T, dir string) {
			lose(t, dir, statedir.DatabaseName, statedir.CounterName)
			remove(t, filepath.Join(dir, statedir.BackupsName))
		}, 0, true},
		// The database is at most a second behind; here it is not behind at all.
		"the counter": {func(t *testing.T, dir string) { lose(t, dir, statedir.CounterName) }, none, true},
		"the counter is missing": {
			func(t *testing.T, dir string) { remove(t, filepath.Join(dir, statedir.CounterName)) },
			none, true,
		},
		"one copy of the count": {func(t *testing.T, dir string) { spoilCopy(t, dir) }, none, true},
		"the counter is an old one": {func(t *testing.T, dir string) {
			lose(t, dir, statedir.DatabaseName)
			old := make([]byte, counterSize)
			counterfile.Copy{Sequence: 1, Tally: counterfile.Tally{Processed: 2}}.Put(old, time.Time{})
			counterfile.Copy{Sequence: 2, Tally: counterfile.Tally{Processed: 3}}.Put(old[copyDistance:], time.Time{})
			overwrite(t, filepath.Join(dir, statedir.CounterName), old)
		}, countBackedUp, true},
		"the record of the count": {func(t *testing.T, dir string) { spoilCount(t, dir) }, countAll, false},
		"the record of the count, and the counter": {func(t *testing.T, dir string) {
			spoilCount(t, dir)
			lose(t, dir, statedir.CounterName)
		}, countBackedUp, true},
	} {
		dir := killed(t)
		c.change(t, dir)
		var log bytes.Buffer
		opts := recovering
		opts.Logger = logTo(&log)
		began := time.Now()
		db := openTest(t, dir, opts)
		s := snapshot(t, db)
		if c.want != none && s.Processed != c.want || s.Processed < countBackedUp && c.want != 0 {
			t.Errorf("%s: processed %d, want %d", what, s.Processed, c.want)
		}
		since := s.Meta.CountShortSince
		if since.IsZero() == c.short || since.After(began) {
			t.Errorf("%s: short since %s, want it said: %t", what, since, c.short)
		}
		// It is reported at every start and stays recorded.
		add(t, db, 1)
		mustClose(t, db)
		again := openTest(t, dir, opts)
		if now := snapshot(t, again).Meta.CountShortSince; !now.Equal(since) || again.Processed() != s.Processed+1 {
			t.Errorf("%s: at the next start: %d, short since %s, was %s", what, again.Processed(), now, since)
		}
		mustClose(t, again)
		if got := strings.Count(log.String(), "processed count may be short"); c.short != (got == 2) {
			t.Errorf("%s: the log says it %d times: %s", what, got, &log)
		}
	}
}

// Requests counted in the same batch as a change of the registry are in the database, and must be in the counter
// too.
func TestCountThatCameWithAChangeOutlivesTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		dir := t.TempDir()
		db := openSeams(t, dir, Options{}, seams{steps: migrations.All, at: func(moment string) error {
			if moment == "count-sync" {
				<-release
			}
			return nil
		}})
		var callers sync.WaitGroup
		callers.Go(func() { add(t, db, 1) })
		synctest.Wait() // the first count is being committed
		callers.Go(func() { put(t, db, records.PutWorker(fullWorker("worker-0"))) })
		callers.Go(func() { add(t, db, 5) })
		synctest.Wait() // both requests are in the next batch
		close(release)
		callers.Wait()
		crashed := copyTree(t, dir)
		mustClose(t, db)
		lose(t, crashed, statedir.DatabaseName)
		if s := snapshot(t, openTest(t, crashed, recovering)); s.Processed != 6 || !s.Meta.CountShortSince.IsZero() {
			t.Errorf("processed %d, short since %s, want 6", s.Processed, s.Meta.CountShortSince)
		}
	})
}

// If the backups folder is not a directory, the master still starts.
func TestBackupsFolderThatIsNoneIsPassedOver(t *testing.T) {
	dir := killed(t)
	remove(t, filepath.Join(dir, statedir.BackupsName))
	lose(t, dir, statedir.BackupsName, statedir.DatabaseName)
	db := openTest(t, dir, recovering)
	if s := snapshot(t, db); s.Processed != countAll || len(events(s, eventtype.FromProcesses)) != 1 {
		t.Errorf("processed %d, events %+v", s.Processed, s.Events)
	}
	if _, err := db.Backup(); err == nil {
		t.Error("backed up into a file")
	}
	add(t, db, 1)
	mustClose(t, db)
}

// lose overwrites files with garbage.
func lose(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		overwrite(t, filepath.Join(dir, name), []byte("garbage"))
	}
}

func spoilCopy(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, statedir.CounterName)
	b := readFile(t, path)
	count, err := counterfile.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	b[count.Newest.Sequence%2*copyDistance+20] ^= 1
	overwrite(t, path, b)
}

func spoilCount(t *testing.T, dir string) {
	t.Helper()
	change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketCounters).Put(records.KeyProcessed, []byte("garbage"))
	})
}

// One record that cannot be read is no reason to discard a registry.
func TestRegistryIsKeptWhereOnlyTheCountIsDamaged(t *testing.T) {
	dir := killed(t)
	spoilCount(t, dir)
	path := filepath.Join(dir, statedir.DatabaseName)
	damaged := readFile(t, path)
	s := snapshot(t, openTest(t, dir, recovering))
	if len(s.Workers) != 4 || s.Processed != countAll || len(s.Bad) > 0 {
		t.Errorf("workers %v, processed %d, bad %v", ids(s), s.Processed, s.Bad)
	}
	if !bytes.Equal(readFile(t, aside(t, path)), damaged) {
		t.Error("what was kept aside is not what was damaged")
	}
}

// After a clean shutdown, the database has the whole count, so the counter is not needed.
func TestCountIsExactAfterACleanShutdownWithoutCounter(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, dir string){
		"missing": func(t *testing.T, dir string) { remove(t, filepath.Join(dir, statedir.CounterName)) },
		"damaged": func(t *testing.T, dir string) { lose(t, dir, statedir.CounterName) },
		"a copy":  spoilCopy,
	} {
		dir := killed(t)
		mustClose(t, openTest(t, dir, Options{}))
		spoil(t, dir)
		s := snapshot(t, openTest(t, dir, recovering))
		if s.Processed != countAll || !s.Meta.CountShortSince.IsZero() {
			t.Errorf("%s: processed %d, short since %s", what, s.Processed, s.Meta.CountShortSince)
		}
	}
}

// The living workers know their master by its id.
func TestMasterIDOutlivesItsFile(t *testing.T) {
	const living = "5d5d5d5d-0000-4000-8000-00000000000a"
	for what, c := range map[string]struct {
		lost []string
		want func(id string) string
	}{
		"from the database": {[]string{statedir.MasterIDName}, func(id string) string { return id }},
		"from a backup": {
			[]string{statedir.MasterIDName, statedir.DatabaseName}, func(id string) string { return id },
		},
		"from the processes": {[]string{
			statedir.MasterIDName, statedir.DatabaseName, statedir.BackupsName,
		}, func(string) string { return living }},
	} {
		for _, how := range []string{"damaged", "missing"} {
			dir := killed(t)
			id := strings.TrimSpace(string(readFile(t, filepath.Join(dir, statedir.MasterIDName))))
			for _, name := range c.lost {
				remove(t, filepath.Join(dir, name))
				if how == "damaged" {
					lose(t, dir, name)
				}
			}
			opts := recovering
			asked := 0
			opts.LostID = func() (string, error) { asked++; return living, nil }
			db := openTest(t, dir, opts)
			if got := db.MasterID(); got != c.want(id) {
				t.Errorf("%s, %s: %s, want %s", what, how, got, c.want(id))
			}
			if wanted := c.want(id) == living; wanted != (asked > 0) {
				t.Errorf("%s, %s: the living were asked %d times", what, how, asked)
			}
			if how == "damaged" {
				aside(t, filepath.Join(dir, statedir.MasterIDName))
			}
			if got := strings.TrimSpace(
				string(readFile(t, filepath.Join(dir, statedir.MasterIDName))),
			); got != db.MasterID() {
				t.Errorf("%s, %s: the file says %s", what, how, got)
			}
			mustClose(t, db)
		}
	}
	// LostID is not called for a new state: the inode of its directory may have belonged to another state before.
	opts := recovering
	opts.LostID = func() (string, error) { t.Error("asked for a new state"); return living, nil }
	openTest(t, t.TempDir(), opts)
}

// A directory full of garbage does not prevent a start.
func TestGarbageIsRecoveredFrom(t *testing.T) {
	chance := rand.New(rand.NewPCG(3, 4))
	for round := range 40 {
		dir := filepath.Join(t.TempDir(), "st")
		if err := os.MkdirAll(filepath.Join(dir, statedir.BackupsName), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{
			statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName, statedir.LockName,
			statedir.DatabaseName + statefile.TempSuffix, "admin.path",
			"backups/state-0000000000000007-schema1-20260203T040506Z.db", "backups/other",
			"backups/" + statedir.DatabaseName + statefile.TempSuffix,
		} {
			b := make([]byte, chance.IntN(20_000))
			for i := range b {
				b[i] = byte(chance.Uint32())
			}
			overwrite(t, filepath.Join(dir, name), b)
		}
		if round%4 == 3 {
			remove(t, filepath.Join(dir, statedir.DatabaseName), filepath.Join(dir, statedir.CounterName))
			if err := errors.Join(os.Mkdir(filepath.Join(dir, statedir.DatabaseName), 0o700),
				os.Mkdir(filepath.Join(dir, statedir.CounterName), 0o700)); err != nil {
				t.Fatal(err)
			}
		}
		db := openTest(t, dir, recovering)
		put(t, db, records.PutWorker(fullWorker("worker-0")))
		add(t, db, 1)
		if s := snapshot(t, db); s.Processed != 1 || s.Meta.CountShortSince.IsZero() {
			t.Errorf("processed %d, short since %s", s.Processed, s.Meta.CountShortSince)
		}
		if _, err := db.Backup(); err != nil {
			t.Error(err)
		}
		mustClose(t, db)
	}
}

// A failing disk damages the file again and again.
func TestFilesKeptAsideAreBounded(t *testing.T) {
	dir := killed(t)
	path := filepath.Join(dir, statedir.DatabaseName)
	for n := range 2 * statefile.MaxAside {
		overwrite(t, path, fmt.Appendf(nil, "garbage %d", n))
		mustClose(t, openTest(t, dir, recovering))
	}
	kept, err := statefile.ListAside(path, statefile.DamagedInfix)
	if err != nil || len(kept) != statefile.MaxAside {
		t.Fatalf("kept: %v, %v", kept, err)
	}
	for i, want := range []int{0, 9, 10, 11, 12, 13, 14, 15} {
		if got := string(readFile(t, kept[i])); got != fmt.Sprintf("garbage %d", want) {
			t.Errorf("number %d is %q, want garbage %d", i, got, want)
		}
	}
}

// If a crash interrupts a recovery at any operation, the next start comes to the same result.
func TestRecoveryThatIsCutOffIsFinishedByTheNext(t *testing.T) {
	for what, c := range map[string]struct {
		lost    []string
		workers int
		count   int64
		short   bool
	}{
		"database":             {[]string{statedir.DatabaseName}, 3, countAll, false},
		"database and id":      {[]string{statedir.DatabaseName, statedir.MasterIDName}, 3, countAll, false},
		"database and counter": {[]string{statedir.DatabaseName, statedir.CounterName}, 3, countBackedUp, true},
		"all but the backups": {
			[]string{statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName}, 3, countBackedUp, true,
		},
		"all": {[]string{
			statedir.DatabaseName, statedir.CounterName, statedir.MasterIDName, statedir.BackupsName,
		}, 0, 0, true},
		"counter":                      {[]string{statedir.CounterName}, 4, -1, true},
		"database, without any backup": {[]string{statedir.DatabaseName, statedir.BackupsName}, 0, countAll, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			acts, ended := 0, false
			for n := 1; !ended; n++ {
				dir := killed(t)
				id := strings.TrimSpace(string(readFile(t, filepath.Join(dir, statedir.MasterIDName))))
				for _, name := range c.lost {
					remove(t, filepath.Join(dir, name))
					lose(t, dir, name)
				}
				passed, gone := 0, false
				opts := recovering
				opts.LostID = func() (string, error) { return id, nil }
				cutOff := seams{steps: migrations.All, at: func(string) error {
					if passed++; passed == n {
						gone = true
					}
					if gone { // all further operations fail too
						return errDisk
					}
					return nil
				}}
				db, err := open(dir, opts, cutOff)
				ended = err == nil
				switch {
				case ended:
					gone, n = false, -1
					mustClose(t, db)
				case errors.Is(err, errDisk):
					acts++
				default:
					t.Fatalf("act %d: %v", n, err)
				}
				db = openTest(t, dir, opts)
				s := snapshot(t, db)
				if len(s.Workers) != c.workers || c.count >= 0 && s.Processed != c.count ||
					s.Meta.CountShortSince.IsZero() == c.short || db.MasterID() != id {
					t.Errorf("after act %d: workers %v, processed %d, short since %s, id %s; want %+v",
						n, ids(s), s.Processed, s.Meta.CountShortSince, db.MasterID(), c)
				}
				for _, name := range c.lost {
					kept, _ := statefile.ListAside(filepath.Join(dir, name), statefile.DamagedInfix)
					if len(kept) != 1 && name != statedir.BackupsName {
						t.Errorf("after act %d: kept aside of %s: %v", n, name, kept)
					}
				}
				mustClose(t, db)
			}
			if acts < 8 {
				t.Errorf("only %d acts were cut off", acts)
			}
			t.Logf("%d acts", acts)
		})
	}
}

// After a recovery the count may be short. This stays recorded as long as either of the two files exists.
func TestCountThatMayBeShortStaysSo(t *testing.T) {
	dir := killed(t)
	lose(t, dir, statedir.DatabaseName, statedir.CounterName)
	db := openTest(t, dir, recovering)
	since := snapshot(t, db).Meta.CountShortSince
	add(t, db, 1)
	mustClose(t, db)
	if since.IsZero() {
		t.Fatal("the count is said to be exact")
	}
	// The database is damaged again before a new backup is made: all existing backups have an exact count.
	lose(t, dir, statedir.DatabaseName)
	db = openTest(t, dir, recovering)
	if s := snapshot(t, db); !s.Meta.CountShortSince.Equal(since) || s.Processed != countBackedUp+1 {
		t.Errorf("processed %d, short since %s, want %s", s.Processed, s.Meta.CountShortSince, since)
	}
	mustClose(t, db)
	lose(t, dir, statedir.CounterName)
	db = openTest(t, dir, recovering)
	if s := snapshot(t, db); !s.Meta.CountShortSince.Equal(since) || s.Processed != countBackedUp+1 {
		t.Errorf("processed %d, short since %s, want %s", s.Processed, s.Meta.CountShortSince, since)
	}
	mustClose(t, db)
}

// The file kept aside last is not removed, even if a clock that was ahead has given all other files later names.
func TestFileKeptAsideAfterTheClockWasSetBackStays(t *testing.T) {
	dir := killed(t)
	path := filepath.Join(dir, statedir.DatabaseName)
	for n := range statefile.MaxAside {
		overwrite(t, fmt.Sprintf("%s%s2099%04d-000000", path, statefile.DamagedInfix, n), []byte("later"))
	}
	for n := range 2 {
		overwrite(t, path, fmt.Appendf(nil, "garbage %d", n))
		mustClose(t, openTest(t, dir, recovering))
		kept, err := statefile.ListAside(path, statefile.DamagedInfix)
		last := slices.ContainsFunc(kept, func(file string) bool {
			return string(readFile(t, file)) == fmt.Sprintf("garbage %d", n)
		})
		if err != nil || len(kept) != statefile.MaxAside || !last {
			t.Errorf("kept: %v, %v, want what was put aside last among them", kept, err)
		}
	}
}
