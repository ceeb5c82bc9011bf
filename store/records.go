package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

var (
	keyMeta      = []byte("record")
	keyProcessed = []byte("processed_count")
)

// opcode says what a Mutation does.
type opcode int

const (
	opPutWorker opcode = iota + 1
	opDeleteWorker
	opAppendEvent
	opPutMeta
)

// Mutation is one change of the registry, for [DB.Apply]. It is made by
// [PutWorker], [DeleteWorker] or [AppendEvent]; one that cannot be stored is
// refused by Apply, before anything is written.
type Mutation struct {
	op    opcode
	key   string
	value []byte
	err   error
}

// PutWorker writes a worker's record, in place of the one with its ID.
func PutWorker(w Worker) Mutation {
	value, err := encodeWorker(w)
	if err != nil {
		err = fmt.Errorf("record of worker %q: %w", w.ID, err)
	}
	return Mutation{op: opPutWorker, key: w.ID, value: value, err: err}
}

// DeleteWorker removes a worker's record; there need not be one.
func DeleteWorker(id string) Mutation {
	return Mutation{op: opDeleteWorker, key: id, err: checkID(id)}
}

// AppendEvent adds an event; the oldest is dropped in the same transaction
// where there would be more than Options.MaxEvents.
func AppendEvent(e Event) Mutation {
	value, err := encodeEvent(e)
	if err != nil {
		err = fmt.Errorf("event %q: %w", e.Type, err)
	}
	return Mutation{op: opAppendEvent, value: value, err: err}
}

func putMeta(m Meta) Mutation {
	value, err := encodeMeta(m)
	return Mutation{op: opPutMeta, value: value, err: err}
}

func (m Mutation) apply(tx *bolt.Tx, maxEvents int) error {
	switch m.op {
	case opPutWorker:
		return bucket(tx, migrations.BucketWorkers).put([]byte(m.key), m.value)
	case opDeleteWorker:
		return bucket(tx, migrations.BucketWorkers).delete([]byte(m.key))
	case opAppendEvent:
		return appendEvent(bucket(tx, migrations.BucketEvents), m.value, maxEvents)
	case opPutMeta:
		return bucket(tx, migrations.BucketMeta).put(keyMeta, m.value)
	}
	return errors.New("an empty mutation")
}

// named is a bucket that may be missing.
type named struct {
	name []byte
	b    *bolt.Bucket
}

func bucket(tx *bolt.Tx, name []byte) named { return named{name, tx.Bucket(name)} }

func (n named) check() error {
	if n.b == nil {
		return fmt.Errorf("bucket %s is missing", n.name)
	}
	return nil
}

func (n named) put(k, v []byte) error {
	if err := n.check(); err != nil {
		return err
	}
	return n.b.Put(k, v)
}

func (n named) delete(k []byte) error {
	if err := n.check(); err != nil {
		return err
	}
	return n.b.Delete(k)
}

func appendEvent(n named, value []byte, most int) error {
	if err := n.check(); err != nil {
		return err
	}
	sequence, err := n.b.NextSequence()
	if err != nil {
		return err
	}
	if err := n.b.Put(binary.BigEndian.AppendUint64(nil, sequence), value); err != nil {
		return err
	}
	for sequence > uint64(most) {
		oldest, _ := n.b.Cursor().First()
		if len(oldest) == 8 && binary.BigEndian.Uint64(oldest) > sequence-uint64(most) {
			break
		}
		if err := n.b.Delete(oldest); err != nil {
			return err
		}
	}
	return nil
}

// putProcessed writes the count.
func putProcessed(tx *bolt.Tx, count int64) error {
	return bucket(tx, migrations.BucketCounters).put(keyProcessed, binary.BigEndian.AppendUint64(nil, uint64(count)))
}

// readProcessed reads the count; no record is a zero count.
func readProcessed(tx *bolt.Tx) (int64, error) {
	counters := bucket(tx, migrations.BucketCounters)
	if err := counters.check(); err != nil {
		return 0, err
	}
	v := counters.b.Get(keyProcessed)
	if v == nil {
		return 0, nil
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s has %d bytes, want 8", keyProcessed, len(v))
	}
	count := int64(binary.BigEndian.Uint64(v))
	if count < 0 {
		return 0, fmt.Errorf("%s is %d", keyProcessed, count)
	}
	return count, nil
}

// readMeta reads the database's own record.
func readMeta(tx *bolt.Tx) (Meta, error) {
	meta := bucket(tx, migrations.BucketMeta)
	if err := meta.check(); err != nil {
		return Meta{}, err
	}
	v := meta.b.Get(keyMeta)
	if v == nil {
		return Meta{}, errors.New("there is no record of the database itself")
	}
	return decodeMeta(v)
}

// readAll reads every record. One that cannot be read goes to Bad.
func readAll(tx *bolt.Tx) (Snapshot, error) {
	s := Snapshot{Bad: make(map[string]error)}
	bad := func(bucket []byte, key string, err error) {
		s.Bad[string(bucket)+"/"+key] = err
	}
	var err error
	if s.SchemaVersion, err = migrations.Version(tx); err != nil {
		return Snapshot{}, err
	}
	if s.Meta, err = readMeta(tx); err != nil {
		bad(migrations.BucketMeta, string(keyMeta), err)
	}
	if s.Processed, err = readProcessed(tx); err != nil {
		bad(migrations.BucketCounters, string(keyProcessed), err)
	}
	if workers := bucket(tx, migrations.BucketWorkers); workers.b == nil {
		bad(workers.name, "", workers.check())
	} else {
		_ = workers.b.ForEach(func(k, v []byte) error {
			w, err := decodeWorker(string(k), v)
			if err != nil {
				bad(workers.name, string(k), err)
				return nil
			}
			s.Workers = append(s.Workers, w)
			return nil
		})
	}
	if events := bucket(tx, migrations.BucketEvents); events.b == nil {
		bad(events.name, "", events.check())
	} else {
		_ = events.b.ForEach(func(k, v []byte) error {
			e, err := decodeEvent(v)
			if err == nil && len(k) != 8 {
				err = fmt.Errorf("key of %d bytes", len(k))
			}
			if err != nil {
				bad(events.name, eventName(k), err)
				return nil
			}
			s.Events = append(s.Events, e)
			return nil
		})
	}
	slices.SortFunc(s.Workers, func(a, b Worker) int { return compareIDs(a.ID, b.ID) })
	return s, nil
}

func eventName(k []byte) string {
	if len(k) != 8 {
		return fmt.Sprintf("%x", k)
	}
	return fmt.Sprint(binary.BigEndian.Uint64(k))
}

// compareIDs orders ids as people do: worker-2 before worker-10.
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
	// Equal but for leading zeros, or one is the beginning of the other.
	return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(a, b))
}

// digits returns the number that s begins with, or "".
func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}
