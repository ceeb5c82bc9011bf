package records

import (
	"bytes"
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
	opPutUnit
)

// Mutation is one change of the registry, for [DB.Apply]. It is made by [PutWorker], [DeleteWorker], [AppendEvent],
// [PutUnit], [PutRegistration] or [DeleteRegistration]. If it cannot be stored, Apply returns an error before it writes
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

// DeleteWorker removes a worker's record, if there is one, and with the last worker of a retired unit also the unit's
// record.
func DeleteWorker(id string) Mutation {
	return Mutation{op: opDeleteWorker, key: id, err: checkID(id)}
}

// PutUnit writes a unit's record, replacing any record with the same name. If the unit is retired and no worker of it
// is recorded, PutUnit removes the record instead.
func PutUnit(u Unit) Mutation {
	value, err := encodeUnit(u)
	if err != nil {
		err = fmt.Errorf("record of unit %q: %w", u.Name, err)
	}
	return Mutation{op: opPutUnit, key: u.Name, value: value, err: err}
}

// AppendEvent adds an event. The same transaction drops older ones than the newest Options.MaxEvents, except for the
// acts of operators: of those the newest [MaxActs] are kept besides.
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

func PutMeta(m Meta) Mutation {
	value, err := encodeMeta(m)
	return Mutation{op: opPutMeta, value: value, err: err}
}

// Check returns an error if the mutation cannot be stored.
func (m Mutation) Check() error {
	if m.err == nil && m.op == 0 {
		return errors.New("apply: an empty mutation")
	}
	return m.err
}

// Apply makes the change in tx, and drops the oldest events in excess of maxEvents.
func (m Mutation) Apply(tx *bolt.Tx, maxEvents int) error {
	switch m.op {
	case opPutWorker:
		return BucketOf(tx, migrations.BucketWorkers).Put([]byte(m.key), m.value)
	case opDeleteWorker:
		if err := BucketOf(tx, migrations.BucketWorkers).Delete([]byte(m.key)); err != nil {
			return err
		}
		return forgetRetired(tx, migrations.UnitOf(m.key))
	case opPutUnit:
		if err := BucketOf(tx, migrations.BucketUnits).Put([]byte(m.key), m.value); err != nil {
			return err
		}
		return forgetRetired(tx, m.key)
	case opAppendEvent:
		return appendEvent(BucketOf(tx, migrations.BucketEvents), m.value, maxEvents)
	case opPutMeta:
		return BucketOf(tx, migrations.BucketMeta).Put(KeyMeta, m.value)
	case opPutRegistration:
		return BucketOf(tx, migrations.BucketServices).Put([]byte(m.key), m.value)
	case opDeleteRegistration:
		return BucketOf(tx, migrations.BucketServices).Delete([]byte(m.key))
	}
	return errors.New("an empty mutation")
}

// Bucket is a bucket that may be missing.
type Bucket struct {
	name []byte
	Bolt *bolt.Bucket
}

func BucketOf(tx *bolt.Tx, name []byte) Bucket { return Bucket{name, tx.Bucket(name)} }

func (n Bucket) Check() error {
	if n.Bolt == nil {
		return fmt.Errorf("bucket %s is missing", n.name)
	}
	return nil
}

func (n Bucket) Put(k, v []byte) error {
	if err := n.Check(); err != nil {
		return err
	}
	return n.Bolt.Put(k, v)
}

func (n Bucket) Delete(k []byte) error {
	if err := n.Check(); err != nil {
		return err
	}
	return n.Bolt.Delete(k)
}

// forgetRetired removes the record of the unit if the unit is retired and no worker of it is recorded.
func forgetRetired(tx *bolt.Tx, name string) error {
	units := tx.Bucket(migrations.BucketUnits)
	if units == nil { // of an older schema
		return nil
	}
	record := units.Get([]byte(name))
	if record == nil {
		return nil
	}
	if unit, err := decodeUnit(name, record); err != nil || !unit.Retired {
		return nil //nolint:nilerr // Snapshot reports a record that cannot be read
	}
	prefix := []byte(name + "-")
	c := tx.Bucket(migrations.BucketWorkers).Cursor()
	for id, _ := c.Seek(prefix); bytes.HasPrefix(id, prefix); id, _ = c.Next() {
		if migrations.UnitOf(string(id)) == name {
			return nil
		}
	}
	return units.Delete([]byte(name))
}

// MaxActs is the number of acts of operators that are kept besides the newest events, so that workers that are
// restarted without end do not push them out of the history.
const MaxActs = 1000

func appendEvent(n Bucket, value []byte, most int) error {
	if err := n.Check(); err != nil {
		return err
	}
	sequence, err := n.Bolt.NextSequence()
	if err != nil {
		return err
	}
	if err := n.Bolt.Put(binary.BigEndian.AppendUint64(nil, sequence), value); err != nil {
		return err
	}
	if sequence <= uint64(most) {
		return nil
	}
	return dropEvents(n.Bolt, sequence-uint64(most))
}

// dropAtOnce is the largest number of older events that are looked at when an event is added. Usually there is one to
// drop; there are more after a change of the number of kept events.
const dropAtOnce = 16

// dropEvents drops the events up to the number until, except for the newest acts.
func dropEvents(events *bolt.Bucket, until uint64) error {
	var dropped [][]byte
	c := events.Cursor()
	before := c.Prev
	if key, _ := c.Seek(binary.BigEndian.AppendUint64(nil, until+1)); key == nil {
		before = c.Last
	}
	key, value := before()
	left := -1 // acts that are kept; unknown
	for range dropAtOnce {
		if key == nil {
			break
		}
		switch e, err := decodeEvent(value); {
		case len(key) != 8 || err != nil || !e.isAct():
			dropped = append(dropped, bytes.Clone(key))
		case left < 0 && binary.BigEndian.Uint64(key) == until: // has just become older than the others
			left = 0
		}
		key, value = c.Prev()
	}
	for _, key := range dropped {
		if err := events.Delete(key); err != nil {
			return err
		}
	}
	if left < 0 {
		return nil
	}
	for key, _ := c.First(); len(key) == 8 && binary.BigEndian.Uint64(key) <= until; key, _ = c.Next() {
		left++
	}
	for ; left > MaxActs; left-- {
		if oldest, _ := c.First(); oldest != nil {
			if err := events.Delete(oldest); err != nil {
				return err
			}
		}
	}
	return nil
}

// PutProcessed writes the count and the current time as the time when it was written.
func PutProcessed(tx *bolt.Tx, count counterfile.Tally) error {
	counters := BucketOf(tx, migrations.BucketCounters)
	if err := counters.Put(KeyProcessed, binary.BigEndian.AppendUint64(nil, uint64(count.Processed))); err != nil {
		return err
	}
	if err := counters.Put(keyKeyed, binary.BigEndian.AppendUint64(nil, uint64(max(count.Keyed, 0)))); err != nil {
		return err
	}
	return counters.Put(keyCountedAt, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
}
