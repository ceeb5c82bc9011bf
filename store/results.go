package store

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
)

// A request to which its caller has given an id is counted once, however often it is retried: its result is stored
// under the id in the transaction that counts it, and a retry with the same id gets that result. See
// counterfile.Tally for why a crash cannot separate the two.
//
// Results are kept for Options.RequestTTL and in a bounded number and size; when a bound is exceeded, the oldest
// are dropped first. They are dropped a few at a time, in commits that are made anyway, so that the size of a
// transaction does not depend on how many have expired.
//
// The index in memory holds only what this needs, and never a response.

const (
	// Limits of one transaction.
	resultsPerCommit     = 1024
	resultBytesPerCommit = 4 << 20

	// dropsPerCommit is the number of expired results that one commit drops, besides the results that make room for
	// new ones.
	dropsPerCommit = 1000
	// dropEvery is the pause between commits that only drop results.
	dropEvery = time.Second

	// resultOverhead is the approximate cost of a record besides its key and value.
	resultOverhead = 32
)

// ErrDuplicate is the error that CountOnce reports for a request that was counted before. The result of that
// request is in [DB.Result].
var ErrDuplicate = errors.New("a request with this id was counted already")

// indexEntry is the entry of a stored result in the index.
type indexEntry struct {
	id string
	// at is when the result was stored, a reading of Options.BootTime. The results of an earlier boot have 0, so
	// that they are kept for a whole ttl of this boot.
	at   time.Duration
	size int64
	next *indexEntry // the one stored after it
	// corrupt is set if the record cannot be read: it is not a result and is dropped.
	corrupt bool
}

// results is the index of the stored results, in the order in which they were stored. Only the committer changes
// it, under mu and after the change is durable; so the committer reads it without mu.
//
// Invariant: n and size are the number and total size of the entries from first to last, and byID has the newest entry
// of each id.
type results struct {
	limits
	log *slog.Logger

	mu          sync.Mutex
	byID        map[string]*indexEntry
	first, last *indexEntry
	n           int // number of entries from first to last
	size        int64

	// The results dropped before their time since the last warning about them, and the time of that warning. Only the
	// committer uses them.
	early     int
	earlyTold time.Time
}

// limits bound the stored results; the clock gives their age.
type limits struct {
	ttl      time.Duration
	most     int // number of results
	mostSize int64
	// bootTime is a clock that never steps and keeps running across a restart of this process, in the boot bootID.
	bootTime func() time.Duration
	bootID   string
}

func newResults(l limits, log *slog.Logger) *results {
	return &results{limits: l, log: log, byID: map[string]*indexEntry{}}
}

// readResult reads the result stored under id, and reports whether there is one.
func readResult(tx *bolt.Tx, id string) (Result, bool, error) {
	b := tx.Bucket(migrations.BucketRequests)
	if b == nil {
		return Result{}, false, fmt.Errorf("bucket %s is missing", migrations.BucketRequests)
	}
	value := b.Get([]byte(id))
	if value == nil {
		return Result{}, false, nil // dropped in the meantime
	}
	rec, err := decodeResult([]byte(id), value)
	if err != nil {
		return Result{}, false, err
	}
	return rec.Result, true, nil
}

// has reports whether there is a result under the id.
func (x *results) has(id string) bool {
	now := x.bootTime()
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.alive(x.byID[id], now)
}

func (x *results) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}

func (x *results) alive(e *indexEntry, now time.Duration) bool {
	return e != nil && !e.corrupt && now-e.at < x.ttl
}

// resultChanges are the changes that one transaction makes to the results.
type resultChanges struct {
	at      time.Duration // a reading of Options.BootTime
	dropped int           // number of the oldest results to drop
	added   []*indexEntry
}

// put stores in tx the results in list whose ids are new, deletes the results that must go, and returns the changes,
// which commit brings into the index. The other requests in list get ErrDuplicate.
func (x *results) put(tx *bolt.Tx, list []*pendingResult) (resultChanges, error) {
	c := resultChanges{at: x.bootTime()}
	fresh := make(map[string]bool, len(list))
	b := bucket(tx, migrations.BucketRequests)
	if b.b == nil && len(list) == 0 {
		return c, nil // a schema without the bucket
	}
	if err := b.check(); err != nil {
		return c, err
	}
	for _, r := range list {
		if r.err = nil; fresh[r.ID] || x.alive(x.byID[r.ID], c.at) {
			r.err = ErrDuplicate
			continue
		}
		sequence, err := b.b.NextSequence()
		if err != nil {
			return c, err
		}
		value, err := encodeResult(record{Result: r.Result, sequence: sequence, bootTime: c.at, bootID: x.bootID})
		if err != nil {
			return c, err
		}
		if err := b.put([]byte(r.ID), value); err != nil {
			return c, err
		}
		fresh[r.ID] = true
		c.added = append(c.added, &indexEntry{
			id: r.ID, at: c.at, size: int64(len(r.ID) + len(value) + resultOverhead),
		})
	}
	for _, id := range x.drop(&c, fresh) {
		if err := b.delete([]byte(id)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// drop determines which results must be dropped to make room for c.added and, up to dropsPerCommit, which have
// expired. It returns the keys to delete, without the ids in fresh, which are stored again.
func (x *results) drop(c *resultChanges, fresh map[string]bool) (ids []string) {
	n, size := x.n+len(c.added), x.size
	for _, e := range c.added {
		size += e.size
	}
	tooOld := dropsPerCommit
	for e := x.first; e != nil; e = e.next {
		switch {
		case n > x.most || size > x.mostSize: // it makes room
		case !x.alive(e, c.at) && tooOld > 0:
			tooOld--
		default:
			return ids
		}
		n, size = n-1, size-e.size
		c.dropped++
		if x.byID[e.id] == e && !fresh[e.id] {
			ids = append(ids, e.id)
		}
	}
	return ids
}

// commit updates the index after the changes have become durable. It warns, at most once a minute, if results were
// dropped before their time.
func (x *results) commit(c resultChanges) {
	early := x.update(c)
	if early == 0 {
		return
	}
	x.early += early
	if now := time.Now(); now.Sub(x.earlyTold) >= time.Minute {
		x.log.Warn("results of requests are dropped before their time, since there are too many: "+
			"a retry of theirs is counted again", "dropped", x.early)
		x.early, x.earlyTold = 0, now
	}
}

// update updates the index and returns how many results were dropped before their time.
func (x *results) update(c resultChanges) (early int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range c.dropped {
		e := x.first
		if x.alive(e, c.at) {
			early++
		}
		x.first = e.next
		if x.first == nil {
			x.last = nil
		}
		if x.byID[e.id] == e {
			delete(x.byID, e.id)
		}
		x.n, x.size = x.n-1, x.size-e.size
	}
	for _, e := range c.added {
		x.append(e)
	}
	return early
}

func (x *results) append(e *indexEntry) {
	if x.last == nil {
		x.first = e
	} else {
		x.last.next = e
	}
	x.last = e
	x.byID[e.id] = e
	x.n, x.size = x.n+1, x.size+e.size
}

// dropIn returns the time until the oldest result expires, and false if there is none.
func (x *results) dropIn() (time.Duration, bool) {
	if x.first == nil {
		return 0, false
	}
	if x.first.corrupt {
		return 0, true
	}
	return max(0, x.first.at+x.ttl-x.bootTime()), true
}

// load replaces the index by one of the results in file, which is at path.
func (x *results) load(file *boltfile.File, path string) error {
	type row struct {
		indexEntry
		sequence uint64
	}
	var rows []row
	now := x.bootTime()
	err := file.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(migrations.BucketRequests)
		if b == nil {
			return nil // a schema without the bucket
		}
		return b.ForEach(func(key, value []byte) error {
			if value == nil {
				return nil // a bucket in the place of a record; Check reports it
			}
			r := row{indexEntry: indexEntry{id: string(key), size: int64(len(key) + len(value) + resultOverhead)}}
			rec, err := decodeResult(key, value)
			if err != nil {
				x.log.Warn("result of a request cannot be read, dropping it",
					"path", path, "request", shownKey(string(key)), "error", err)
				r.corrupt = true
			}
			r.sequence = rec.sequence
			if rec.bootID == x.bootID && x.bootID != "" {
				r.at = min(rec.bootTime, now) // if the clock was set back, no result is kept for longer than the ttl
			}
			rows = append(rows, r)
			return nil
		})
	})
	if err != nil {
		return err
	}
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
	x.byID, x.first, x.last, x.n, x.size = make(map[string]*indexEntry, len(rows)), nil, nil, 0, 0
	for i := range rows {
		x.append(&rows[i].indexEntry)
	}
	return nil
}
