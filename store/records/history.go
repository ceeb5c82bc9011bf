package records

import (
	"encoding/binary"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
)

// Entry is an event with its number in the history.
type Entry struct {
	// Seq grows by one from event to event. After a restore from a backup, it goes on from that of the backup.
	Seq uint64
	Event
}

// UnitName returns the name of the unit that the event concerns, itself or by a worker, or "".
func (e Event) UnitName() string {
	if e.Unit == "" {
		return migrations.UnitOf(e.Worker)
	}
	return e.Unit
}

// LastEvent returns the number of the newest event, 0 if there was never one.
func LastEvent(tx *bolt.Tx) uint64 {
	events := tx.Bucket(migrations.BucketEvents)
	if events == nil {
		return 0
	}
	return events.Sequence()
}

// Entries returns at most most events with numbers above after and up to until, oldest first. Events that cannot be
// read are left out; Snapshot reports them.
func Entries(tx *bolt.Tx, after, until uint64, most int) ([]Entry, error) {
	events := BucketOf(tx, migrations.BucketEvents)
	if err := events.Check(); err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	if after >= until {
		return nil, nil
	}
	var entries []Entry
	c := events.Bolt.Cursor()
	key, value := c.Seek(binary.BigEndian.AppendUint64(nil, after+1))
	for ; key != nil && len(entries) < most; key, value = c.Next() {
		if len(key) != 8 {
			continue
		}
		seq := binary.BigEndian.Uint64(key)
		if seq > until {
			break
		}
		if e, err := decodeEvent(value); err == nil {
			entries = append(entries, Entry{seq, e})
		}
	}
	return entries, nil
}
