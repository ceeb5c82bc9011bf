package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

func mustBackUp(t testing.TB, db *DB) string {
	t.Helper()
	path, err := db.Backup()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The names of backups sort in the order in which they were made. Each backup is complete and accessible only by
// its owner.
func TestBackupsAreNamedByWhatIsInThem(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	var made []string
	for i := range 3 {
		put(t, db, records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
		add(t, db, 1)
		made = append(made, mustBackUp(t, db))
		sum, err := inspect(made[i])
		if err != nil || sum.Workers != i+1 || sum.Processed != int64(i+1) ||
			sum.SchemaVersion != migrations.Current() {
			t.Errorf("%+v, %v", sum, err)
		}
		if !strings.Contains(made[i], fmt.Sprintf("state-%016d-schema%d-", sum.Sequence, migrations.Current())) {
			t.Errorf("%s is of transaction %d", made[i], sum.Sequence)
		}
		if fi, err := os.Stat(made[i]); err != nil || fi.Mode() != 0o600 {
			t.Errorf("mode %s, %v", fi.Mode(), err)
		}
	}
	if got := backupsIn(t, db.Dir()); !slices.Equal(got, made) {
		t.Errorf("there are %v, want %v", got, made)
	}
}

func TestNothingIsBackedUpTwice(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	if mustBackUp(t, db) == "" {
		t.Error("the first was not made")
	}
	before := tree(t, dir)
	for range 3 {
		if path := mustBackUp(t, db); path != "" {
			t.Errorf("nothing has changed, and it made %s", path)
		}
	}
	if tree(t, dir) != before {
		t.Error("something was written")
	}
	add(t, db, 1)
	if mustBackUp(t, db) == "" {
		t.Error("a request was counted, and that was not backed up")
	}
}

// The oldest backups, by transaction number, are removed. Files with other names and the newest backup of an older
// schema stay.
func TestOldBackupsArePruned(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{KeepBackups: 3})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	first := mustBackUp(t, db)
	content := readFile(t, first)
	folder := filepath.Join(dir, statedir.BackupsName)
	var foreign []string
	for _, name := range []string{
		"mine.db", "state-7-schema1-20260203T040506Z.db",
		"state-0000000000000001-schema1-20260203T040506Z.db.gz", "notes",
	} {
		foreign = append(foreign, filepath.Join(folder, name))
		overwrite(t, filepath.Join(folder, name), content)
	}
	// Its time is later than all others.
	old := filepath.Join(folder,
		fmt.Sprintf("state-0000000000000001-schema%d-20990203T040506Z.db", migrations.Current()))
	overwrite(t, old, content)
	older := []string{
		filepath.Join(folder, "state-0000000000000002-schema0-20260203T040506Z.db"),
		filepath.Join(folder, "state-0000000000000003-schema0-20260203T040506Z.db"),
	}
	for _, path := range older {
		overwrite(t, path, content)
	}
	var made []string
	for range 6 {
		add(t, db, 1)
		made = append(made, mustBackUp(t, db))
	}
	want := slices.Concat(foreign, older[1:], made[3:])
	slices.Sort(want)
	if got := backupsIn(t, dir); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
}

// A failed backup removes no other backup and leaves no file.
func TestBackupThatFailsRemovesNothing(t *testing.T) {
	for _, act := range []string{"backup-write", "backup-sync", "backup-rename", "after-backup-write"} {
		var a acts
		dir := t.TempDir()
		db := openSeams(t, dir, Options{KeepBackups: 1}, a.seams())
		put(t, db, records.PutWorker(fullWorker("worker-0")))
		first := mustBackUp(t, db)
		add(t, db, 1)
		a.set(act, errDisk)
		if _, err := db.Backup(); !errors.Is(err, errDisk) {
			t.Errorf("%s: %v", act, err)
		}
		if got := backupsIn(t, dir); !slices.Equal(got, []string{first}) {
			t.Errorf("%s: there are %v", act, got)
		}
		// The service continues.
		add(t, db, 1)
		put(t, db, records.PutWorker(fullWorker("worker-1")))
		a.set(act, nil)
		if second := mustBackUp(t, db); !slices.Equal(backupsIn(t, dir), []string{second}) {
			t.Errorf("%s: there are %v, want %s", act, backupsIn(t, dir), second)
		}
		mustClose(t, db)
	}
}

// A copy that differs from the written data is not accepted as a backup.
func TestBackupIsCheckedBeforeItGetsItsName(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, statedir.BackupsName)
	spoiling := true
	db := openSeams(t, dir, Options{}, seams{steps: migrations.All, at: func(moment string) error {
		if moment == "after-backup-sync" && spoiling { // as a bad disk does
			path := filepath.Join(folder, statedir.DatabaseName+statefile.TempSuffix)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(path, spoil(b), 0o600)
		}
		return nil
	}})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	if path, err := db.Backup(); err == nil || !strings.Contains(err.Error(), "the copy is damaged") {
		t.Errorf("%q, %v", path, err)
	}
	if got := backupsIn(t, dir); len(got) > 0 {
		t.Errorf("there are %v", got)
	}
	spoiling = false
	mustBackUp(t, db)
}

func TestBackupsAreServedWhereSomethingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		db := openTest(t, dir, Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var served sync.WaitGroup
		served.Go(func() { db.ServeBackups(ctx, 15*time.Minute) })
		count := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			if got := backupsIn(t, dir); len(got) != want {
				t.Errorf("%s: there are %v, want %d", when, got, want)
			}
		}
		count(1, "at once")
		time.Sleep(time.Hour)
		count(1, "nothing has changed")
		add(t, db, 1)
		time.Sleep(14 * time.Minute)
		count(1, "before the interval is over")
		time.Sleep(time.Minute)
		count(2, "after it")
		cancel()
		served.Wait()
		add(t, db, 1)
		time.Sleep(time.Hour)
		count(2, "when it has ended")
		mustClose(t, db)
	})
}

// A master that crashes repeatedly does not push out older backups.
func TestCrashLoopMakesABackupAMinuteAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		for range 20 {
			db := openTest(t, dir, Options{})
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			put(t, db, records.AppendEvent(records.Event{Type: "x"}))
			db.ServeBackups(ctx, 15*time.Minute)
			cancel()
			mustClose(t, db)
		}
		if got := len(backupsIn(t, dir)); got < 3 || got > 5 { // in 200 s
			t.Errorf("%d backups, want one a minute", got)
		}
	})
}

// A failure of backups is logged once, and so is their recovery.
func TestBackupThatFailsIsToldOnceAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		var log bytes.Buffer
		dir := t.TempDir()
		db := openSeams(t, dir, Options{Logger: logTo(&log)}, a.seams())
		a.set("backup-write", errDisk)
		ctx, cancel := context.WithCancel(t.Context())
		var served sync.WaitGroup
		served.Go(func() { db.ServeBackups(ctx, 15*time.Minute) })
		time.Sleep(time.Hour)
		add(t, db, 1)
		a.set("backup-write", nil)
		time.Sleep(backupRetry)
		synctest.Wait()
		if got := len(backupsIn(t, dir)); got != 1 {
			t.Errorf("%d backups, want 1", got)
		}
		cancel()
		served.Wait()
		mustClose(t, db)
		if told := strings.Count(log.String(), "backup failed, retrying"); told != 1 ||
			!strings.Contains(log.String(), "backups resumed") {
			t.Errorf("told %d times: %s", told, &log)
		}
		db.ServeBackups(t.Context(), 0) // makes none and returns at once
	})
}

// While the disk is slow to write a backup, requests are counted and workers recorded.
func TestBackupHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, stuck := make(chan struct{}), false
		db := openSeams(t, t.TempDir(), Options{}, seams{steps: migrations.All, at: func(moment string) error {
			if moment == "backup-sync" {
				stuck = true
				<-slow
			}
			return nil
		}})
		put(t, db, records.PutWorker(fullWorker("worker-0")))
		var made sync.WaitGroup
		made.Go(func() { mustBackUp(t, db) })
		synctest.Wait()
		if !stuck {
			t.Error("the backup did not begin")
		}
		for i := range 50 {
			add(t, db, 1)
			put(t, db, records.PutWorker(fullWorker(fmt.Sprintf("worker-%d", i))))
			snapshot(t, db)
		}
		close(slow)
		made.Wait()
		mustClose(t, db)
	})
}
