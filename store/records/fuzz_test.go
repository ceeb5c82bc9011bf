package records

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/google/go-cmp/cmp"
)

// Every value that can be decoded can also be encoded and decodes to the same value again.

func FuzzWorker(f *testing.F) {
	for _, w := range sample().Workers {
		b, err := encodeWorker(w)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w.ID, b)
	}
	f.Add("", []byte(nil))
	f.Add("worker-0", []byte("\x0a\x08worker-0\x18\x63"))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		w, err := decodeWorker(key, value)
		if err != nil {
			return
		}
		if w.ID != key || key == "" || w.Port < 0 || w.Port > maxPort {
			t.Errorf("under %q: %+v", key, w)
		}
		if i := w.Instance; i != nil && (i.PID < 0 || i.Port < 0 || i.Port > maxPort) {
			t.Errorf("instance %+v", i)
		}
		if w, err := decodeWorker(key+"0", value); err == nil {
			t.Errorf("under another key too: %+v", w)
		}
		b, err := encodeWorker(w)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", w, err)
		}
		again, err := decodeWorker(key, b)
		if diff := cmp.Diff(w, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzUnit(f *testing.F) {
	for _, u := range sample().Units {
		b, err := encodeUnit(u)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(u.Name, b)
		f.Add(u.Name, append(b, "\xfa\x3e\x03abc"...)) // an unknown field
		f.Add(u.Name, b[:len(b)-1])
	}
	f.Add("", []byte(nil))
	f.Add("worker", []byte("\x0a\x06worker\x10\x63"))                                     // an unknown kind
	f.Add("worker", []byte("\x0a\x06worker\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")) // -1 replicas
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		u, err := decodeUnit(key, value)
		if err != nil {
			return
		}
		if u.Name != key || key == "" || u.Replicas < 0 || u.Wanted() < 0 || u.Retired && u.Wanted() != 0 {
			t.Errorf("under %q: %+v", key, u)
		}
		if u, err := decodeUnit(key+"0", value); err == nil {
			t.Errorf("under another key too: %+v", u)
		}
		b, err := encodeUnit(u)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", u, err)
		}
		again, err := decodeUnit(key, b)
		if diff := cmp.Diff(u, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzEvent(f *testing.F) {
	for _, e := range sample().Events {
		b, err := encodeEvent(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := decodeEvent(value)
		if err != nil {
			return
		}
		b, err := encodeEvent(e)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", e, err)
		}
		again, err := decodeEvent(b)
		if diff := cmp.Diff(e, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzMeta(f *testing.F) {
	for _, m := range []Meta{sample().Meta, {MasterID: sample().Meta.MasterID, CountShortSince: sampleTime}} {
		b, err := encodeMeta(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		m, err := decodeMeta(value)
		if err != nil {
			return
		}
		b, err := encodeMeta(m)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", m, err)
		}
		again, err := decodeMeta(b)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

func FuzzResult(f *testing.F) {
	for i, r := range sampleResults {
		b, err := EncodeResult(StoredResult{Result: r, Sequence: uint64(i), BootTime: time.Hour, BootID: "b"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(r.ID), b)
		f.Add([]byte(r.ID+"\n"), b)
		f.Add([]byte(r.ID), b[:len(b)/2])
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := DecodeResult(key, value)
		if err != nil {
			return
		}
		if CheckRequestID(r.ID) != nil || r.ID != string(key) || len(r.Response) > MaxResponse ||
			r.LeftOut && len(r.Response) > 0 || r.BootTime < 0 {
			t.Errorf("under %q: %+v", key, r)
		}
		b, err := EncodeResult(r)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", r, err)
		}
		again, err := DecodeResult(key, b)
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(StoredResult{})); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// FuzzRecords puts any record into a bucket. The record must be read or reported as bad, with a key and a message
// in valid UTF-8, and must not hide the other records.
func FuzzRecords(f *testing.F) {
	worker, err := encodeWorker(sampleWorker("worker-1"))
	if err != nil {
		f.Fatal(err)
	}
	number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	f.Add(byte(0), []byte("worker-1"), worker)
	f.Add(byte(0), []byte("worker-\xff\x1b"), worker)
	f.Add(byte(1), []byte{0, 0, 0, 0, 0, 0, 0, 9}, []byte("\x1a\x01\xff"))
	f.Add(byte(1), []byte("short"), []byte{})
	f.Add(byte(2), KeyProcessed, number(7))
	f.Add(byte(2), KeyProcessed, number(1<<63))
	f.Add(byte(2), KeyProcessed, []byte("7"))
	f.Add(byte(2), keyCountedAt, number(1<<63))
	f.Add(byte(2), keyKeyed, number(3))
	f.Add(byte(2), keyKeyed, number(1<<40))
	f.Add(byte(2), keyKeyed, []byte("3"))
	f.Add(byte(4), []byte("request"), []byte("\x12\x01x"))
	f.Add(byte(4), []byte("request \xff"), []byte{})
	f.Add(byte(3), KeyMeta, []byte("\x0a\x02no"))
	f.Add(byte(3), migrations.KeyVersion, number(1))
	f.Add(byte(5), []byte("pkg.A a:1"), []byte("\x0a\x05pkg.A\x12\x03a:1"))
	f.Add(byte(5), []byte("pkg.A b:1"), []byte("\x0a\x05pkg.A\x12\x03a:1"))
	f.Add(byte(3), migrations.KeyVersion, number(migrations.Current()+1))
	f.Add(byte(6), []byte("worker"), []byte("\x0a\x05other"))
	f.Add(byte(6), []byte("other"), []byte("\x0a\x05other"))
	f.Add(byte(6), []byte("\xff"), []byte("\x0a\x01\xff"))
	sound := soundTables(f)
	before, err := sound.Snapshot()
	if err != nil || len(before.Bad) > 0 {
		f.Fatal(before.Bad, err)
	}
	f.Fuzz(func(t *testing.T, bucket byte, key, value []byte) {
		names := [][]byte{
			migrations.BucketWorkers, migrations.BucketEvents, migrations.BucketCounters, migrations.BucketMeta,
			migrations.BucketRequests, migrations.BucketServices, migrations.BucketUnits,
		}
		name := string(names[int(bucket)%len(names)])
		all, replaced := Tables{}, false
		for bucket, rows := range sound {
			all[bucket] = slices.Clone(rows)
		}
		for i, p := range all[name] {
			if bytes.Equal(p.Key, key) {
				all[name][i].Value, replaced = value, true
			}
		}
		if !replaced {
			all[name] = append(all[name], Pair{key, value})
		}
		after, err := all.Snapshot()
		if err != nil {
			if version, _ := all.Version(); name != string(migrations.BucketMeta) ||
				!bytes.Equal(key, migrations.KeyVersion) || version > 0 {
				t.Errorf("%s %q: %v", name, key, err)
			}
			return
		}
		for what, reason := range after.Bad {
			if !utf8.ValidString(what) || reason == nil || !utf8.ValidString(reason.Error()) {
				t.Errorf("%q cannot be read: %q", what, reason)
			}
		}
		rows := 0
		for _, counted := range [][]byte{
			migrations.BucketWorkers, migrations.BucketEvents, migrations.BucketRequests, migrations.BucketServices,
			migrations.BucketUnits,
		} {
			rows += len(all[string(counted)])
		}
		read := len(after.Workers) + len(after.Events) + after.Results + len(after.Registered) + len(after.Units)
		bad := len(after.Bad)
		for _, own := range []string{"meta/record", "counters/processed_count", "counters/keyed_count"} {
			if after.Bad[own] != nil {
				bad--
			}
		}
		if rows != read+bad {
			t.Errorf("%d records, %d read and %d bad: %v", rows, read, bad, after.Bad)
		}
		if name == string(migrations.BucketEvents) && len(key) != 8 && len(after.Events) != len(before.Events) {
			t.Errorf("an event under %q is read", key)
		}
		if after.Processed < 0 || all.CountedAt().Location() != time.UTC {
			t.Errorf("processed %d, counted at %s", after.Processed, all.CountedAt())
		}
		// The previous records are still present, except for the replaced one.
		if name != string(migrations.BucketWorkers) && !cmp.Equal(before.Workers, after.Workers) ||
			name == string(migrations.BucketWorkers) && !replaced && len(after.Workers) < len(before.Workers) {
			t.Errorf("workers %+v", after.Workers)
		}
		if name != string(migrations.BucketUnits) && !cmp.Equal(before.Units, after.Units) ||
			name == string(migrations.BucketUnits) && !replaced && len(after.Units) < len(before.Units) {
			t.Errorf("units %+v", after.Units)
		}
		if name != string(migrations.BucketMeta) && !cmp.Equal(before.Meta, after.Meta) {
			t.Errorf("meta %+v", after.Meta)
		}
	})
}

// soundTables returns the buckets of a small database.
func soundTables(t testing.TB) Tables {
	t.Helper()
	encoded := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	some := sample()
	all := Tables{}
	for _, w := range some.Workers {
		all["workers"] = append(all["workers"], Pair{[]byte(w.ID), encoded(encodeWorker(w))})
	}
	for _, u := range some.Units {
		all["units"] = append(all["units"], Pair{[]byte(u.Name), encoded(encodeUnit(u))})
	}
	for i, e := range some.Events {
		all["events"] = append(all["events"], Pair{[]byte{0, 0, 0, 0, 0, 0, 0, byte(i)}, encoded(encodeEvent(e))})
	}
	all["services"], all["requests"] = []Pair{}, []Pair{}
	for i, r := range sampleResults {
		all["requests"] = append(all["requests"],
			Pair{[]byte(r.ID), encoded(EncodeResult(StoredResult{Result: r, Sequence: uint64(i)}))})
	}
	all["counters"] = []Pair{{KeyProcessed, []byte{0, 0, 0, 0, 0, 0, 0, 9}}}
	all["meta"] = []Pair{
		{migrations.KeyVersion, binary.BigEndian.AppendUint64(nil, migrations.Current())},
		{KeyMeta, encoded(encodeMeta(some.Meta))},
	}
	return all
}

func FuzzRegistration(f *testing.F) {
	for _, r := range []Registration{
		{Service: "pkg.A", Address: "a:1", TTL: time.Second, Registered: sampleTime},
		{Service: "pkg.A", Address: "[::1]:1"},
	} {
		b, err := encodeRegistration(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(registrationKey(r.Service, r.Address), b)
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		r, err := decodeRegistration(key, value)
		if err != nil {
			return
		}
		b, err := encodeRegistration(r)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", r, err)
		}
		again, err := decodeRegistration(key, b)
		if diff := cmp.Diff(r, again); err != nil || diff != "" || registrationKey(r.Service, r.Address) != key {
			t.Errorf("%v %s", err, diff)
		}
	})
}
