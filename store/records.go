package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

var (
	keyMeta      = []byte("record")
	keyProcessed = []byte("processed_count")
	keyKeyed     = []byte("keyed_count")
	keyCountedAt = []byte("counted_at")
)

// opcode says what a Mutation does.
type opcode int

const (
	opPutWorker opcode = iota + 1
	opDeleteWorker
	opAppendEvent
	opPutMeta
	opPutRegistration
	opDeleteRegistration
)

// Mutation is one change of the registry, for [DB.Apply]. It is made by
// [PutWorker], [DeleteWorker], [AppendEvent], [PutRegistration] or [DeleteRegistration]; one that cannot be stored is
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
	case opPutRegistration:
		return bucket(tx, migrations.BucketServices).put([]byte(m.key), m.value)
	case opDeleteRegistration:
		return bucket(tx, migrations.BucketServices).delete([]byte(m.key))
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

// putProcessed writes the count, and when it was what it is.
func putProcessed(tx *bolt.Tx, count tally) error {
	counters := bucket(tx, migrations.BucketCounters)
	if err := counters.put(keyProcessed, binary.BigEndian.AppendUint64(nil, uint64(count.processed))); err != nil {
		return err
	}
	if err := counters.put(keyKeyed, binary.BigEndian.AppendUint64(nil, uint64(max(count.keyed, 0)))); err != nil {
		return err
	}
	return counters.put(keyCountedAt, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
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
