package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/counterfile"
)

// opcode is the kind of a Mutation.
type opcode int

const (
	opPutWorker opcode = iota + 1
	opDeleteWorker
	opAppendEvent
	opPutMeta
	opPutRegistration
	opDeleteRegistration
)

// Mutation is one change of the registry, for [DB.Apply]. It is made by [PutWorker], [DeleteWorker], [AppendEvent],
// [PutRegistration] or [DeleteRegistration]. If it cannot be stored, Apply returns an error before it writes
// anything.
type Mutation struct {
	op    opcode
	key   string
	value []byte
	err   error
}

// PutWorker writes a worker's record, replacing any record with the same ID.
func PutWorker(w Worker) Mutation {
	value, err := encodeWorker(w)
	if err != nil {
		err = fmt.Errorf("record of worker %q: %w", w.ID, err)
	}
	return Mutation{op: opPutWorker, key: w.ID, value: value, err: err}
}

// DeleteWorker removes a worker's record, if there is one.
func DeleteWorker(id string) Mutation {
	return Mutation{op: opDeleteWorker, key: id, err: checkID(id)}
}

// AppendEvent adds an event. If there are then more than Options.MaxEvents, the same transaction drops the oldest.
func AppendEvent(e Event) Mutation {
	value, err := encodeEvent(e)
	if err != nil {
		err = fmt.Errorf("event %q: %w", e.Type, err)
	}
	return Mutation{op: opAppendEvent, value: value, err: err}
}

// PutRegistration writes a registered endpoint, replacing any registration of the same service and address.
func PutRegistration(r Registration) Mutation {
	value, err := encodeRegistration(r)
	return Mutation{op: opPutRegistration, key: registrationKey(r.Service, r.Address), value: value, err: err}
}

// DeleteRegistration removes a registered endpoint, if there is one.
func DeleteRegistration(service, address string) Mutation {
	return Mutation{
		op: opDeleteRegistration, key: registrationKey(service, address), err: checkRegistration(service, address),
	}
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

// putProcessed writes the count and the current time as the time when it was written.
func putProcessed(tx *bolt.Tx, count counterfile.Tally) error {
	counters := bucket(tx, migrations.BucketCounters)
	if err := counters.put(keyProcessed, binary.BigEndian.AppendUint64(nil, uint64(count.Processed))); err != nil {
		return err
	}
	if err := counters.put(keyKeyed, binary.BigEndian.AppendUint64(nil, uint64(max(count.Keyed, 0)))); err != nil {
		return err
	}
	return counters.put(keyCountedAt, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
}
