package store

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/store/records"
)

func TestRegistrationsComeBack(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	a := records.Registration{Service: "pkg.A", Address: "10.0.0.1:80", TTL: 30 * time.Second, Registered: testTime}
	b := records.Registration{Service: "pkg.B", Address: "[::1]:80", Registered: testTime}
	apply(t, db,
		records.PutRegistration(b), records.PutRegistration(
			records.Registration{Service: a.Service, Address: a.Address},
		), records.PutRegistration(a))
	apply(t, db, records.PutRegistration(records.Registration{Service: "pkg.B", Address: "gone:1"}),
		records.DeleteRegistration("pkg.B", "gone:1"), records.DeleteRegistration("pkg.B", "never:1"))
	snap, err := db.Snapshot()
	if diff := cmp.Diff([]records.Registration{a, b}, snap.Registered); err != nil || diff != "" {
		t.Errorf("%v, registrations (-want +got):\n%s", err, diff)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	snap, err = ReadSnapshot(dir)
	if diff := cmp.Diff([]records.Registration{a, b}, snap.Registered); err != nil || diff != "" {
		t.Errorf("%v, registrations in the file (-want +got):\n%s", err, diff)
	}
}

func apply(t *testing.T, db *DB, muts ...records.Mutation) {
	t.Helper()
	if err := db.Apply(t.Context(), muts...); err != nil {
		t.Fatal(err)
	}
}

func TestServicesOfAWorkerComeBack(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	w := fullWorker("worker-0")
	w.Services = []records.Offer{
		{Name: "pkg.A", Unlisted: true}, {Name: "pkg.B", Reflected: true}, {Name: "pkg.C", Assumed: true},
	}
	apply(t, db, records.PutWorker(w))
	snap, err := db.Snapshot()
	if diff := cmp.Diff([]records.Worker{w}, snap.Workers); err != nil || diff != "" {
		t.Errorf("%v, workers (-want +got):\n%s", err, diff)
	}
}

func TestUnstorableRegistrationIsRefused(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	long := strings.Repeat("x", 513)
	for _, r := range []records.Registration{
		{},
		{Service: "pkg.A"},
		{Address: "a:1"},
		{Service: "pkg A", Address: "a:1"},
		{Service: "pkg.A", Address: "a 1"},
		{Service: "\xff", Address: "a:1"},
		{Service: long, Address: "a:1"},
		{Service: "pkg.A", Address: long},
		{Service: "pkg.A", Address: "a:1", TTL: -1},
	} {
		if err := db.Apply(t.Context(), records.PutRegistration(r)); err == nil {
			t.Errorf("%+v was stored", r)
		}
	}
	if err := db.Apply(t.Context(), records.DeleteRegistration("", "")); err == nil {
		t.Error("a registration without a name was deleted")
	}
}
