package store

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRegistrationsComeBack(t *testing.T) {
	dir := t.TempDir()
	db := openTest(t, dir, Options{})
	a := Registration{Service: "pkg.A", Address: "10.0.0.1:80", TTL: 30 * time.Second, Registered: testTime}
	b := Registration{Service: "pkg.B", Address: "[::1]:80", Registered: testTime}
	apply(t, db,
		PutRegistration(b), PutRegistration(Registration{Service: a.Service, Address: a.Address}), PutRegistration(a))
	apply(t, db, PutRegistration(Registration{Service: "pkg.B", Address: "gone:1"}),
		DeleteRegistration("pkg.B", "gone:1"), DeleteRegistration("pkg.B", "never:1"))
	snap, err := db.Snapshot()
	if diff := cmp.Diff([]Registration{a, b}, snap.Registered); err != nil || diff != "" {
		t.Errorf("%v, registrations (-want +got):\n%s", err, diff)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	snap, err = ReadSnapshot(dir)
	if diff := cmp.Diff([]Registration{a, b}, snap.Registered); err != nil || diff != "" {
		t.Errorf("%v, registrations in the file (-want +got):\n%s", err, diff)
	}
}

func apply(t *testing.T, db *DB, muts ...Mutation) {
	t.Helper()
	if err := db.Apply(t.Context(), muts...); err != nil {
		t.Fatal(err)
	}
}

func TestServicesOfAWorkerComeBack(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	w := fullWorker("worker-0")
	w.Services = []Offer{
		{Name: "pkg.A", Unlisted: true}, {Name: "pkg.B", Reflected: true}, {Name: "pkg.C", Assumed: true},
	}
	apply(t, db, PutWorker(w))
	snap, err := db.Snapshot()
	if diff := cmp.Diff([]Worker{w}, snap.Workers); err != nil || diff != "" {
		t.Errorf("%v, workers (-want +got):\n%s", err, diff)
	}
}

func TestUnstorableRegistrationIsRefused(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	long := strings.Repeat("x", maxRegistrationPart+1)
	for _, r := range []Registration{
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
		if err := db.Apply(t.Context(), PutRegistration(r)); err == nil {
			t.Errorf("%+v was stored", r)
		}
	}
	if err := db.Apply(t.Context(), DeleteRegistration("", "")); err == nil {
		t.Error("a registration without a name was deleted")
	}
}
