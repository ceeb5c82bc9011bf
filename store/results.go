package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/core-tools/hsu-master/migrations"
	pb "github.com/core-tools/hsu-master/store/storepb"
)

// A request that its caller has given an id is counted once, however often it comes:
// its result is stored under the id in the transaction that counts it, and whoever
// comes with the id again gets that. See tally for why no crash parts the two.
//
// Results are kept for Options.RequestTTL and in a bounded number and size; of too many
// the oldest go first. They are dropped a few at a time, in commits that are made
// anyway, so that no transaction grows with what has gathered.
//
// What is kept of them in memory is what that needs, and never a response.

const (
	// MaxRequestID bounds the id of a request, in bytes.
	MaxRequestID = 128
	// MaxResponse is the size of the largest response that is kept, in bytes. Of a
	// request that is answered with more, only that it was counted is.
	MaxResponse = 64 << 10

	// Of one transaction.
	resultsPerCommit     = 1024
	resultBytesPerCommit = 4 << 20

	// dropsPerCommit are the results that a commit drops beside those that make way
	// for new ones.
	dropsPerCommit = 1000
	// dropEvery is the pause between commits that do nothing else.
	dropEvery = time.Second

	// resultOverhead is about what a record costs beside its key and value.
	resultOverhead = 32
)

// ErrDuplicate is what CountOnce is told for a request that was counted before. Its
// result is in [DB.Result].
var ErrDuplicate = errors.New("a request with this id was counted already")

// Result is what a request with an id was answered.
type Result struct {
	ID     string // printable ASCII, 1 to MaxRequestID bytes
	Method string // with the leading slash
	// Digest is of the request: the id does not stand for another one.
	Digest [sha256.Size]byte
	// Response is encoded. LeftOut tells that it was larger than MaxResponse; it is
	// empty then.
	Response []byte
	LeftOut  bool
	Stored   time.Time // by the clock on the wall, for people
}

// CheckRequestID tells what is wrong with the id of a request.
func CheckRequestID(id string) error {
	if id == "" || len(id) > MaxRequestID {
		return fmt.Errorf("request id of %d bytes: want 1 to %d", len(id), MaxRequestID)
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return fmt.Errorf("request id %q: want printable ASCII", id)
		}
	}
	return nil
}

// Result returns what was stored under the id of a request, and whether anything was.
func (db *DB) Result(id string) (r Result, found bool, err error) {
	if !db.results.has(id, db.opts.BootTime()) {
		return Result{}, false, nil
	}
	err = db.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(migrations.BucketRequests)
		if b == nil {
			return fmt.Errorf("bucket %s is missing", migrations.BucketRequests)
		}
		value := b.Get([]byte(id))
		if value == nil {
			return nil // dropped since
		}
		rec, err := decodeResult([]byte(id), value)
		if err != nil {
			return err
		}
		r, found = rec.Result, true
		return nil
	})
	if err != nil {
		return Result{}, false, fmt.Errorf("read the result of request %q: %w", id, err)
	}
	return r, found, nil
}

// CountOnce counts a request that has an id, and stores its result under it, in one
// transaction: either both survive a crash or a power cut, with either SyncMode, or
// none does. Where there is a result under the id already, nothing is changed and done
// gets ErrDuplicate. A response that is too large is left out of r.
//
// done is told as by Count.
func (db *DB) CountOnce(r Result, done Counted) {
	if len(r.Response) > MaxResponse {
		r.Response, r.LeftOut = nil, true
	}
	if r.Stored.IsZero() {
		r.Stored = time.Now()
	}
	k := &keyed{Result: r, done: done, size: int64(len(r.ID) + len(r.Method) + len(r.Response) + sha256.Size + len(db.opts.BootID) + resultOverhead)}
	if err := CheckRequestID(r.ID); err != nil {
		db.teller.tell(notice{done: done, err: err})
		return
	}
	db.mu.Lock()
	if err := db.refusal(); err != nil {
		db.mu.Unlock()
		db.teller.tell(notice{done: done, err: err})
		return
	}
	b := db.next
	first := !b.joined
	b.joined = true
	b.keyed = append(b.keyed, k)
	db.mu.Unlock()
	if first {
		db.kick()
	}
}

// keyed is a request with an id on its way into the database.
type keyed struct {
	Result
	done Counted
	size int64
	err  error // valid once it was tried
}

// kept is what is known of a stored result without reading it.
type kept struct {
	id string
	// at is when it was stored, a reading of DB.bootTime; that of an earlier boot
	// counts from the beginning of this one, and so is kept for a whole ttl more.
	at   time.Duration
	size int64
	next *kept // the one stored after it
	// spoilt tells that its record cannot be read: it is dropped, and no result.
	spoilt bool
}

// results is the index of what is in the bucket, in the order in which it was stored.
// The committer alone changes it, under mu, when what it did is durable.
type results struct {
	ttl      time.Duration
	most     int
	mostSize int64

	mu          sync.Mutex
	byID        map[string]*kept
	first, last *kept
	n           int // of those from first to last
	size        int64
}

func (x *results) has(id string, now time.Duration) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.alive(x.byID[id], now)
}

func (x *results) count() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}

func (x *results) alive(k *kept, now time.Duration) bool {
	return k != nil && !k.spoilt && now-k.at < x.ttl
}

// turnover is what one transaction does to the results.
type turnover struct {
	dropped int // of the oldest
	added   []*kept
}

// plan finds out what must go so that those fit, and, as far as a commit may take the
// time, what is too old. ids returns what to delete: not what was stored anew since.
func (x *results) plan(now time.Duration, added []*kept) (c turnover, ids []string) {
	c.added = added
	n, size := x.n+len(added), x.size
	fresh := make(map[string]bool, len(added))
	for _, k := range added {
		size += k.size
		fresh[k.id] = true
	}
	tooOld := dropsPerCommit
	for k := x.first; k != nil; k = k.next {
		switch {
		case n > x.most || size > x.mostSize: // it makes way
		case !x.alive(k, now) && tooOld > 0:
			tooOld--
		default:
			return c, ids
		}
		n, size = n-1, size-k.size
		c.dropped++
		if x.byID[k.id] == k && !fresh[k.id] {
			ids = append(ids, k.id)
		}
	}
	return c, ids
}

// made takes over what has become durable. It returns how many were dropped before
// their time.
func (x *results) made(c turnover, now time.Duration) (early int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for range c.dropped {
		k := x.first
		if x.alive(k, now) {
			early++
		}
		x.first = k.next
		if x.first == nil {
			x.last = nil
		}
		if x.byID[k.id] == k {
			delete(x.byID, k.id)
		}
		x.n, x.size = x.n-1, x.size-k.size
	}
	for _, k := range c.added {
		x.append(k)
	}
	return early
}

func (x *results) append(k *kept) {
	if x.last == nil {
		x.first = k
	} else {
		x.last.next = k
	}
	x.last = k
	x.byID[k.id] = k
	x.n, x.size = x.n+1, x.size+k.size
}

// dropIn is in how long the oldest result will be too old; false where there is none.
func (x *results) dropIn(now time.Duration) (time.Duration, bool) {
	if x.first == nil {
		return 0, false
	}
	if x.first.spoilt {
		return 0, true
	}
	return max(0, x.first.at+x.ttl-now), true
}

// replace makes the index that of another list of records.
func (x *results) replace(list []*kept) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID, x.first, x.last, x.n, x.size = make(map[string]*kept, len(list)), nil, nil, 0, 0
	for _, k := range list {
		x.append(k)
	}
}

// loadResults makes the index from what is in the open database.
func (db *DB) loadResults(h *handle) error {
	type row struct {
		kept
		sequence uint64
	}
	var rows []row
	now := db.opts.BootTime()
	err := h.view(func(tx *bolt.Tx) error {
		b := tx.Bucket(migrations.BucketRequests)
		if b == nil {
			return nil // of a schema without it
		}
		return b.ForEach(func(key, value []byte) error {
			if value == nil {
				return nil // a bucket where a record should be, which Check tells of
			}
			r := row{kept: kept{id: string(key), size: int64(len(key) + len(value) + resultOverhead)}}
			rec, err := decodeResult(key, value)
			if err != nil {
				db.opts.Logger.Warn("result of a request cannot be read, dropping it", "path", db.path, "request", shownKey(string(key)), "error", err)
				r.spoilt = true
			}
			r.sequence = rec.sequence
			if rec.bootID == db.opts.BootID && db.opts.BootID != "" {
				r.at = min(rec.bootTime, now) // a clock that was set back makes none live for ever
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
		case a.spoilt != b.spoilt: // first to go
			if a.spoilt {
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
	list := make([]*kept, len(rows))
	for i := range rows {
		list[i] = &rows[i].kept
	}
	db.results.replace(list)
	return nil
}

// settleResults makes in tx what of list is new a result, drops what must go, and
// returns what changes. What is not new gets ErrDuplicate.
func (db *DB) settleResults(tx *bolt.Tx, list []*keyed, now time.Duration) (turnover, error) {
	var added []*kept
	fresh := make(map[string]bool, len(list))
	b := bucket(tx, migrations.BucketRequests)
	if b.b == nil && len(list) == 0 {
		return turnover{}, nil // of a schema without it
	}
	if err := b.check(); err != nil {
		return turnover{}, err
	}
	for _, k := range list {
		if k.err = nil; fresh[k.ID] || db.results.alive(db.results.byID[k.ID], now) {
			k.err = ErrDuplicate
			continue
		}
		sequence, err := b.b.NextSequence()
		if err != nil {
			return turnover{}, err
		}
		value, err := encodeResult(record{Result: k.Result, sequence: sequence, bootTime: now, bootID: db.opts.BootID})
		if err != nil {
			return turnover{}, err
		}
		if err := b.put([]byte(k.ID), value); err != nil {
			return turnover{}, err
		}
		fresh[k.ID] = true
		added = append(added, &kept{id: k.ID, at: now, size: int64(len(k.ID) + len(value) + resultOverhead)})
	}
	c, ids := db.results.plan(now, added)
	for _, id := range ids {
		if err := b.delete([]byte(id)); err != nil {
			return turnover{}, err
		}
	}
	return c, nil
}

// record is a result as it stands in the file.
type record struct {
	Result
	sequence uint64
	bootTime time.Duration // when it was stored, in bootID
	bootID   string
}

func encodeResult(r record) ([]byte, error) {
	return proto.Marshal(&pb.Result{
		Method:     text(r.Method),
		Digest:     r.Digest[:],
		Response:   r.Response,
		LeftOut:    r.LeftOut,
		Sequence:   r.sequence,
		BootTimeNs: int64(r.bootTime),
		BootId:     text(r.bootID),
		Stored:     stamp(r.Stored),
	})
}

func decodeResult(key, value []byte) (record, error) {
	if err := CheckRequestID(string(key)); err != nil {
		return record{}, err
	}
	var m pb.Result
	if err := proto.Unmarshal(value, &m); err != nil {
		return record{}, err
	}
	stored, err := readTime("stored", m.GetStored())
	if err != nil {
		return record{}, err
	}
	r := record{
		Result: Result{
			ID: string(key), Method: m.GetMethod(), Response: m.GetResponse(), LeftOut: m.GetLeftOut(), Stored: stored,
		},
		sequence: m.GetSequence(), bootTime: time.Duration(m.GetBootTimeNs()), bootID: m.GetBootId(),
	}
	if len(m.GetDigest()) != len(r.Digest) || r.bootTime < 0 || r.LeftOut && len(r.Response) > 0 || len(r.Response) > MaxResponse {
		return record{}, errors.New("no result of a request")
	}
	copy(r.Digest[:], m.GetDigest())
	return r, nil
}
