package store

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/identity"
	"github.com/core-tools/hsu-master/internal/crashpoint"
	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
	"github.com/core-tools/hsu-master/store/statefile"
)

// goldenV1 is the content of testdata/schema-v1/state.db.
func goldenV1() records.Snapshot {
	return records.Snapshot{
		SchemaVersion: 1,
		Meta: records.Meta{
			MasterID: "6f0c4f7e-3a52-4d4e-9c1d-2f6a7b8c9d0e", Created: testTime,
			StateDir: identity.FileID{Device: 66305, Inode: 4242}, CleanShutdown: true,
		},
		Workers: []records.Worker{
			fullWorker("worker-0"),
			{
				ID: "worker-1", Unit: "unit",
				Desired: records.DesiredRunning, Status: records.StatusStarting, Incarnation: 1,
				Instance: &records.Instance{
					Token: "ffeeddccbbaa99887766554433221100", Port: 40002,
					Started: testTime.Add(time.Minute),
				},
			},
			{
				ID: "worker-2", Unit: "unit", Desired: records.DesiredStopped, Status: records.StatusFailed,
				Reason: "10 restarts in 5m0s", Incarnation: 11, Restarts: 10,
				LastExit: &identity.Exit{Code: 3, Source: identity.ExitWait, At: testTime},
			},
			{
				ID: "worker-10", Unit: "unit",
				Desired: records.DesiredRunning, Status: records.StatusRunning, Incarnation: 2,
				Instance: &records.Instance{
					Token:   "00",
					Process: identity.Process{PID: 1 << 22, StartTicks: 1, Proof: identity.ProofStartTimeToken},
				},
				LastExit: &identity.Exit{Source: identity.ExitUnknown, At: testTime},
			},
		},
		Bad:       map[string]error{},
		Processed: 123456789,
		Events: []records.Event{
			{Time: testTime, Type: "recovered", Detail: "4 workers"},
			{Time: testTime.Add(time.Second), Worker: "worker-2", Type: "failed", Detail: "10 restarts in 5m0s"},
		},
	}
}

// goldenV2 is the content of testdata/schema-v2/state.db.
func goldenV2() records.Snapshot {
	s := goldenV1()
	s.SchemaVersion = 2
	s.Results = len(goldenResults)
	s.Processed += int64(s.Results)
	s.Workers[0].Services = []records.Offer{{Name: "pkg.Told", Reflected: true}, {Name: "proto.MyBusinessService"}}
	s.Registered = []records.Registration{
		{Service: "pkg.Search", Address: "10.0.0.7:8080", TTL: 30 * time.Second, Registered: testTime},
		{Service: "pkg.Search", Address: "[::1]:8080"},
	}
	return s
}

// goldenV3 is the content of testdata/schema-v3/state.db.
func goldenV3() records.Snapshot {
	s := goldenV2()
	s.SchemaVersion = 3
	s.Units = []records.Unit{
		{Name: "old", Kind: records.KindUnmanaged, Retired: true},
		{
			Name: "unit", Kind: records.KindManaged, Replicas: 2, Scale: new(0), Disabled: true, SpecHash: "spec",
			Changed: testTime,
		},
		{Name: "worker", Kind: records.KindIntegrated, Replicas: 11},
	}
	s.Workers = append([]records.Worker{
		{ID: "old-7", Unit: "old", Desired: records.DesiredStopped, Status: records.StatusStopped},
	}, s.Workers...)
	return s
}

// migratedUnits are the units that the migration derives from the workers of an older database.
var migratedUnits = []records.Unit{{Name: "worker", Replicas: 4}}

// goldenResults are in that database too, stored during an earlier boot.
var goldenResults = []records.Result{
	{
		ID: "order-17", Method: "/proto.MyBusinessService/ProcessData", Digest: sha256.Sum256([]byte("17")),
		Response: []byte("\x0a\x02ok\x10\x01"), Stored: testTime,
	},
	{
		ID: "order-18", Method: "/proto.MyBusinessService/ProcessData", Digest: sha256.Sum256([]byte("18")),
		LeftOut: true, Stored: testTime.Add(time.Minute),
	},
}

// A database written by a release with this version of the schema still opens and has the same content. With
// -update, the database of the newest version is rewritten: never do that once the version has been released.

func TestSchemaV1StillOpens(t *testing.T) { testGolden(t, goldenV1()) }

func TestSchemaV2StillOpens(t *testing.T) { testGolden(t, goldenV2()) }

func TestSchemaV3StillOpens(t *testing.T) { testGolden(t, goldenV3()) }

func TestEverySchemaHasItsGoldenDatabase(t *testing.T) {
	made, err := filepath.Glob(filepath.Join("..", "testdata", "schema-v*", statedir.DatabaseName))
	if err != nil || uint64(len(made)) != migrations.Current() {
		t.Errorf("there are %v, %v; want one for each version up to %d", made, err, migrations.Current())
	}
}

func testGolden(t *testing.T, want records.Snapshot) {
	golden := filepath.Join("..", "testdata", fmt.Sprintf("schema-v%d", want.SchemaVersion), statedir.DatabaseName)
	if *update && want.SchemaVersion == migrations.Current() {
		writeGolden(t, golden, want)
	}
	content, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, statedir.DatabaseName), content, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error("read:", diff)
	}
	db := openTest(t, dir, Options{})
	want.Meta.CleanShutdown = false
	if want.SchemaVersion < 3 {
		want.Units = migratedUnits
	}
	want.SchemaVersion = migrations.Current()
	if diff := cmp.Diff(want, snapshot(t, db)); diff != "" {
		t.Error("opened:", diff)
	}
	if db.MasterID() != want.Meta.MasterID || db.Processed() != want.Processed || !db.Moved() {
		t.Errorf("opened: id %s, processed %d, moved %t", db.MasterID(), db.Processed(), db.Moved())
	}
	if want.Results == 0 {
		return
	}
	for _, r := range goldenResults {
		if got, found, err := db.Result(r.ID); err != nil || !found || !cmp.Equal(r, got) {
			t.Errorf("result %q: %t, %v: %s", r.ID, found, err, cmp.Diff(r, got))
		}
	}
}

func writeGolden(t *testing.T, path string, want records.Snapshot) {
	t.Helper()
	dir := t.TempDir()
	if err := statedir.WriteMasterID((statefile.Ops{}), dir, want.Meta.MasterID); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Duration { return time.Hour }
	db := openSeams(t, dir, Options{BootID: "5c7e1f9e-0000-4000-8000-000000000001", BootTime: clock},
		seams{steps: migrations.All[:want.SchemaVersion]})
	for _, w := range want.Workers {
		put(t, db, records.PutWorker(w))
	}
	for _, u := range want.Units {
		put(t, db, records.PutUnit(u))
	}
	for _, r := range want.Registered {
		put(t, db, records.PutRegistration(r))
	}
	for _, e := range want.Events {
		put(t, db, records.AppendEvent(e))
	}
	add(t, db, want.Processed-int64(want.Results))
	if want.Results > 0 {
		for _, r := range goldenResults {
			mustOnce(t, db, r)
		}
	}
	db.self.Set(want.Meta) // Close writes it
	mustClose(t, db)
	src, img, err := boltfile.Load(filepath.Join(dir, statedir.DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = src.Close() }()
	// Keep only the pages in use, not the spare space of the file.
	if err := (statefile.Ops{}).Replace(crashpoint.Database, path, func(f *os.File) error {
		return img.CopyTo(f)
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}
