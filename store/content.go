package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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
	keyMeta      = []byte("record")
	keyProcessed = []byte("processed_count")
	keyKeyed     = []byte("keyed_count")
	keyCountedAt = []byte("counted_at")
)

// pair is a key and its value.
type pair struct{ key, value []byte }

// tables are the top-level buckets by name, each in key order. A missing bucket is not in the map.
type tables map[string][]pair

// knownBuckets returns the buckets of the schema of this release.
func knownBuckets() [][]byte { return migrations.Buckets(migrations.Current()) }

// tablesOf reads the buckets that this release knows. The pairs are valid as long as tx is. The bucket of the
// results of requests, which can be many, is present but left empty: see allTablesOf.
func tablesOf(tx *bolt.Tx) tables { return readTables(tx, migrations.BucketRequests) }

// allTablesOf is tablesOf with the results of requests.
func allTablesOf(tx *bolt.Tx) tables { return readTables(tx, nil) }

func readTables(tx *bolt.Tx, skipped []byte) tables {
	t := make(tables)
	for _, name := range knownBuckets() {
		b := tx.Bucket(name)
		if b == nil {
			continue
		}
		rows := []pair{}
		if bytes.Equal(name, skipped) {
			t[string(name)] = rows
			continue
		}
		_ = b.ForEach(func(k, v []byte) error {
			rows = append(rows, pair{k, v})
			return nil
		})
		t[string(name)] = rows
	}
	return t
}

// checkBuckets returns an error if a bucket of the database's schema is missing: that is damage, not an empty
// registry.
func (t tables) checkBuckets() error {
	version, err := t.version()
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

func (t tables) get(bucket, key []byte) []byte {
	for _, p := range t[string(bucket)] {
		if string(p.key) == string(key) {
			return p.value
		}
	}
	return nil
}

func (t tables) version() (uint64, error) {
	return migrations.ParseVersion(t.get(migrations.BucketMeta, migrations.KeyVersion))
}

// meta decodes the database's own record.
func (t tables) meta() (Meta, error) {
	v := t.get(migrations.BucketMeta, keyMeta)
	if v == nil {
		return Meta{}, errors.New("there is no record of the database itself")
	}
	return decodeMeta(v)
}

// processed decodes the count.
func (t tables) processed() (int64, error) {
	v := t.get(migrations.BucketCounters, keyProcessed)
	if len(v) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", keyProcessed, len(v))
	}
	count := int64(binary.BigEndian.Uint64(v))
	if count < 0 {
		return 0, fmt.Errorf("%s is %d", keyProcessed, count)
	}
	return count, nil
}

// keyed decodes how many of the processed requests were counted by CountOnce. If the value cannot be read, it also
// returns counterfile.UnknownKeyed. A database of the first release has no such value; keyed then returns 0.
func (t tables) keyed(processed int64) (int64, error) {
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

// tally decodes the count and its keyed part. An unreadable keyed part is not an error here; snapshot reports it.
func (t tables) tally() (counterfile.Tally, error) {
	processed, err := t.processed()
	if err != nil {
		return counterfile.Tally{}, err
	}
	keyed, _ := t.keyed(processed)
	return counterfile.Tally{Processed: processed, Keyed: keyed}, nil
}

// countedAt returns the time when the count was written: everything acknowledged before is in it. It returns zero
// if the time is not known.
func (t tables) countedAt() time.Time {
	v := t.get(migrations.BucketCounters, keyCountedAt)
	if len(v) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(v))).UTC()
}

// snapshot decodes every record. Records that cannot be read are in Bad.
func (t tables) snapshot() (Snapshot, error) {
	s := Snapshot{Bad: make(map[string]error)}
	bad := func(bucket []byte, key string, err error) {
		s.Bad[string(bucket)+"/"+shownKey(key)] = err
	}
	rows := func(bucket []byte) []pair {
		list, ok := t[string(bucket)]
		if !ok {
			bad(bucket, "", fmt.Errorf("bucket %s is missing", bucket))
		}
		return list
	}
	var err error
	if s.SchemaVersion, err = t.version(); err != nil {
		return Snapshot{}, err
	}
	if s.Meta, err = t.meta(); err != nil {
		bad(migrations.BucketMeta, string(keyMeta), err)
	}
	if s.Processed, err = t.processed(); err != nil {
		bad(migrations.BucketCounters, string(keyProcessed), err)
	} else if _, err = t.keyed(s.Processed); err != nil {
		bad(migrations.BucketCounters, string(keyKeyed), err)
	}
	for _, p := range rows(migrations.BucketWorkers) {
		w, err := decodeWorker(string(p.key), p.value)
		if err != nil {
			bad(migrations.BucketWorkers, string(p.key), err)
			continue
		}
		s.Workers = append(s.Workers, w)
	}
	for _, p := range t[string(migrations.BucketServices)] {
		r, err := decodeRegistration(string(p.key), p.value)
		if err != nil {
			bad(migrations.BucketServices, string(p.key), err)
			continue
		}
		s.Registered = append(s.Registered, r)
	}
	for _, p := range rows(migrations.BucketEvents) {
		e, err := decodeEvent(p.value)
		if err == nil && len(p.key) != 8 {
			err = fmt.Errorf("key of %d bytes", len(p.key))
		}
		if err != nil {
			bad(migrations.BucketEvents, eventName(p.key), err)
			continue
		}
		s.Events = append(s.Events, e)
	}
	for _, p := range t[string(migrations.BucketRequests)] {
		if _, err := decodeResult(p.key, p.value); err != nil {
			bad(migrations.BucketRequests, string(p.key), err)
			continue
		}
		s.Results++
	}
	for _, name := range migrations.Buckets(s.SchemaVersion) {
		rows(name) // report other buckets of the schema if they are missing
	}
	slices.SortFunc(s.Workers, func(a, b Worker) int { return compareIDs(a.ID, b.ID) })
	return s, nil
}

// shownKey returns the key in a form that can be sent and displayed: the key itself may be damaged.
func shownKey(key string) string {
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

// readAll reads every record except the results of requests. Records that cannot be read are in Bad.
func readAll(tx *bolt.Tx) (Snapshot, error) { return tablesOf(tx).snapshot() }

// NewerSchemaError means that a newer release wrote the database.
type NewerSchemaError struct {
	Path         string
	Found, Known uint64
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("state file %s has schema version %d, this program knows up to %d: "+
		"use the release that wrote it, or a newer one", e.Path, e.Found, e.Known)
}

// content is the whole content of a database file.
type content struct {
	Snapshot
	Sequence  uint64            // number of the last transaction
	CountedAt time.Time         // see tables.countedAt
	count     counterfile.Tally // zero if it cannot be read
	// Strange are the buckets that this release does not know.
	Strange []string
	tables  tables
}

// countless reports whether the count cannot be read.
func (c content) countless() bool {
	return c.Bad[string(migrations.BucketCounters)+"/"+string(keyProcessed)] != nil
}

// readContent checks every page of a database and decodes every record, without bbolt, which trusts its input. If
// it returns no error, bbolt can open the database. Records that cannot be read are in Bad and do not hide the
// others. If the schema is newer than known, the error is a [NewerSchemaError].
func readContent(r io.ReaderAt, size int64, known uint64) (content, error) {
	img, err := boltfile.OpenImage(r, size)
	if err != nil {
		return content{}, err
	}
	return contentOf(img, known)
}

// contentOf is readContent for an image.
func contentOf(img *boltfile.Image, known uint64) (content, error) {
	c := content{Sequence: img.Meta.TxID, tables: make(tables)}
	err := img.Walk(true, func(path []string, key, value []byte) {
		switch {
		case len(path) == 0: // a value outside of any bucket, which bbolt refuses to write
		case len(path) == 1 && key == nil:
			c.tables[path[0]] = []pair{}
		case len(path) == 1:
			c.tables[path[0]] = append(c.tables[path[0]], pair{key, value})
		case len(path) == 2 && key == nil: // a bucket in the place of a record
			c.tables[path[0]] = append(c.tables[path[0]], pair{[]byte(path[1]), nil})
		}
	})
	if err != nil {
		return content{}, err
	}
	found, err := c.tables.version()
	if err != nil {
		return content{}, err
	}
	if found > known {
		return content{}, &NewerSchemaError{Found: found, Known: known}
	}
	if err := c.tables.checkBuckets(); err != nil {
		return content{}, err
	}
	if c.Snapshot, err = c.tables.snapshot(); err != nil {
		return content{}, err
	}
	c.CountedAt = c.tables.countedAt()
	c.count, _ = c.tables.tally() // the error, if any, is in Bad
	for name := range c.tables {
		if !slices.ContainsFunc(knownBuckets(), func(known []byte) bool { return string(known) == name }) {
			c.Strange = append(c.Strange, name)
		}
	}
	slices.Sort(c.Strange)
	return c, nil
}

// checkCopy checks every page of the database that was just written to f, and that its records are present.
func checkCopy(f *os.File, known uint64) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	img, err := boltfile.OpenImage(f, fi.Size())
	if err == nil {
		err = img.Damaged
	}
	if err == nil {
		_, err = contentOf(img, known)
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

func firstBad(bad map[string]error) string {
	keys := make([]string, 0, len(bad))
	for key := range bad {
		keys = append(keys, key)
	}
	return slices.Min(keys)
}
