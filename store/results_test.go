package store

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/core-tools/hsu-master/migrations"
	"github.com/core-tools/hsu-master/store/boltfile"
	"github.com/core-tools/hsu-master/store/once"
	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/store/statedir"
)

func resultOf(id, response string) records.Result {
	return records.Result{
		ID: id, Method: "/proto.Service/Do", Digest: sha256.Sum256([]byte(id)),
		Response: []byte(response), Stored: testTime,
	}
}

// onceNow counts a request with an id and waits for the outcome.
func onceNow(db *DB, r records.Result) error {
	c := make(told, 1)
	db.CountOnce(r, c)
	return <-c
}

func mustOnce(t testing.TB, db *DB, r records.Result) {
	t.Helper()
	if err := onceNow(db, r); err != nil {
		t.Fatalf("count request %q: %v", r.ID, err)
	}
}

// wantResult checks the response stored under an id. An empty response means that nothing is stored.
func wantResult(t testing.TB, db *DB, id, response string) {
	t.Helper()
	r, found, err := db.Result(id)
	if err != nil || found != (response != "") {
		t.Errorf("result of %q: found %t, %v, want %q", id, found, err, response)
		return
	}
	if diff := cmp.Diff(resultOf(id, response), r); found && diff != "" {
		t.Errorf("result of %q: %s", id, diff)
	}
}

// machine provides a boot clock that keeps running while no master runs.
type machine struct {
	boot string
	now  atomic.Int64
}

func (m *machine) options(o Options) Options {
	o.BootTime, o.BootID = func() time.Duration { return time.Duration(m.now.Load()) }, m.boot
	return o
}

func (m *machine) pass(d time.Duration) { m.now.Add(int64(d)) }

func TestRequestIsCountedOnceAndItsResultKept(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := machine{boot: "b"}
			opts := m.options(Options{Sync: mode})
			db := openTest(t, dir, opts)
			add(t, db, 2)
			wantResult(t, db, "a", "")
			mustOnce(t, db, resultOf("a", "one"))
			for range 2 {
				if err := onceNow(db, resultOf("a", "two")); !errors.Is(err, ErrDuplicate) {
					t.Errorf("again: %v, want ErrDuplicate", err)
				}
			}
			mustOnce(t, db, resultOf("b", "three"))
			if s := snapshot(t, db); s.Processed != 4 || s.Results != 2 {
				t.Errorf("processed %d, %d results, want 4 and 2", s.Processed, s.Results)
			}
			mustClose(t, db)
			if s := checkFiles(t, dir); s.Processed != 4 || s.Results != 2 {
				t.Errorf("on the disk: processed %d, %d results, want 4 and 2", s.Processed, s.Results)
			}
			db = openTest(t, dir, opts)
			wantResult(t, db, "a", "one")
			wantResult(t, db, "b", "three")
			if err := onceNow(db, resultOf("a", "two")); !errors.Is(err, ErrDuplicate) || db.Processed() != 4 {
				t.Errorf("after a restart: %v, processed %d, want ErrDuplicate and 4", err, db.Processed())
			}
		})
	}
}

// Many callers share few ids, among requests without ids: each id counts once.
func TestConcurrentRequestsWithOneIDCountOnce(t *testing.T) {
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db := openTest(t, dir, Options{Sync: mode})
			var first, again, plain atomic.Int64
			var wg sync.WaitGroup
			for i := range 30 {
				wg.Go(func() {
					for j := range 20 {
						switch err := onceNow(db, resultOf(fmt.Sprint("request-", (i+j)%40), "done")); {
						case err == nil:
							first.Add(1)
						case errors.Is(err, ErrDuplicate):
							again.Add(1)
						default:
							t.Error(err)
						}
						if err := countNow(db); err != nil {
							t.Error(err)
						}
						plain.Add(1)
					}
				})
			}
			wg.Wait()
			if first.Load() != 40 || again.Load() != 560 || db.Processed() != 40+plain.Load() {
				t.Errorf("%d were new and %d not, want 40 and 560; processed %d, want %d",
					first.Load(), again.Load(), db.Processed(), 40+plain.Load())
			}
			mustClose(t, db)
			if s := checkFiles(t, dir); s.Processed != 40+plain.Load() || s.Results != 40 {
				t.Errorf("on the disk: processed %d, %d results", s.Processed, s.Results)
			}
		})
	}
}

func TestBadRequestIDs(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	for _, id := range []string{"", strings.Repeat("x", records.MaxRequestID+1), "a\n", "\x7f", "ä", "a\x00"} {
		if err := onceNow(db, resultOf(id, "x")); err == nil || errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: %v, want that it is refused", id, err)
		}
	}
	for _, id := range []string{strings.Repeat("x", records.MaxRequestID), "~ !", "a/b", `"`} {
		mustOnce(t, db, resultOf(id, "x"))
		wantResult(t, db, id, "x")
	}
	if db.Processed() != 4 {
		t.Errorf("processed %d, want 4", db.Processed())
	}
}

func TestLargeResponseIsLeftOut(t *testing.T) {
	db := openTest(t, t.TempDir(), Options{})
	mustOnce(t, db, resultOf("fits", strings.Repeat("x", records.MaxResponse)))
	wantResult(t, db, "fits", strings.Repeat("x", records.MaxResponse))
	large := resultOf("large", strings.Repeat("x", records.MaxResponse+1))
	mustOnce(t, db, large)
	r, found, err := db.Result("large")
	want := large
	want.Response, want.LeftOut = nil, true
	if diff := cmp.Diff(want, r); err != nil || !found || diff != "" {
		t.Errorf("%t, %v: %s", found, err, diff)
	}
	if err := onceNow(db, large); !errors.Is(err, ErrDuplicate) || db.Processed() != 2 {
		t.Errorf("again: %v, processed %d", err, db.Processed())
	}
}

func TestResultsExpire(t *testing.T) {
	const ttl = time.Minute
	dir := t.TempDir()
	m := machine{boot: "b"}
	m.pass(time.Hour)
	opts := m.options(Options{RequestTTL: ttl})
	db := openTest(t, dir, opts)
	mustOnce(t, db, resultOf("a", "one"))
	m.pass(ttl / 2)
	mustOnce(t, db, resultOf("b", "two"))
	m.pass(ttl/2 - 1)
	wantResult(t, db, "a", "one")
	m.pass(1)
	wantResult(t, db, "a", "")
	wantResult(t, db, "b", "two")
	mustClose(t, db)
	m.pass(ttl/2 - 1) // while no master runs
	db = openTest(t, dir, opts)
	wantResult(t, db, "a", "")
	wantResult(t, db, "b", "two")
	// The request is counted again and gets a new result.
	mustOnce(t, db, resultOf("a", "three"))
	wantResult(t, db, "a", "three")
	m.pass(1)
	wantResult(t, db, "b", "")
	mustOnce(t, db, resultOf("c", "four")) // drops b and the old result of a, but not the new one
	if got := db.results.Count(); got != 2 {
		t.Errorf("%d results are kept, want 2", got)
	}
	wantResult(t, db, "a", "three")
	mustClose(t, db)
	if s := checkFiles(t, dir); s.Results != 2 || s.Processed != 4 {
		t.Errorf("on the disk: %d results, processed %d, want 2 and 4", s.Results, s.Processed)
	}
}

// After a reboot, the age of earlier results is unknown. They are kept for one more ttl, which restarts of the
// master do not extend.
func TestResultsOverAReboot(t *testing.T) {
	const ttl = time.Minute
	dir := t.TempDir()
	m := machine{boot: "first"}
	m.pass(time.Hour)
	db := openTest(t, dir, m.options(Options{RequestTTL: ttl}))
	mustOnce(t, db, resultOf("a", "one"))
	mustClose(t, db)
	m.boot = "second"
	m.now.Store(int64(10 * time.Second))
	for _, pass := range []time.Duration{0, 49 * time.Second} {
		m.pass(pass)
		db = openTest(t, dir, m.options(Options{RequestTTL: ttl}))
		wantResult(t, db, "a", "one")
		mustClose(t, db)
	}
	m.pass(time.Second)
	db = openTest(t, dir, m.options(Options{RequestTTL: ttl}))
	wantResult(t, db, "a", "")
}

// If the clock shows an earlier time than before, as in another time namespace, no result lives longer than another
// ttl.
func TestResultsOfLater(t *testing.T) {
	dir := t.TempDir()
	m := machine{boot: "b"}
	m.pass(100 * time.Hour)
	db := openTest(t, dir, m.options(Options{RequestTTL: time.Minute}))
	mustOnce(t, db, resultOf("a", "one"))
	mustClose(t, db)
	m.now.Store(int64(time.Hour))
	db = openTest(t, dir, m.options(Options{RequestTTL: time.Minute}))
	wantResult(t, db, "a", "one")
	m.pass(time.Minute)
	wantResult(t, db, "a", "")
}

func TestTooManyResultsDropTheOldest(t *testing.T) {
	dir := t.TempDir()
	m := machine{boot: "b"}
	opts := m.options(Options{MaxResults: 3})
	db := openTest(t, dir, opts)
	for n := range 10 {
		mustOnce(t, db, resultOf(fmt.Sprint(n), "x"))
		if got := db.results.Count(); got != min(n+1, 3) {
			t.Errorf("%d results are kept after %d, want %d", got, n+1, min(n+1, 3))
		}
	}
	want := func(db *DB) {
		t.Helper()
		for n := range 10 {
			wantResult(t, db, fmt.Sprint(n), strings.Repeat("x", min(1, n/7)))
		}
	}
	want(db)
	mustClose(t, db)
	db = openTest(t, dir, opts)
	want(db)
	if db.Processed() != 10 {
		t.Errorf("processed %d, want 10", db.Processed())
	}
}

func TestTooLargeResultsDropTheOldest(t *testing.T) {
	m := machine{boot: "b"}
	db := openTest(t, t.TempDir(), m.options(Options{MaxResultBytes: 3 * records.MaxResponse}))
	large := strings.Repeat("x", records.MaxResponse)
	for n := range 10 {
		mustOnce(t, db, resultOf(fmt.Sprint("small-", n), "x"))
	}
	mustOnce(t, db, resultOf("large-0", large))
	mustOnce(t, db, resultOf("large-1", large))
	wantResult(t, db, "small-0", "x")
	mustOnce(t, db, resultOf("large-2", large))
	wantResult(t, db, "small-9", "")
	wantResult(t, db, "large-0", "") // does not fit beside the others, because of the overhead of records
	wantResult(t, db, "large-1", large)
	wantResult(t, db, "large-2", large)
	got := 0
	if err := db.flow.View(func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketRequests).ForEach(func(id, value []byte) error {
			got += len(id) + len(value)
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if got > 3*records.MaxResponse {
		t.Errorf("%d bytes are kept", got)
	}
}

// Expired results are dropped even if no requests arrive, a bounded number at a time.
func TestResultsExpireWhereNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a acts
		dir := t.TempDir()
		began := time.Now()
		db := openSeams(t, dir, Options{
			RequestTTL: time.Minute, BootID: "b", BootTime: func() time.Duration { return time.Since(began) },
		}, a.seams())
		var wg sync.WaitGroup
		const all = 2*once.DropsPerCommit + 1
		for n := range all {
			wg.Go(func() { mustOnce(t, db, resultOf(fmt.Sprint(n), "x")) })
		}
		wg.Wait()
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		if got := db.results.Count(); got != all {
			t.Errorf("%d are kept before they are too old, want %d", got, all)
		}
		a.take()
		for _, want := range []int{all - once.DropsPerCommit, all - 2*once.DropsPerCommit, 0, 0} {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if got := db.results.Count(); got > want {
				t.Errorf("%d are kept, want %d", got, want)
			}
		}
		if commits := a.take(); len(commits) != 3 {
			t.Errorf("%v, want three commits and then none", commits)
		}
		mustClose(t, db)
		if s := checkFiles(t, dir); s.Results != 0 || s.Processed != all {
			t.Errorf("on the disk: %d results, processed %d", s.Results, s.Processed)
		}
	})
}

// If more requests arrive at once than one transaction may take, they are split into several.
func TestManyResultsAtOnceAreSeveralTransactions(t *testing.T) {
	for what, response := range map[string]string{"many": "x", "large": strings.Repeat("x", records.MaxResponse)} {
		t.Run(what, func(t *testing.T) {
			var commits atomic.Int32
			begun, hold := make(chan struct{}), make(chan struct{})
			db := openSeams(t, t.TempDir(), Options{}, seams{steps: migrations.All, at: func(moment string) error {
				if moment == "room" && commits.Add(1) == 1 {
					close(begun)
					<-hold
				}
				return nil
			}})
			n := map[string]int{
				"many": once.ResultsPerCommit + 1, "large": 2 * once.ResultBytesPerCommit / records.MaxResponse,
			}[what]
			c := make(told, n+1)
			db.CountOnce(resultOf("first", "x"), c)
			<-begun
			for i := range n {
				db.CountOnce(resultOf(fmt.Sprint(i), response), c)
			}
			close(hold)
			for range n + 1 {
				if err := <-c; err != nil {
					t.Error(err)
				}
			}
			if got := commits.Load(); got < 3 {
				t.Errorf("%d commits, want 3 at least", got)
			}
			if got := db.Processed(); got != int64(n+1) {
				t.Errorf("processed %d, want %d", got, n+1)
			}
		})
	}
}

// Each durable operation fails in turn. The request is then either counted and its result stored, or neither, and a
// retry counts it in the latter case.
func TestCountOnceThatFails(t *testing.T) {
	for name, mode := range syncModes {
		for _, c := range []struct {
			act     string
			counted bool
		}{
			{"room", false},
			{"commit", false},
			{"after-commit", false}, // bbolt sees the change, but the disk may not have it
			{"count", true},         // it is in the database by that time
		} {
			t.Run(name+"/"+c.act, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var a acts
					dir := t.TempDir()
					m := machine{boot: "b"}
					db := openSeams(t, dir, m.options(Options{Sync: mode}), a.seams())
					put(t, db, records.PutWorker(fullWorker("worker-0")))
					mustOnce(t, db, resultOf("before", "x"))
					add(t, db, 5)
					a.set(c.act, syscall.ENOSPC)
					err := onceNow(db, resultOf("a", "x"))
					if c.counted != (err == nil) ||
						err != nil && (!errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC)) {
						t.Errorf("%v, want that it is counted: %t", err, c.counted)
					}
					a.set(c.act, nil)
					time.Sleep(time.Minute)
					synctest.Wait()
					wantResult(t, db, "before", "x")
					wantResult(t, db, "a", strings.Repeat("x", map[bool]int{true: 1}[c.counted]))
					if err := onceNow(db, resultOf("a", "x")); c.counted != errors.Is(err, ErrDuplicate) ||
						!c.counted && err != nil {
						t.Errorf("again: %v", err)
					}
					if err := onceNow(db, resultOf("a", "x")); !errors.Is(err, ErrDuplicate) || db.Processed() != 7 {
						t.Errorf("and again: %v, processed %d, want 7", err, db.Processed())
					}
					add(t, db, 1)
					mustClose(t, db)
					if s := checkFiles(t, dir); s.Processed != 8 || s.Results != 2 {
						t.Errorf("on the disk: processed %d, %d results, want 8 and 2", s.Processed, s.Results)
					}
				})
			})
		}
	}
}

// If there is no room for results, everything that needs no new space continues.
func TestNoRoomForResultsStopsNothingElse(t *testing.T) {
	var a acts
	db := openSeams(t, t.TempDir(), Options{}, a.seams())
	a.set("room", syscall.ENOSPC)
	for n := range 3 {
		if err := onceNow(db, resultOf("a", "x")); !errors.Is(err, ErrUnavailable) ||
			!strings.Contains(err.Error(), "free some space") {
			t.Errorf("%v, want ErrUnavailable and what to do", err)
		}
		put(t, db, records.PutWorker(fullWorker(fmt.Sprint("worker-", n))))
		add(t, db, 1)
		if err := db.Writable(); err != nil {
			t.Error(err)
		}
	}
	a.set("room", nil)
	mustOnce(t, db, resultOf("a", "x"))
	if db.Processed() != 4 {
		t.Errorf("processed %d, want 4", db.Processed())
	}
}

// A process that counts with and without ids is killed repeatedly, usually between two of its writes. See children
// for its output.
func TestRequestsSurviveKill(t *testing.T) {
	const rounds = 8
	for name, mode := range syncModes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chance := rand.New(rand.NewPCG(3, 4))
			model := newRequestModel()
			for round := range rounds {
				c := startChild(t, "requests", dir, mode)
				for n := 1 + chance.IntN(300); n > 0; {
					line, err := c.out.ReadString('\n')
					if err != nil {
						t.Fatalf("round %d: the child ended by itself: %v", round, err)
					}
					if model.said(t, line); line[0] == 'A' || line[0] == 'D' {
						n--
					}
				}
				if err := c.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				for {
					line, err := c.out.ReadString('\n')
					if err != nil {
						break
					}
					model.said(t, line)
				}
				c.kill()
				model.check(t, fmt.Sprint("round ", round), dir)
			}
			t.Logf("%d plain sent, %d acknowledged; %d ids acknowledged of %d",
				model.sent, model.acked, len(model.ackedID), len(model.sentID))
		})
	}
}

// requestModel is the possible content of the files.
type requestModel struct {
	sent, acked     int64
	sentID, ackedID map[string]bool
}

func newRequestModel() *requestModel {
	return &requestModel{sentID: map[string]bool{}, ackedID: map[string]bool{}}
}

func (m *requestModel) said(t *testing.T, line string) {
	t.Helper()
	what, id, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch what {
	case "s":
		m.sent++
	case "a":
		m.acked++
	case "S":
		m.sentID[id] = true
	case "A", "D": // counted, or counted before
		if what == "D" && !m.sentID[id] {
			t.Errorf("request %q was counted before it was sent", id)
		}
		m.ackedID[id] = true
	default:
		t.Fatalf("the child says %q", line)
	}
}

// check checks that each acknowledged id has a stored result, that each stored id was sent, and that the count is
// the number of stored ids plus a possible number of requests without an id.
func (m *requestModel) check(t *testing.T, when, dir string) {
	t.Helper()
	s := checkFiles(t, dir)
	stored := map[string]bool{}
	h, err := boltfile.OpenReadOnly(filepath.Join(dir, statedir.DatabaseName), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	err = h.View(func(tx *bolt.Tx) error {
		return tx.Bucket(migrations.BucketRequests).ForEach(func(k, _ []byte) error {
			stored[string(k)] = true
			return nil
		})
	})
	if err := errors.Join(err, h.Close()); err != nil {
		t.Fatal(err)
	}
	for id := range m.ackedID {
		if !stored[id] {
			t.Errorf("%s: request %q was acknowledged, and there is no result", when, id)
		}
	}
	for id := range stored {
		if !m.sentID[id] {
			t.Errorf("%s: request %q was never sent", when, id)
		}
	}
	between(t, when+": count without ids", m.acked, s.Processed-int64(len(stored)), m.sent)
}
