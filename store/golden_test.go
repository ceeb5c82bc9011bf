package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
)

// goldenV1 is the content of testdata/schema-v1/state.db.
func goldenV1() Snapshot {
	return Snapshot{
		SchemaVersion: 1,
		Meta: Meta{
			MasterID: "6f0c4f7e-3a52-4d4e-9c1d-2f6a7b8c9d0e", Created: testTime,
			StateDir: FileID{Device: 66305, Inode: 4242}, CleanShutdown: true,
		},
		Workers: []Worker{
			fullWorker("worker-0"),
			{
				ID: "worker-1", Unit: "unit", Desired: DesiredRunning, Status: StatusStarting, Incarnation: 1,
				Instance: &Instance{
					Token: "ffeeddccbbaa99887766554433221100", Proof: ProofNone, Port: 40002,
					Started: testTime.Add(time.Minute),
				},
			},
			{
				ID: "worker-2", Unit: "unit", Desired: DesiredStopped, Status: StatusFailed, Reason: "10 restarts in 5m0s",
				Incarnation: 11, Restarts: 10, LastExit: &Exit{Code: 3, Source: ExitWait, At: testTime},
			},
			{
				ID: "worker-10", Unit: "unit", Desired: DesiredRunning, Status: StatusRunning, Incarnation: 2,
				Instance: &Instance{Token: "00", PID: 1 << 22, StartTicks: 1, Proof: ProofStartTimeToken},
				LastExit: &Exit{Source: ExitUnknown, At: testTime},
			},
		},
		Bad:       map[string]error{},
		Processed: 123456789,
		Events: []Event{
			{Time: testTime, Type: "recovered", Detail: "4 workers"},
			{Time: testTime.Add(time.Second), Worker: "worker-2", Type: "failed", Detail: "10 restarts in 5m0s"},
		},
	}
}

// A database that release 1 of the schema has written still opens, and means
// what it meant. It is never written anew once that schema was released.
func TestSchemaV1StillOpens(t *testing.T) {
	golden := filepath.Join("..", "testdata", "schema-v1", dbName)
	if *update {
		writeGolden(t, golden)
	}
	content, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, dbName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := goldenV1()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("read:", diff)
	}
	db := openTest(t, dir, Options{})
	want.Meta.CleanShutdown = false
	want.SchemaVersion = migrations.Current()
	if diff := cmp.Diff(want, snapshot(t, db)); diff != "" {
		t.Error("opened:", diff)
	}
	if db.MasterID() != want.Meta.MasterID || db.Processed() != want.Processed || !db.Moved() {
		t.Errorf("opened: id %s, processed %d, moved %t", db.MasterID(), db.Processed(), db.Moved())
	}
}

func writeGolden(t *testing.T, path string) {
	t.Helper()
	want, dir := goldenV1(), t.TempDir()
	if err := writeMasterID(dir, want.Meta.MasterID); err != nil {
		t.Fatal(err)
	}
	db := openSeams(t, dir, Options{}, seams{steps: migrations.All[:1]})
	for _, w := range want.Workers {
		put(t, db, PutWorker(w))
	}
	for _, e := range want.Events {
		put(t, db, AppendEvent(e))
	}
	add(t, db, want.Processed)
	db.record = want.Meta // the close writes it
	mustClose(t, db)
	src, img, err := loadImage(filepath.Join(dir, dbName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	// Only the pages in use: no need to keep what the file has to spare.
	if err := replaceFile(path, func(f *os.File) error { return img.writeTo(f) }); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}
