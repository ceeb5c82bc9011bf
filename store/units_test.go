package store

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

func TestUnitsComeBack(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	a := records.Unit{
		Name: "a", Kind: records.KindIntegrated, Replicas: 2, Scale: new(0), Disabled: true, SpecHash: "spec",
		Changed: testTime,
	}
	b := records.Unit{Name: "b", Kind: records.KindManaged, Replicas: 1000}
	apply(t, db, records.PutUnit(b), records.PutUnit(records.Unit{Name: "a"}), records.PutUnit(a))
	want := []records.Unit{a, b}
	if diff := cmp.Diff(want, snapshot(t, db).Units); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
	backup, err := db.Backup()
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, db)
	if diff := cmp.Diff(want, checkFiles(t, dir).Units); diff != "" {
		t.Errorf("units in the file (-want +got):\n%s", diff)
	}
	if _, err := Compact(dir); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, checkFiles(t, dir).Units); diff != "" {
		t.Errorf("units in the compacted file (-want +got):\n%s", diff)
	}
	remove(t, filepath.Join(dir, statedir.DatabaseName))
	if diff := cmp.Diff(want, snapshot(t, openTest(t, dir, Options{})).Units); diff != "" {
		t.Errorf("units from %v (-want +got):\n%s", backup, diff)
	}
}

func TestUnstorableUnitIsRefused(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	for _, u := range []records.Unit{
		{},
		{Name: "\xff"},
		{Name: strings.Repeat("x", 1025)},
		{Name: "a", Kind: "other"},
		{Name: "a", Replicas: -1},
		{Name: "a", Replicas: math.MaxInt32 + 1},
		{Name: "a", Scale: new(-1)},
	} {
		if err := db.Apply(t.Context(), records.PutUnit(u)); err == nil {
			t.Errorf("%+v was stored", u)
		}
	}
}

// A retired unit's record goes with its last worker, in the same transaction.
func TestRetiredUnitGoesWithItsLastWorker(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	worker := func(id string) records.Mutation {
		return records.PutWorker(records.Worker{
			ID: id, Unit: "unit", Desired: records.DesiredRunning, Status: records.StatusStopped,
		})
	}
	for _, step := range []struct {
		does string
		muts []records.Mutation
		want string
	}{
		{"all are wanted", []records.Mutation{
			records.PutUnit(records.Unit{Name: "a"}), records.PutUnit(records.Unit{Name: "a-x"}),
			records.PutUnit(records.Unit{Name: "b"}), worker("a-0"), worker("a-10"), worker("a-x-0"), worker("a-y"),
			worker("b"), worker("b-0"),
		}, "a a-x b"},
		{"a wanted unit stays without workers", []records.Mutation{records.DeleteWorker("b-0")}, "a a-x b"},
		{"one retires without workers", []records.Mutation{
			records.PutUnit(records.Unit{Name: "b", Retired: true}),
		}, "a a-x"},
		{"one retires with workers", []records.Mutation{
			records.PutUnit(records.Unit{Name: "a", Retired: true}),
		}, "a a-x"},
		{"one of two workers goes", []records.Mutation{records.DeleteWorker("a-0")}, "a a-x"},
		{"a worker of a unit with a similar name goes", []records.Mutation{records.DeleteWorker("a-x-0")}, "a a-x"},
		{"the last worker goes", []records.Mutation{records.DeleteWorker("a-10")}, "a-x"},
		{"workers of no unit go", []records.Mutation{
			records.DeleteWorker("a-y"), records.DeleteWorker("b"), records.DeleteWorker("never-0"),
		}, "a-x"},
	} {
		apply(t, db, step.muts...)
		var names []string
		for _, u := range snapshot(t, db).Units {
			names = append(names, u.Name)
		}
		if got := strings.Join(names, " "); got != step.want {
			t.Errorf("%s: units %s, want %s", step.does, got, step.want)
		}
	}
}

// A worker's record that cannot be decoded, and an id that names no unit, hinder nobody.
func TestMigrationRecordsTheUnitsOfKnownWorkers(t *testing.T) {
	dir := oldState(t)
	change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
		workers := tx.Bucket(migrations.BucketWorkers)
		for _, id := range []string{"worker-1", "a-b-7", "a-b-12", "alone", "alone-", "-3", "\xff-0"} {
			if err := workers.Put([]byte(id), []byte("damaged")); err != nil {
				return err
			}
		}
		return nil
	})
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, db)
	want := []records.Unit{{Name: "a-b", Replicas: 2}, {Name: "worker", Replicas: 2}}
	s := snapshot(t, db)
	if diff := cmp.Diff(want, s.Units); diff != "" {
		t.Errorf("units (-want +got):\n%s", diff)
	}
	if len(s.Workers) != 1 || len(s.Bad) != 7 {
		t.Errorf("%d workers, bad records %v", len(s.Workers), s.Bad)
	}
}

func TestBadUnitHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	apply(t, db, records.PutUnit(records.Unit{Name: "a"}), records.PutUnit(records.Unit{Name: "b"}))
	mustClose(t, db)
	change(t, filepath.Join(dir, statedir.DatabaseName), func(tx *bolt.Tx) error {
		units := tx.Bucket(migrations.BucketUnits)
		return units.Put([]byte("a"), units.Get([]byte("b"))) // it says that it is of another unit
	})
	p, err := Check(dir)
	if err != nil || p.OK() || !strings.Contains(p[0].What, `it is of unit "b"`) || p[0].Where != "units/a" {
		t.Errorf("check: %v, %v", p, err)
	}
	db = openTest(t, dir, Options{})
	s := snapshot(t, db)
	if len(s.Units) != 1 || s.Units[0].Name != "b" || s.Bad["units/a"] == nil {
		t.Errorf("units %+v, bad %v", s.Units, s.Bad)
	}
	apply(t, db, records.PutUnit(records.Unit{Name: "a"})) // as a start with this unit does
}

func TestCheckFindsARetiredUnitThatIsScaled(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	apply(t, db,
		records.PutWorker(records.Worker{ID: "a-0", Desired: records.DesiredStopped, Status: records.StatusStopped}),
		records.PutUnit(records.Unit{Name: "a", Retired: true, Scale: new(3)}))
	mustClose(t, db)
	if p, err := Check(dir); err != nil || p.OK() || p[0].What != "it is retired, and scaled to 3" {
		t.Errorf("%v, %v", p, err)
	}
}
