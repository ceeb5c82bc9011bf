// Package once keeps the results of requests that have an id, so that each of them is counted once.
//
// A request to which its caller has given an id is counted once, however often it is retried: its result is stored
// under the id in the transaction that counts it, and a retry with the same id gets that result. See
// counterfile.Tally for why a crash cannot separate the two.
//
// Results are kept for Options.RequestTTL and in a bounded number and size; when a bound is exceeded, the oldest
// are dropped first. They are dropped a few at a time, in commits that are made anyway, so that the size of a
// transaction does not depend on how many have expired.
//
// The index in memory holds only what this needs, and never a response. A start reads only the first results of the
// file into it; reading.go reads the others later.
package once

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/records"
)

const (
	// Limits of one transaction.
	ResultsPerCommit     = 1024
	ResultBytesPerCommit = 4 << 20

	// DropsPerCommit is the number of expired results that one commit drops, besides the results that make room for
	// new ones.
	DropsPerCommit = 1000
	// DropEvery is the pause between commits that only drop results.
	DropEvery = time.Second

	// resultOverhead is the approximate cost of a record besides its key and value.
	resultOverhead = 32
)

// ErrDuplicate is the error that CountOnce reports for a request that was counted before. The result of that
// request is in [DB.Result].
var ErrDuplicate = errors.New("a request with this id was counted already")

// entry is the entry of a stored result in the index.
type entry struct {
	id string
	// at is when the result was stored, a reading of Limits.BootTime. The results of an earlier boot have 0, so
	// that they are kept for a whole ttl of this boot.
	at   time.Duration
	size int64
	next *entry // the one stored after it
	// corrupt is set if the record cannot be read: it is not a result and is dropped.
	corrupt bool
}

// Index is the index of the stored results, in the order in which they were stored. Only the committer changes
// it, under mu and after the change is durable; so the committer reads it without mu.
//
// Invariant: n and size are the number and total size of the entries from first to last, and byID has the newest entry
// of each id.
type Index struct {
	Limits
	log *slog.Logger

	mu          sync.Mutex
	byID        map[string]*entry
	first, last *entry
	n           int // number of entries from first to last
	size        int64
	// unread are the results of the file that are not in the index yet; nil if there are none. Only the committer uses
	// its content, but for since.
	unread *reading

	// The results dropped before their time since the last warning about them, and the time of that warning. Only the
	// committer uses them.
	early     int
	earlyTold time.Time
}

// Limits bound the stored results; the clock gives their age.
type Limits struct {
	TTL      time.Duration
	Most     int // number of results
	MostSize int64
	// BootTime is a clock that never steps and keeps running across a restart of this process, in the boot bootID.
	BootTime func() time.Duration
	BootID   string
}

func New(l Limits, log *slog.Logger) *Index {
	return &Index{Limits: l, log: log, byID: map[string]*entry{}}
}

// MayHave reports whether Read can find a result under the id.
func (x *Index) MayHave(id string) bool {
	now := x.BootTime()
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.byID[id]
	return x.alive(e, now) || e == nil && x.unread != nil
}

// Read reads the result stored under id, and reports whether there is one.
func (x *Index) Read(tx *bolt.Tx, id string) (records.Result, bool, error) {
	b := tx.Bucket(migrations.BucketRequests)
	if b == nil {
		return records.Result{}, false, fmt.Errorf("bucket %s is missing", migrations.BucketRequests)
	}
	value := b.Get([]byte(id))
	if value == nil {
		return records.Result{}, false, nil // dropped in the meantime
	}
	x.mu.Lock()
	indexed, unread := x.byID[id] != nil, x.unread
	x.mu.Unlock()
	rec, err := records.DecodeResult([]byte(id), value)
	if err != nil && !indexed {
		return records.Result{}, false, nil // it is no result, and is dropped when it is read
	}
	if err != nil {
		return records.Result{}, false, err
	}
	if !indexed && !x.unreadAlive(unread, rec, x.BootTime()) {
		return records.Result{}, false, nil
	}
	return rec.Result, true, nil
}

// Count returns the number of results in the index.
func (x *Index) Count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}

func (x *Index) alive(e *entry, now time.Duration) bool {
	return e != nil && !e.corrupt && now-e.at < x.TTL
}

// Changes are the changes that one transaction makes to the results.
type Changes struct {
	at      time.Duration // a reading of Options.BootTime
	dropped int           // number of the oldest results to drop
	Added   []*entry
}

// Put stores in tx the results in list whose ids are new, deletes the results that must go, and returns the changes,
// which Committed brings into the index. The other requests in list get ErrDuplicate.
func (x *Index) Put(tx *bolt.Tx, list []*Pending) (Changes, error) {
	c := Changes{at: x.BootTime()}
	fresh := make(map[string]bool, len(list))
	b := records.BucketOf(tx, migrations.BucketRequests)
	if b.Bolt == nil && len(list) == 0 {
		return c, nil // a schema without the bucket
	}
	if err := b.Check(); err != nil {
		return c, err
	}
	for _, r := range list {
		if r.Err = nil; fresh[r.ID] || x.has(b.Bolt, r.ID, c.at) {
			r.Err = ErrDuplicate
			continue
		}
		sequence, err := b.Bolt.NextSequence()
		if err != nil {
			return c, err
		}
		value, err := records.EncodeResult(
			records.StoredResult{Result: r.Result, Sequence: sequence, BootTime: c.at, BootID: x.BootID},
		)
		if err != nil {
			return c, err
		}
		if err := b.Put([]byte(r.ID), value); err != nil {
			return c, err
		}
		fresh[r.ID] = true
		c.Added = append(c.Added, &entry{
			id: r.ID, at: c.at, size: int64(len(r.ID) + len(value) + resultOverhead),
		})
	}
	for _, id := range x.drop(&c, fresh) {
		if err := b.Delete([]byte(id)); err != nil {
			return c, err
		}
	}
	return c, nil
}

// drop determines which results must be dropped to make room for c.added and, up to DropsPerCommit, which have
// expired. It returns the keys to delete, without the ids in fresh, which are stored again.
func (x *Index) drop(c *Changes, fresh map[string]bool) (ids []string) {
	if x.unread != nil {
		return nil // the oldest are not known yet
	}
	n, size := x.n+len(c.Added), x.size
	for _, e := range c.Added {
		size += e.size
	}
	tooOld := DropsPerCommit
	for e := x.first; e != nil; e = e.next {
		switch {
		case n > x.Most || size > x.MostSize: // it makes room
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

// Committed updates the index after the changes have become durable. It warns, at most once a minute, if results were
// dropped before their time.
func (x *Index) Committed(c Changes) {
	early := x.update(c)
	if early == 0 {
		return
	}
	x.early += early
	if now := time.Now(); now.Sub(x.earlyTold) >= time.Minute {
		x.log.Warn("results dropped early", "dropped", x.early)
		x.early, x.earlyTold = 0, now
	}
}

// update updates the index and returns how many results were dropped before their time.
func (x *Index) update(c Changes) (early int) {
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
	for _, e := range c.Added {
		x.append(e)
	}
	return early
}

func (x *Index) append(e *entry) {
	if x.last == nil {
		x.first = e
	} else {
		x.last.next = e
	}
	x.last = e
	x.byID[e.id] = e
	x.n, x.size = x.n+1, x.size+e.size
}

// DropIn returns the time until the oldest result expires, and false if there is none.
func (x *Index) DropIn() (time.Duration, bool) {
	if x.first == nil || x.unread != nil {
		return 0, false
	}
	if x.first.corrupt {
		return 0, true
	}
	return max(0, x.first.at+x.TTL-x.BootTime()), true
}
