package records

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/counterfile"
)

// This file decodes the content of a database, either of an open one or, without bbolt, from its bytes.

// Keys of the buckets meta and counters.
var (
	KeyMeta      = []byte("record")
	KeyProcessed = []byte("processed_count")
	keyKeyed     = []byte("keyed_count")
	keyCountedAt = []byte("counted_at")
)

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// Tables are the top-level buckets by name, each in key order. A missing bucket is not in the map.
type Tables map[string][]Pair

// knownBuckets returns the buckets of the schema of this release.
func knownBuckets() [][]byte { return migrations.Buckets(migrations.Current()) }

// TablesOf reads the buckets that this release knows. The pairs are valid as long as tx is. The bucket of the
// results of requests, which can be many, is present but left empty: see AllTablesOf.
func TablesOf(tx *bolt.Tx) Tables { return readTables(tx, migrations.BucketRequests) }

// AllTablesOf is TablesOf with the results of requests.
func AllTablesOf(tx *bolt.Tx) Tables { return readTables(tx) }

func readTables(tx *bolt.Tx, skipped ...[]byte) Tables {
	t := make(Tables)
	for _, name := range knownBuckets() {
		b := tx.Bucket(name)
		if b == nil {
			continue
		}
		rows := []Pair{}
		if slices.ContainsFunc(skipped, func(s []byte) bool { return bytes.Equal(s, name) }) {
			t[string(name)] = rows
			continue
		}
		_ = b.ForEach(func(k, v []byte) error {
			rows = append(rows, Pair{k, v})
			return nil
		})
		t[string(name)] = rows
	}
	return t
}

// CheckBuckets returns an error if a bucket of the database's schema is missing: that is damage, not an empty
// registry.
func (t Tables) CheckBuckets() error {
	version, err := t.Version()
	if err != nil {
		return err
	}
	for _, name := range migrations.Buckets(version) {
		if _, ok := t[string(name)]; !ok {
			return fmt.Errorf("bucket %s is missing", name)
		}
	}
	return nil
}

// Equal reports whether both have the same buckets with the same pairs.
func (t Tables) Equal(other Tables) bool {
	return maps.EqualFunc(t, other, func(rows, more []Pair) bool {
		return slices.EqualFunc(rows, more, func(a, b Pair) bool {
			return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
		})
	})
}

func (t Tables) get(bucket, key []byte) []byte {
	for _, p := range t[string(bucket)] {
		if string(p.Key) == string(key) {
			return p.Value
		}
	}
	return nil
}

func (t Tables) Version() (uint64, error) {
	return migrations.ParseVersion(t.get(migrations.BucketMeta, migrations.KeyVersion))
}

// Meta decodes the database's own record.
func (t Tables) Meta() (Meta, error) {
	v := t.get(migrations.BucketMeta, KeyMeta)
	if v == nil {
		return Meta{}, errors.New("there is no record of the database itself")
	}
	return decodeMeta(v)
}

// Processed decodes the count.
func (t Tables) Processed() (int64, error) {
	v := t.get(migrations.BucketCounters, KeyProcessed)
	if len(v) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", KeyProcessed, len(v))
	}
	count := int64(binary.BigEndian.Uint64(v))
	if count < 0 {
		return 0, fmt.Errorf("%s is %d", KeyProcessed, count)
	}
	return count, nil
}

// keyed decodes how many of the processed requests were counted by CountOnce. If the value cannot be read, it also
// returns counterfile.UnknownKeyed. A database of the first release has no such value; keyed then returns 0.
func (t Tables) keyed(processed int64) (int64, error) {
	v := t.get(migrations.BucketCounters, keyKeyed)
	if v == nil {
		return 0, nil
	}
	if len(v) != 8 {
		return counterfile.UnknownKeyed, fmt.Errorf("%s has %d bytes, want 8", keyKeyed, len(v))
	}
	keyed := int64(binary.BigEndian.Uint64(v))
	if keyed < 0 || keyed > processed {
		return counterfile.UnknownKeyed, fmt.Errorf("%s is %d of %d", keyKeyed, keyed, processed)
	}
	return keyed, nil
}

// Tally decodes the count and its keyed part. An unreadable keyed part is not an error here; Snapshot reports it.
func (t Tables) Tally() (counterfile.Tally, error) {
	processed, err := t.Processed()
	if err != nil {
		return counterfile.Tally{}, err
	}
	keyed, _ := t.keyed(processed)
	return counterfile.Tally{Processed: processed, Keyed: keyed}, nil
}

// CountedAt returns the time when the count was written: everything acknowledged before is in it. It returns zero
// if the time is not known.
func (t Tables) CountedAt() time.Time {
	v := t.get(migrations.BucketCounters, keyCountedAt)
	if len(v) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(v))).UTC()
}

// Snapshot decodes every record. Records that cannot be read are in Bad.
func (t Tables) Snapshot() (Snapshot, error) {
	bad := make(badRecords)
	s := Snapshot{Bad: bad}
	var err error
	if s.SchemaVersion, err = t.Version(); err != nil {
		return Snapshot{}, err
	}
	if s.Meta, err = t.Meta(); err != nil {
		bad.add(migrations.BucketMeta, string(KeyMeta), err)
	}
	if s.Processed, err = t.Processed(); err != nil {
		bad.add(migrations.BucketCounters, string(KeyProcessed), err)
	} else if _, err = t.keyed(s.Processed); err != nil {
		bad.add(migrations.BucketCounters, string(keyKeyed), err)
	}
	s.Workers = decoded(t, migrations.BucketWorkers, decodeWorker, bad)
	s.Units = decoded(t, migrations.BucketUnits, decodeUnit, bad)
	s.Registered = decoded(t, migrations.BucketServices, decodeRegistration, bad)
	for _, p := range t[string(migrations.BucketEvents)] {
		e, err := decodeEvent(p.Value)
		if err == nil && len(p.Key) != 8 {
			err = fmt.Errorf("key of %d bytes", len(p.Key))
		}
		if err != nil {
			bad.add(migrations.BucketEvents, eventName(p.Key), err)
			continue
		}
		s.Events = append(s.Events, e)
	}
	for _, p := range t[string(migrations.BucketRequests)] {
		if _, err := DecodeResult(p.Key, p.Value); err != nil {
			bad.add(migrations.BucketRequests, string(p.Key), err)
			continue
		}
		s.Results++
	}
	for _, name := range migrations.Buckets(s.SchemaVersion) {
		if _, found := t[string(name)]; !found {
			bad.add(name, "", fmt.Errorf("bucket %s is missing", name))
		}
	}
	slices.SortFunc(s.Workers, func(a, b Worker) int { return compareIDs(a.ID, b.ID) })
	return s, nil
}

// badRecords has the errors of the records that cannot be read, by bucket and key.
type badRecords map[string]error

func (b badRecords) add(bucket []byte, key string, err error) {
	b[string(bucket)+"/"+ShownKey(key)] = err
}

// decoded returns the records of a bucket that can be read, and adds the others to bad.
func decoded[T any](t Tables, bucket []byte, decode func(key string, value []byte) (T, error), bad badRecords) []T {
	var found []T
	for _, p := range t[string(bucket)] {
		v, err := decode(string(p.Key), p.Value)
		if err != nil {
			bad.add(bucket, string(p.Key), err)
			continue
		}
		found = append(found, v)
	}
	return found
}

// ShownKey returns the key in a form that can be sent and displayed: the key itself may be damaged.
func ShownKey(key string) string {
	if utf8.ValidString(key) {
		return key
	}
	quoted := strconv.Quote(key)
	return quoted[1 : len(quoted)-1]
}

func eventName(k []byte) string {
	if len(k) != 8 {
		return fmt.Sprintf("0x%x", k) // not the key of an event
	}
	return fmt.Sprint(binary.BigEndian.Uint64(k))
}

// ReadAll reads every record except the results of requests. Records that cannot be read are in Bad.
func ReadAll(tx *bolt.Tx) (Snapshot, error) { return TablesOf(tx).Snapshot() }

// ReadPresent is ReadAll without the events, which are most of the records.
func ReadPresent(tx *bolt.Tx) (Snapshot, error) {
	return readTables(tx, migrations.BucketRequests, migrations.BucketEvents).Snapshot()
}

// NewerSchemaError means that a newer release wrote the database.
type NewerSchemaError struct {
	Path         string
	Found, Known uint64
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("state file %s has schema version %d, this program knows up to %d: "+
		"use the release that wrote it, or a newer one", e.Path, e.Found, e.Known)
}

// Content is the whole content of a database file.
type Content struct {
	Snapshot
	Sequence  uint64            // number of the last transaction
	CountedAt time.Time         // see Tables.CountedAt
	Count     counterfile.Tally // zero if it cannot be read
	// Strange are the buckets that this release does not know.
	Strange []string
	Tables  Tables
}

// Countless reports whether the count cannot be read.
func (c Content) Countless() bool {
	return c.Bad[string(migrations.BucketCounters)+"/"+string(KeyProcessed)] != nil
}

// ReadContent checks every page of a database and decodes every record, without bbolt, which trusts its input. If
// it returns no error, bbolt can open the database. Records that cannot be read are in Bad and do not hide the
// others. If the schema is newer than known, the error is a [NewerSchemaError].
func ReadContent(r io.ReaderAt, size int64, known uint64) (Content, error) {
	img, err := boltfile.OpenImage(r, size)
	if err != nil {
		return Content{}, err
	}
	return ContentOf(img, known)
}

// ContentOf is ReadContent for an image.
func ContentOf(img *boltfile.Image, known uint64) (Content, error) {
	c := Content{Sequence: img.Meta.TxID, Tables: make(Tables)}
	if err := img.Walk(true, c.Tables.add); err != nil {
		return Content{}, err
	}
	if err := c.Tables.check(known); err != nil {
		return Content{}, err
	}
	var err error
	if c.Snapshot, err = c.Tables.Snapshot(); err != nil {
		return Content{}, err
	}
	c.CountedAt = c.Tables.CountedAt()
	c.Count, _ = c.Tables.Tally() // the error, if any, is in Bad
	for name := range c.Tables {
		if !slices.ContainsFunc(knownBuckets(), func(known []byte) bool { return string(known) == name }) {
			c.Strange = append(c.Strange, name)
		}
	}
	slices.Sort(c.Strange)
	return c, nil
}

// add adds a value that a walk through an image visits.
func (t Tables) add(path []string, key, value []byte) {
	switch {
	case len(path) == 0: // a value outside of any bucket, which bbolt refuses to write
	case len(path) == 1 && key == nil:
		t[path[0]] = []Pair{}
	case len(path) == 1:
		t[path[0]] = append(t[path[0]], Pair{key, value})
	case len(path) == 2 && key == nil: // a bucket in the place of a record
		t[path[0]] = append(t[path[0]], Pair{[]byte(path[1]), nil})
	}
}

// check returns an error if the schema is newer than known, or a bucket of it is missing.
func (t Tables) check(known uint64) error {
	found, err := t.Version()
	if err != nil {
		return err
	}
	if found > known {
		return &NewerSchemaError{Found: found, Known: known}
	}
	return t.CheckBuckets()
}

// PresentOf is ContentOf without the events and the results, whose pages it does not read.
func PresentOf(img *boltfile.Image, known uint64) (Snapshot, error) {
	t := make(Tables)
	within := func(bucket string) bool {
		return bucket != string(migrations.BucketEvents) && bucket != string(migrations.BucketRequests)
	}
	if err := img.WalkBuckets(within, t.add); err != nil {
		return Snapshot{}, err
	}
	if err := t.check(known); err != nil {
		return Snapshot{}, err
	}
	return t.Snapshot()
}

// CheckCopy checks every page of the database that was just written to f, and that its records are present.
func CheckCopy(f *os.File, known uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := boltfile.OpenImage(f, fi.Size())
	if err == nil {
		err = img.Damaged
	}
	if err == nil {
		_, err = ContentOf(img, known)
	}
	if err != nil {
		return fmt.Errorf("the copy is damaged: %w", err)
	}
	return nil
}

// compareIDs orders ids naturally: worker-2 before worker-10.
func compareIDs(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx == "" || dy == "" {
			if x[0] != y[0] {
				return cmp.Compare(x[0], y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		nx, ny := strings.TrimLeft(dx, "0"), strings.TrimLeft(dy, "0")
		if c := cmp.Or(cmp.Compare(len(nx), len(ny)), strings.Compare(nx, ny)); c != 0 {
			return c
		}
		x, y = x[len(dx):], y[len(dy):]
	}
	// Either they differ only in leading zeros, or one is a prefix of the other.
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

// digits returns the leading decimal digits of s, or "".
func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

func FirstBad(bad map[string]error) string {
	keys := make([]string, 0, len(bad))
	for key := range bad {
		keys = append(keys, key)
	}
	return slices.Min(keys)
}
