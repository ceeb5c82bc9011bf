package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

func TestEveryFieldComesBack(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	bare := records.Worker{ID: "worker-1", Desired: records.DesiredStopped, Status: records.StatusStopped}
	full := fullWorker("worker-0")
	event := records.Event{Time: testTime, Worker: "worker-0", Type: "exited", Detail: "signal 9"}
	put(t, db, records.PutWorker(full), records.PutWorker(bare), records.AppendEvent(event))
	add(t, db, 3)

	want := records.Snapshot{
		SchemaVersion: migrations.Current(),
		Meta:          db.self.Found,
		Workers:       []records.Worker{full, bare},
		Bad:           map[string]error{},
		Processed:     3,
		Events:        []records.Event{event},
	}
	if diff := cmp.Diff(want, snapshot(t, db)); diff != "" {
		t.Error("snapshot of the open store:", diff)
	}
	mustClose(t, db)
	offline, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	want.Meta.CleanShutdown = true
	if diff := cmp.Diff(want, offline); diff != "" {
		t.Error("snapshot of the closed store:", diff)
	}
	again := openTest(t, dir, Options{})
	if !again.self.Found.CleanShutdown {
		t.Error("an orderly end is not told to the next run")
	}
	want.Meta.CleanShutdown = false
	if diff := cmp.Diff(want, snapshot(t, again)); diff != "" {
		t.Error("snapshot of the reopened store:", diff)
	}
	if again.MasterID() != want.Meta.MasterID || again.Processed() != 3 || again.Dir() != dir {
		t.Errorf("reopened: id %s, processed %d, dir %s", again.MasterID(), again.Processed(), again.Dir())
	}
}

func TestEnumsComeBack(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	var muts []records.Mutation
	for _, s := range []records.Status{
		records.StatusStarting, records.StatusRunning, records.StatusUnhealthy, records.StatusStopping,
		records.StatusStopped, records.StatusBackoff, records.StatusFailed, records.StatusCompleted,
		records.StatusWaiting, records.StatusScheduled, records.StatusAbsent,
	} {
		for _, source := range []identity.ExitSource{
			identity.ExitUnknown, identity.ExitWait, identity.ExitPidfd, identity.ExitStat,
		} {
			for _, proof := range []identity.Proof{
				identity.ProofNone, identity.ProofPidfdInode, identity.ProofStartTimeToken,
			} {
				muts = append(muts, records.PutWorker(records.Worker{
					ID: fmt.Sprintf("%s,%s,%s", s, source, proof), Desired: records.DesiredRunning, Status: s,
					Instance: &records.Instance{
						Process: identity.Process{Proof: proof},
					}, LastExit: &identity.Exit{Source: source},
				}))
			}
		}
	}
	put(t, db, muts...)
	s := snapshot(t, db)
	for _, w := range s.Workers {
		if got := fmt.Sprintf("%s,%s,%s", w.Status, w.LastExit.Source, w.Instance.Proof); got != w.ID {
			t.Errorf("got %s, want %s", got, w.ID)
		}
	}
	if len(s.Workers) != len(muts) {
		t.Errorf("%d workers, want %d", len(s.Workers), len(muts))
	}
}

func TestWorkersAreOrderedAsPeopleCount(t *testing.T) {
	want := []string{
		"a", "worker", "worker-0", "worker-02", "worker-2", "worker-10", "worker-10-1",
		"worker-99999999999999999999998", "worker-99999999999999999999999", "x-1",
	}
	db := openTest(t, t.TempDir(), Options{})
	for _, i := range []int{5, 0, 9, 7, 2, 1, 8, 3, 6, 4} {
		put(t, db, records.PutWorker(
			records.Worker{ID: want[i], Desired: records.DesiredRunning, Status: records.StatusRunning},
		))
	}
	if diff := cmp.Diff(want, ids(snapshot(t, db))); diff != "" {
		t.Error(diff)
	}
}

func TestDeleteAndReplace(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	put(t, db, records.PutWorker(fullWorker("worker-0")), records.PutWorker(fullWorker("worker-1")))
	changed := fullWorker("worker-1")
	changed.Instance, changed.Status = nil, records.StatusFailed
	put(t, db, records.DeleteWorker("worker-0"), records.DeleteWorker("worker-never-was"), records.PutWorker(changed))
	if diff := cmp.Diff([]records.Worker{changed}, snapshot(t, db).Workers); diff != "" {
		t.Error(diff)
	}
}

func TestUnstorableIsRefusedBeforeAnythingIsWritten(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	worker := func(change func(*records.Worker)) records.Mutation {
		w := fullWorker("worker-0")
		change(&w)
		return records.PutWorker(w)
	}
	for name, m := range map[string]records.Mutation{
		"no id":             worker(func(w *records.Worker) { w.ID = "" }),
		"long id":           worker(func(w *records.Worker) { w.ID = strings.Repeat("x", 1025) }),
		"id not UTF-8":      worker(func(w *records.Worker) { w.ID = "\xff" }),
		"no status":         worker(func(w *records.Worker) { w.Status = "" }),
		"unknown desired":   worker(func(w *records.Worker) { w.Desired = "maybe" }),
		"unknown proof":     worker(func(w *records.Worker) { w.Instance.Proof = "hearsay" }),
		"unknown source":    worker(func(w *records.Worker) { w.LastExit.Source = "hearsay" }),
		"port":              worker(func(w *records.Worker) { w.Port = 65536 }),
		"instance port":     worker(func(w *records.Worker) { w.Instance.Port = -1 }),
		"pid":               worker(func(w *records.Worker) { w.Instance.PID = -1 }),
		"exit code":         worker(func(w *records.Worker) { w.LastExit.Code = math.MaxInt }),
		"delete, no id":     records.DeleteWorker(""),
		"the zero mutation": {},
	} {
		if err := db.Apply(t.Context(), records.PutWorker(fullWorker("worker-9")), m); err == nil {
			t.Errorf("%s: stored", name)
		}
	}
	if err := db.AddProcessed(t.Context(), -1); err == nil {
		t.Error("counted -1")
	}
	put(t, db) // no mutation at all is not an error
	if s := snapshot(t, db); len(s.Workers) != 0 || s.Processed != 0 {
		t.Errorf("written nevertheless: %v, %d", ids(s), s.Processed)
	}
}

func TestTextNeedNotBeUTF8(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	w := records.Worker{
		ID: "worker-0", Desired: records.DesiredRunning, Status: records.StatusFailed, Reason: "last line: \xff\xfe.",
	}
	put(t, db, records.PutWorker(w), records.AppendEvent(records.Event{Type: "output", Detail: "\x80"}))
	s := snapshot(t, db)
	if s.Workers[0].Reason != "last line: \uFFFD." || s.Events[0].Detail != "\uFFFD" {
		t.Errorf("got %q, %q", s.Workers[0].Reason, s.Events[0].Detail)
	}
}

func TestEventsAreBounded(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{MaxEvents: 5})
	var muts []records.Mutation
	for i := range 12 {
		muts = append(muts, records.AppendEvent(records.Event{Type: fmt.Sprint(i)}))
	}
	put(t, db, muts[:4]...)
	put(t, db, muts[4:]...)
	types := func(s records.Snapshot) (out []string) {
		for _, e := range s.Events {
			out = append(out, e.Type)
		}
		return out
	}
	if diff := cmp.Diff([]string{"7", "8", "9", "10", "11"}, types(snapshot(t, db))); diff != "" {
		t.Error(diff)
	}
	mustClose(t, db)
	db = openTest(t, dir, Options{MaxEvents: 2})
	put(t, db, records.AppendEvent(records.Event{Type: "12"}))
	if diff := cmp.Diff([]string{"11", "12"}, types(snapshot(t, db))); diff != "" {
		t.Error("with a smaller bound:", diff)
	}
}

func TestOneBadRecordHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	put(t, db, records.PutWorker(
		fullWorker("worker-0"),
	), records.PutWorker(fullWorker("worker-1")), records.PutWorker(fullWorker("worker-2")),
		records.AppendEvent(records.Event{Type: "first"}), records.AppendEvent(records.Event{Type: "second"}))
	spoil := func(how func(workers, events *bolt.Bucket) error) {
		t.Helper()
		mustClose(t, db)
		change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
			return how(tx.Bucket(migrations.BucketWorkers), tx.Bucket(migrations.BucketEvents))
		})
		db = openTest(t, dir, Options{})
	}
	var good, event []byte
	spoil(func(workers, events *bolt.Bucket) error {
		good = slices.Clone(workers.Get([]byte("worker-1")))
		event = slices.Clone(events.Get([]byte{7: 1}))
		return errors.Join(
			workers.Put([]byte("worker-1"), []byte("\xff\xff")),
			workers.Put([]byte("worker-2"), good),
			workers.Put([]byte("worker-3"), nil),
			events.Put([]byte{7: 1}, []byte("\xff")),
			events.Put([]byte("odd"), event),
		)
	})
	s := snapshot(t, db)
	if diff := cmp.Diff([]string{"worker-0"}, ids(s)); diff != "" {
		t.Error(diff)
	}
	if len(s.Events) != 1 || s.Events[0].Type != "second" {
		t.Errorf("events: %v", s.Events)
	}
	for _, key := range []string{
		"workers/worker-1", "workers/worker-2", "workers/worker-3", "events/1", "events/0x6f6464",
	} {
		if s.Bad[key] == nil {
			t.Errorf("%s is not reported", key)
		}
	}
	if len(s.Bad) != 5 {
		t.Errorf("bad: %v", s.Bad)
	}
	spoil(func(workers, events *bolt.Bucket) error {
		return errors.Join(events.Delete([]byte("odd")), events.Put([]byte{7: 1}, event))
	})
	put(t, db, records.PutWorker(
		fullWorker("worker-1"),
	), records.PutWorker(fullWorker("worker-2")), records.DeleteWorker("worker-3"))
}

func TestClosedStoreSaysSo(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval} {
		db := openTest(t, t.TempDir(), Options{Sync: mode})
		mustClose(t, db)
		mustClose(t, db) // a second Close succeeds too
		_, err := db.Snapshot()
		for name, err := range map[string]error{
			"snapshot": err,
			"apply":    db.Apply(t.Context(), records.PutWorker(fullWorker("worker-0"))),
			"count":    db.AddProcessed(t.Context(), 1),
			"alive":    db.Alive(t.Context()),
			"backup":   backUpTo(db, filepath.Join(t.TempDir(), "x")),
			"accept":   db.AcceptMove(t.Context()),
		} {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("mode %d: %s: %v, want ErrClosed", mode, name, err)
			}
		}
	}
}

func TestCanceledCallerDoesNotWait(t *testing.T) {
	for _, mode := range []SyncMode{SyncAlways, SyncInterval} {
		db := openTest(t, t.TempDir(), Options{Sync: mode})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := db.AddProcessed(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("count: %v", err)
		}
		if err := db.Apply(ctx, records.DeleteWorker("worker-0")); !errors.Is(err, context.Canceled) {
			t.Errorf("apply: %v", err)
		}
		if got := db.Processed(); got != 0 {
			t.Errorf("processed %d, want 0", got)
		}
	}
}

func TestMovedDirectoryIsNoticed(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	if db.Moved() || db.self.Found.StateDir != db.StateDirID() || db.StateDirID() == (identity.FileID{}) {
		t.Fatalf("a new state: moved %t, %v, %v", db.Moved(), db.self.Found.StateDir, db.StateDirID())
	}
	mustClose(t, db)

	copied := copyState(t, dir)
	db = openTest(t, copied, Options{})
	if !db.Moved() {
		t.Error("a copy is not noticed")
	}
	mustClose(t, db)
	db = openTest(t, copied, Options{})
	if !db.Moved() {
		t.Error("a copy is not noticed the second time")
	}
	if err := db.AcceptMove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if db.Moved() {
		t.Error("accepted and still moved")
	}
	mustClose(t, db)
	if db = openTest(t, copied, Options{}); db.Moved() || !db.self.Found.CleanShutdown {
		t.Errorf("accepted and reopened: moved %t, clean %t", db.Moved(), db.self.Found.CleanShutdown)
	}
}

func TestMasterIDOutlivesTheDatabase(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	id := db.MasterID()
	add(t, db, 5)
	mustClose(t, db)
	if b, err := os.ReadFile(
		filepath.Join(dir, statedir.MasterIDName),
	); err != nil || string(b) != id+"\n" || !records.ValidUUID(id) {
		t.Fatalf("master-id is %q (%v), want %q", b, err, id)
	}

	if err := os.Remove(filepath.Join(dir, statedir.DatabaseName)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	db = openTest(t, dir, Options{Logger: logTo(&log)})
	if db.MasterID() != id || db.Processed() != 5 {
		t.Errorf("without its database: id %s, processed %d, want %s, 5", db.MasterID(), db.Processed(), id)
	}
	mustClose(t, db)
	if !strings.Contains(log.String(), "state database missing") {
		t.Errorf("the loss is not logged: %s", &log)
	}

	if err := os.Remove(filepath.Join(dir, statedir.MasterIDName)); err != nil {
		t.Fatal(err)
	}
	db = openTest(t, dir, Options{})
	if db.MasterID() != id {
		t.Errorf("without the file: id %s, want %s", db.MasterID(), id)
	}
	mustClose(t, db)

	other := records.NewUUID()
	if err := statedir.WriteMasterID((statefile.Ops{}), dir, other); err != nil {
		t.Fatal(err)
	}
	log.Reset()
	db = openTest(t, dir, Options{Logger: logTo(&log)})
	if db.MasterID() != other || snapshot(t, db).Meta.MasterID != other {
		t.Errorf("with another file: id %s, want %s", db.MasterID(), other)
	}
	mustClose(t, db)
	if !strings.Contains(log.String(), "another master") {
		t.Errorf("the change is not logged: %s", &log)
	}
}

func TestBackupIsAWholeState(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{Sync: SyncInterval})
	put(t, db, records.PutWorker(fullWorker("worker-0")))
	add(t, db, 41)
	to := t.TempDir()
	for range 2 { // the second replaces the first
		add(t, db, 1)
		if err := backUpTo(db, filepath.Join(to, statedir.DatabaseName)); err != nil {
			t.Fatal(err)
		}
	}
	s := checkFiles(t, to)
	if s.Processed != 43 || len(s.Workers) != 1 {
		t.Errorf("backup has %d processed, %d workers; want 43, 1", s.Processed, len(s.Workers))
	}
	if err := backUpTo(db, filepath.Join(to, "no such folder", "x")); err == nil {
		t.Error("a backup to nowhere succeeded")
	}
}

func TestUnusableDirectories(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		db, err := Open(dir, Options{})
		if err == nil {
			t.Fatalf("%s: opened", dir)
		}
		if db != nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "choose") {
			t.Errorf("%s: %v: want the name and a next step", dir, err)
		}
	}
	if os.Getuid() == 0 {
		t.Log("a superuser can write anywhere: the rest is not tried")
		return
	}
	if err := os.Chmod(base, 0o500); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, filepath.Join(base, "new")} {
		if _, err := Open(dir, Options{}); !errors.Is(err, os.ErrPermission) ||
			!strings.Contains(err.Error(), "choose") {
			t.Errorf("%s: %v: want a permission error with a next step", dir, err)
		}
	}
}

func TestNewDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	db := openTest(t, dir, Options{})
	for path, want := range map[string]os.FileMode{
		dir: 0o700, filepath.Join(dir, statedir.DatabaseName): 0o600, filepath.Join(dir, statedir.CounterName): 0o600,
		filepath.Join(dir, statedir.MasterIDName): 0o600, filepath.Join(dir, statedir.LockName): 0o600,
	} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v (%v)", path, fi.Mode().Perm(), want, err)
		}
	}
	mustClose(t, db)
}

func TestAliveAnswers(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	var before uint64
	if err := db.flow.View(func(tx *bolt.Tx) error {
		before = uint64(tx.ID())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := db.Alive(ctx); err != nil {
		t.Error(err)
	}
	mustClose(t, db)
	after := boltfile.LastTx(filepath.Join(db.Dir(), statedir.DatabaseName))
	if after != before+1 { // the commit of Close
		t.Errorf("being asked has written: transaction %d, was %d", after, before)
	}
}
