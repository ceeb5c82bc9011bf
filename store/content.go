package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

// This file decodes what a database holds: of an open one, and, without bbolt, of
// one that is nothing but bytes.

// pair is a key and its value.
type pair struct{ key, value []byte }

// tables are the buckets at the top, by name, each in the order of its keys. One
// that is missing is not in the map.
type tables map[string][]pair

// knownBuckets are those of the schema of this release.
func knownBuckets() [][]byte { return migrations.Buckets(migrations.Current()) }

// tablesOf reads the buckets that this release knows. The pairs are valid for as
// long as tx is. Of the results of requests, which can be many, it only tells that there
// is a bucket: see allTablesOf.
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

// checkBuckets fails where one is missing that the database's schema has: that is
// damage, not an empty registry.
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

// keyed decodes how many of the count came by CountOnce: unknownKeyed where that cannot
// be told. A database of the first release has no such record, and none of them.
func (t tables) keyed(processed int64) (int64, error) {
	v := t.get(migrations.BucketCounters, keyKeyed)
	if v == nil {
		return 0, nil
	}
	if len(v) != 8 {
		return unknownKeyed, fmt.Errorf("%s has %d bytes, want 8", keyKeyed, len(v))
	}
	keyed := int64(binary.BigEndian.Uint64(v))
	if keyed < 0 || keyed > processed {
		return unknownKeyed, fmt.Errorf("%s is %d of %d", keyKeyed, keyed, processed)
	}
	return keyed, nil
}

// tally decodes the count and its part. That the part cannot be read is no error: see
// snapshot.
func (t tables) tally() (tally, error) {
	processed, err := t.processed()
	if err != nil {
		return tally{}, err
	}
	keyed, _ := t.keyed(processed)
	return tally{processed, keyed}, nil
}

// countedAt is when the count was written: all that was acknowledged before is in
// it. Zero where that is not known.
func (t tables) countedAt() time.Time {
	v := t.get(migrations.BucketCounters, keyCountedAt)
	if len(v) != 8 {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(v))).UTC()
}

// snapshot decodes every record. One that cannot be read goes to Bad.
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
		rows(name) // of the others, that they are there
	}
	slices.SortFunc(s.Workers, func(a, b Worker) int { return compareIDs(a.ID, b.ID) })
	return s, nil
}

// shownKey is the key in words that can be sent and shown: it may be damaged itself.
func shownKey(key string) string {
	if utf8.ValidString(key) {
		return key
	}
	quoted := strconv.Quote(key)
	return quoted[1 : len(quoted)-1]
}

func eventName(k []byte) string {
	if len(k) != 8 {
		return fmt.Sprintf("0x%x", k) // no number of an event
	}
	return fmt.Sprint(binary.BigEndian.Uint64(k))
}

// readAll reads every record. One that cannot be read goes to Bad.
func readAll(tx *bolt.Tx) (Snapshot, error) { return tablesOf(tx).snapshot() }

// content is all that a database file holds.
type content struct {
	Snapshot
	Sequence  uint64    // of the transaction that was last
	CountedAt time.Time // see tables.countedAt
	count     tally     // zero where it cannot be read
	// Strange are buckets that this release does not know.
	Strange []string
	tables  tables
}

// countless tells that the count cannot be read.
func (c content) countless() bool {
	return c.Bad[string(migrations.BucketCounters)+"/"+string(keyProcessed)] != nil
}

// readContent checks every page of a database and decodes every record of it,
// without bbolt, which trusts what it is given. What it returns without an error
// bbolt can open. Records that cannot be read are in Bad and hide none of the
// others; a schema that is newer than known is a [NewerSchemaError].
func readContent(r io.ReaderAt, size int64, known uint64) (content, error) {
	img, err := openImage(r, size)
	if err != nil {
		return content{}, err
	}
	return img.content(known)
}

func (img *image) content(known uint64) (content, error) {
	c := content{Sequence: img.meta.TxID, tables: make(tables)}
	err := img.walk(true, func(path []string, key, value []byte) {
		switch {
		case len(path) == 0: // a value beside the buckets, which bbolt itself refuses to make
		case len(path) == 1 && key == nil:
			c.tables[path[0]] = []pair{}
		case len(path) == 1:
			c.tables[path[0]] = append(c.tables[path[0]], pair{key, value})
		case len(path) == 2 && key == nil: // a bucket where a record should be
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
	c.count, _ = c.tables.tally() // what is wrong with it is in Bad
	for name := range c.tables {
		if !slices.ContainsFunc(knownBuckets(), func(known []byte) bool { return string(known) == name }) {
			c.Strange = append(c.Strange, name)
		}
	}
	slices.Sort(c.Strange)
	return c, nil
}
