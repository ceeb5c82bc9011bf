package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/statefile"
)

// Every value that can be decoded can also be encoded and decodes to the same value again.

func FuzzWorker(f *testing.F) {
	for _, w := range append(goldenV1().Workers, Worker{ID: "x", Desired: DesiredStopped, Status: StatusBackoff}) {
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

func FuzzEvent(f *testing.F) {
	for _, e := range goldenV1().Events {
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
	for _, m := range []Meta{goldenV1().Meta, {MasterID: goldenV1().Meta.MasterID, CountShortSince: testTime}} {
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
	for i, r := range goldenResults {
		b, err := encodeResult(record{Result: r, sequence: uint64(i), bootTime: time.Hour, bootID: "b"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(r.ID), b)
		f.Add([]byte(r.ID+"\n"), b)
		f.Add([]byte(r.ID), b[:len(b)/2])
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := decodeResult(key, value)
		if err != nil {
			return
		}
		if CheckRequestID(r.ID) != nil || r.ID != string(key) || len(r.Response) > MaxResponse ||
			r.LeftOut && len(r.Response) > 0 || r.bootTime < 0 {
			t.Errorf("under %q: %+v", key, r)
		}
		b, err := encodeResult(r)
		if err != nil {
			t.Fatalf("%+v decodes and cannot be encoded: %v", r, err)
		}
		again, err := decodeResult(key, b)
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(record{})); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	})
}

// FuzzRecords puts any record into a bucket. The record must be read or reported as bad, with a key and a message
// in valid UTF-8, and must not hide the other records.
func FuzzRecords(f *testing.F) {
	worker, err := encodeWorker(fullWorker("worker-1"))
	if err != nil {
		f.Fatal(err)
	}
	number := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	f.Add(byte(0), []byte("worker-1"), worker)
	f.Add(byte(0), []byte("worker-\xff\x1b"), worker)
	f.Add(byte(1), []byte{0, 0, 0, 0, 0, 0, 0, 9}, []byte("\x1a\x01\xff"))
	f.Add(byte(1), []byte("short"), []byte{})
	f.Add(byte(2), keyProcessed, number(7))
	f.Add(byte(2), keyProcessed, number(1<<63))
	f.Add(byte(2), keyProcessed, []byte("7"))
	f.Add(byte(2), keyCountedAt, number(1<<63))
	f.Add(byte(2), keyKeyed, number(3))
	f.Add(byte(2), keyKeyed, number(1<<40))
	f.Add(byte(2), keyKeyed, []byte("3"))
	f.Add(byte(4), []byte("request"), []byte("\x12\x01x"))
	f.Add(byte(4), []byte("request \xff"), []byte{})
	f.Add(byte(3), keyMeta, []byte("\x0a\x02no"))
	f.Add(byte(3), migrations.KeyVersion, number(1))
	f.Add(byte(5), []byte("pkg.A a:1"), []byte("\x0a\x05pkg.A\x12\x03a:1"))
	f.Add(byte(5), []byte("pkg.A b:1"), []byte("\x0a\x05pkg.A\x12\x03a:1"))
	f.Add(byte(3), migrations.KeyVersion, number(migrations.Current()+1))
	sound := soundTables(f)
	before, err := sound.snapshot()
	if err != nil || len(before.Bad) > 0 {
		f.Fatal(before.Bad, err)
	}
	f.Fuzz(func(t *testing.T, bucket byte, key, value []byte) {
		names := [][]byte{
			migrations.BucketWorkers, migrations.BucketEvents, migrations.BucketCounters, migrations.BucketMeta,
			migrations.BucketRequests, migrations.BucketServices,
		}
		name := string(names[int(bucket)%len(names)])
		all, replaced := tables{}, false
		for bucket, rows := range sound {
			all[bucket] = slices.Clone(rows)
		}
		for i, p := range all[name] {
			if bytes.Equal(p.key, key) {
				all[name][i].value, replaced = value, true
			}
		}
		if !replaced {
			all[name] = append(all[name], pair{key, value})
		}
		after, err := all.snapshot()
		if err != nil {
			if version, _ := all.version(); name != string(migrations.BucketMeta) ||
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
		rows := len(all[string(migrations.BucketWorkers)]) + len(all[string(migrations.BucketEvents)]) +
			len(all[string(migrations.BucketRequests)]) + len(all[string(migrations.BucketServices)])
		read := len(after.Workers) + len(after.Events) + after.Results + len(after.Registered)
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
		if after.Processed < 0 || all.countedAt().Location() != time.UTC {
			t.Errorf("processed %d, counted at %s", after.Processed, all.countedAt())
		}
		// The previous records are still present, except for the replaced one.
		if name != string(migrations.BucketWorkers) && !cmp.Equal(before.Workers, after.Workers) ||
			name == string(migrations.BucketWorkers) && !replaced && len(after.Workers) < len(before.Workers) {
			t.Errorf("workers %+v", after.Workers)
		}
		if name != string(migrations.BucketMeta) && !cmp.Equal(before.Meta, after.Meta) {
			t.Errorf("meta %+v", after.Meta)
		}
	})
}

// soundTables returns the buckets of a small database.
func soundTables(t testing.TB) tables {
	t.Helper()
	encoded := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	golden := goldenV1()
	all := tables{}
	for _, w := range golden.Workers {
		all["workers"] = append(all["workers"], pair{[]byte(w.ID), encoded(encodeWorker(w))})
	}
	for i, e := range golden.Events {
		all["events"] = append(all["events"], pair{[]byte{0, 0, 0, 0, 0, 0, 0, byte(i)}, encoded(encodeEvent(e))})
	}
	all["services"], all["requests"] = []pair{}, []pair{}
	for i, r := range goldenResults {
		all["requests"] = append(all["requests"],
			pair{[]byte(r.ID), encoded(encodeResult(record{Result: r, sequence: uint64(i)}))})
	}
	all["counters"] = []pair{{keyProcessed, []byte{0, 0, 0, 0, 0, 0, 0, 9}}}
	all["meta"] = []pair{
		{migrations.KeyVersion, binary.BigEndian.AppendUint64(nil, migrations.Current())},
		{keyMeta, encoded(encodeMeta(golden.Meta))},
	}
	return all
}

// FuzzMasterID generates the content of the file master-id.
func FuzzMasterID(f *testing.F) {
	id := goldenV1().Meta.MasterID
	for _, s := range []string{
		id + "\n", id, strings.ToUpper(id), id[1:], "-" + id[1:], "", strings.Repeat(id, 20), id + "\x00", "\x1b[2J",
		id[:18] + id[19:20] + "-" + id[20:],
	} {
		f.Add([]byte(s))
	}
	dir := quickDir(f)
	shape := regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, masterIDName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := readMasterID(dir)
		if err != nil {
			if id != "" || !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q beside %q", id, err)
			}
			return
		}
		if !shape.MatchString(id) || !strings.Contains(string(text), id) {
			t.Errorf("%q is read as %q", text, id)
		}
	})
}

// FuzzHolder generates the content of master.lock.
func FuzzHolder(f *testing.F) {
	for _, s := range []string{"4711\n", "", "-1\n", "0\n", "99999999999999999999\n", "4711\n4712\n", unsettledMark} {
		f.Add([]byte(s))
	}
	dir := quickDir(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, lockName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		pid := holder(dir)
		if pid < 0 || pid > 0 && !strings.HasSuffix(strings.TrimSpace(string(text)), strconv.Itoa(pid)) {
			t.Errorf("%q is read as %d", text, pid)
		}
	})
}

// FuzzBackupName generates the name of a file in the backups folder.
func FuzzBackupName(f *testing.F) {
	made := backupFile{sequence: 42, schema: 1, made: testTime}
	for _, s := range []string{
		made.name(), made.name() + statefile.TempSuffix, strings.Replace(made.name(), "schema1", "schema01", 1),
		"state-0000000000000042-schema1-20261399T999999Z.db",
		"state-18446744073709551616-schema1-20260203T040506Z.db", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		b, ok := parseBackupName(name)
		if ok && b.name() != name {
			t.Errorf("%q is read as %+v, which is %q", name, b, b.name())
		}
		if !ok && b != (backupFile{}) {
			t.Errorf("%+v of %q", b, name)
		}
	})
}

// FuzzPages changes up to three places of a good database. The walk must end, and if it accepts the database, bbolt
// must be able to read and write it.
func FuzzPages(f *testing.F) {
	dir, content := damagedState(f)
	img, err := boltfile.OpenImage(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		f.Fatal(err)
	}
	content = content[:img.Meta.HighWater*img.Meta.PageSize]
	f.Add(uint32(img.Meta.Root*img.Meta.PageSize), uint32(0), uint32(0), uint64(1), uint64(0), uint64(0))
	f.Add(uint32(24), uint32(1), uint32(0), uint64(1), uint64(0), uint64(0))
	f.Add(uint32(img.Meta.Root*img.Meta.PageSize), uint32(8), uint32(10), uint64(1), uint64(2), uint64(0xffff))
	f.Add(uint32(img.Meta.Freelist*img.Meta.PageSize+10), uint32(0), uint32(0), uint64(0xffff), uint64(0), uint64(0))
	scratch := filepath.Join(quickDir(f), dbName)
	n := 0
	f.Fuzz(func(t *testing.T, at1, at2, at3 uint32, xor1, xor2, xor3 uint64) {
		b := bytes.Clone(content)
		for _, c := range []struct {
			at  uint32
			xor uint64
		}{{at1, xor1}, {at1 + at2, xor2}, {at1 + at3, xor3}} {
			i := int(c.at) % (len(b) - 8)
			order.PutUint64(b[i:], order.Uint64(b[i:])^c.xor)
		}
		if !agrees(t, scratch, b) {
			return
		}
		if n++; n%10 == 0 {
			tryDamaged(t, dir, fmt.Sprint(n), b, true)
		}
	})
}

// FuzzImage generates a whole database, such as a damaged file or a backup may be. If mend is set, its two meta
// pages get valid checksums, so that their content is accepted.
func FuzzImage(f *testing.F) {
	for _, b := range smallImages(f) {
		f.Add(b, true)
		f.Add(b, false)
		f.Add(b[:len(b)/2], true)
	}
	f.Add([]byte{}, false)
	scratch := filepath.Join(quickDir(f), dbName)
	f.Fuzz(func(t *testing.T, b []byte, mend bool) {
		if b = bytes.Clone(b); mend {
			mendMetas(b)
		}
		agrees(t, scratch, b)
	})
}

// mendMetas puts valid checksums into both meta pages.
func mendMetas(b []byte) {
	if len(b) < pageHeaderSize+metaSize {
		return
	}
	for _, at := range []int{0, int(order.Uint32(b[pageHeaderSize+8:]))} {
		if m := at + pageHeaderSize; m > 0 && m <= len(b)-metaSize {
			order.PutUint64(b[m+56:], metaChecksum(b[m:]))
		}
	}
}

// agrees reads a database without bbolt and, if that succeeds, with bbolt. Both must find the same content.
func agrees(t *testing.T, scratch string, b []byte) bool {
	t.Helper()
	c, err := readContent(bytes.NewReader(b), int64(len(b)), migrations.Current())
	if err != nil {
		if !utf8.ValidString(err.Error()) {
			t.Errorf("error %q", err)
		}
		return false
	}
	overwrite(t, scratch, b)
	s, err := ReadSnapshot(filepath.Dir(scratch))
	if err != nil {
		t.Errorf("it is read without bbolt, with it: %v", err)
		return true
	}
	if diff := cmp.Diff(withoutErrors(c.Snapshot), withoutErrors(s)); diff != "" {
		t.Errorf("read without bbolt, and with it: %s", diff)
	}
	if c.Sequence == 0 && len(c.Workers)+len(c.Events) > 0 {
		t.Errorf("sequence %d", c.Sequence)
	}
	return true
}
