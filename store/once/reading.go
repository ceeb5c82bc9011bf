package once

import (
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/records"
)

// A start must not wait until all results are read: that takes half a second for a hundred thousand. It reads
// readAtOnce. The committer reads the others between its commits, beginning ReadAfter later, each ReadEvery as many.
// Until then they are found by their keys in the file, and none is dropped.
const (
	readAtOnce = 1000
	ReadAfter  = time.Second
	ReadEvery  = 10 * time.Millisecond
)

// reading is the state of reading the results of a file into the index, in the order of their keys.
type reading struct {
	since uint64 // the sequence of the newest result that was stored before
	next  []byte // the key to go on with, nil for the first
	rows  []row  // those read so far, in the order of their keys
}

// row is a result of the file.
type row struct {
	entry
	sequence uint64
}

// Unread reports whether ReadSome has results to read, and after which time it should be called.
func (x *Index) Unread() (after time.Duration, some bool) {
	switch {
	case x.unread == nil:
		return 0, false
	case len(x.unread.rows) <= readAtOnce: // those of the start
		return ReadAfter, true
	}
	return ReadEvery, true
}

// Open replaces the index by one of the results in tx, of the file at path. If there are many, some are left to
// ReadSome.
func (x *Index) Open(tx *bolt.Tx, path string) {
	b := tx.Bucket(migrations.BucketRequests)
	x.mu.Lock()
	x.byID, x.first, x.last, x.n, x.size = make(map[string]*entry), nil, nil, 0, 0
	if x.unread = nil; b != nil { // a schema with the bucket
		x.unread = &reading{since: b.Sequence()}
	}
	x.mu.Unlock()
	x.ReadSome(tx, path)
}

// Load replaces the index by one of the results in file, which is at path.
func (x *Index) Load(file *boltfile.File, path string) error {
	return file.View(func(tx *bolt.Tx) error {
		for x.Open(tx, path); x.unread != nil; {
			x.ReadSome(tx, path)
		}
		return nil
	})
}

// ReadSome reads some of the results that are not in the index yet. When it has read the last one, it brings all of
// them into the index. tx must show the last commit.
func (x *Index) ReadSome(tx *bolt.Tx, path string) {
	u := x.unread
	if u == nil {
		return
	}
	c, now := tx.Bucket(migrations.BucketRequests).Cursor(), x.BootTime()
	key, value := c.Seek(u.next)
	rows := u.rows // kept only if the reading does not end with a fault: it begins again where this one began
	for range readAtOnce {
		if key == nil {
			break
		}
		// A nil value is a bucket in the place of a record; Check reports it. An id that is in the index was stored
		// since.
		if value != nil && x.byID[string(key)] == nil {
			rows = append(rows, x.row(key, value, now, path))
		}
		key, value = c.Next()
	}
	if key != nil {
		u.rows, u.next = rows, slices.Clone(key)
		return
	}
	x.join(rows)
}

func (x *Index) row(key, value []byte, now time.Duration, path string) row {
	r := row{entry: entry{id: string(key), size: int64(len(key) + len(value) + resultOverhead)}}
	rec, err := records.DecodeResult(key, value)
	if err != nil {
		x.log.Warn("result not readable",
			"path", path, "request_id", records.ShownKey(string(key)), "error", err)
		r.corrupt = true
	}
	r.sequence, r.at = rec.Sequence, x.storedAt(rec, now)
	return r
}

// storedAt returns when a result of the file was stored, as [entry] has it.
func (x *Index) storedAt(rec records.StoredResult, now time.Duration) time.Duration {
	if rec.BootID != x.BootID || x.BootID == "" {
		return 0
	}
	return min(rec.BootTime, now) // if the clock was set back, no result is kept for longer than the ttl
}

// join brings the rows into the index, as older than its own.
func (x *Index) join(rows []row) {
	slices.SortFunc(rows, func(a, b row) int {
		switch {
		case a.corrupt != b.corrupt: // they are dropped first
			if a.corrupt {
				return -1
			}
			return 1
		case a.sequence < b.sequence:
			return -1
		case a.sequence > b.sequence:
			return 1
		}
		return 0
	})
	x.mu.Lock()
	defer x.mu.Unlock()
	since := x.first
	x.first, x.last, x.n, x.size, x.unread = nil, nil, 0, 0, nil
	newer := x.byID
	x.byID = make(map[string]*entry, len(rows)+len(newer))
	for i := range rows {
		x.append(&rows[i].entry)
	}
	for e := since; e != nil; {
		next := e.next
		e.next = nil
		x.append(e)
		e = next
	}
}

// has reports whether there is a result under the id. Only the committer may call it, with the bucket of the results.
func (x *Index) has(b *bolt.Bucket, id string, now time.Duration) bool {
	if e := x.byID[id]; e != nil || x.unread == nil {
		return x.alive(e, now)
	}
	value := b.Get([]byte(id))
	if value == nil {
		return false
	}
	rec, err := records.DecodeResult([]byte(id), value)
	return err == nil && x.unreadAlive(x.unread, rec, now)
}

// unreadAlive reports whether a record of the file, which is not in the index, is a result that has not expired.
func (x *Index) unreadAlive(u *reading, rec records.StoredResult, now time.Duration) bool {
	if u == nil || rec.Sequence > u.since { // otherwise a commit that failed, or is about to be acknowledged
		return false
	}
	return now-x.storedAt(rec, now) < x.TTL
}

// Stored returns the number of results in the file that tx is of, also of those that are not in the index yet.
func (x *Index) Stored(tx *bolt.Tx) int {
	x.mu.Lock()
	unread := x.unread != nil
	x.mu.Unlock()
	if b := tx.Bucket(migrations.BucketRequests); unread && b != nil {
		return b.Stats().KeyN
	}
	return x.Count()
}
